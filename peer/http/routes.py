"""Table of the HTTP API: method and path of each command of the control socket.

Not here: how a request becomes a command (see common.http.routes), the answers (see
common.messages.documents), and rights (see common.http.access).
"""

from __future__ import annotations

from typing import Any, cast, get_args

import msgspec

from common.http.routes import Route, struct_of
from common.messages import control
from common.names import quoted

_PATHS = ("path", "dest", "reuse")
NOT_ROUTED = (
    control.Hello,
    control.HangUp,
    control.OpenPage,
    control.ReadFile,
    control.Watch,
    control.Metrics,
)
"""Commands of the control socket that HTTP needs no route for: events have a stream, bytes of files
are answered as such (see peer.http.file_routes), and metrics have a path outside the API."""
STREAMED = (control.UploadFile, control.DownloadFile, control.AwaitDownload)
"""Commands whose progress and result are sent as events to a client that asks for them."""


def command_of(route: Route, path: dict[str, Any], body: Any) -> control.Command:
    """Build the command. ``body``: values of JSON, or the texts of a query.

    Raises `msgspec.ValidationError`.
    """
    made = struct_of(route, path, body)
    _check_paths(made)
    return cast(control.Command, made)


def _check_paths(command: msgspec.Struct) -> None:
    """Refuse relative paths: a client has no working folder here, and the peer runs in ``/``."""
    for field in _PATHS:
        given = getattr(command, field, None)
        for path in [given] if isinstance(given, str) else given or ():
            if not path.startswith("/") or "\0" in path:
                raise msgspec.ValidationError(
                    f"{quoted(path)} is no absolute path - at `$.{field}`"
                )


def _group(tail: str = "") -> str:
    return f"/groups/{{group}}{tail}"


def _rows(method: str, path: str, command: type, answer: type, rows: type, summary: str) -> Route:
    return Route(method, path, command, answer, summary, rows)


_DOWNLOAD = _group("/downloads/{name}")
_FILE = _group("/files/{name}")
_REQUEST = _group("/requests/{user}")
_c = control

ROUTES: tuple[Route, ...] = (
    # -- this device
    Route("GET", "/status", _c.Status, _c.StatusIs, "State of this peer"),
    Route("POST", "/down", _c.Down, _c.Done, "Stop this peer"),
    _rows("GET", "/checks", _c.Doctor, _c.Checks, _c.CheckRow, "Checks of the doctor"),
    Route("POST", "/limits", _c.Limit, _c.LimitsAre, "Limits of the bandwidth; change those given"),
    # -- accounts
    Route("POST", "/users", _c.CreateUser, _c.Done, "Create an account"),
    Route("POST", "/login", _c.Login, _c.Done, "Log in on this device"),
    Route("POST", "/logout", _c.Logout, _c.Done, "Log out on this device"),
    Route("POST", "/password", _c.ChangePassword, _c.Done, "Change the password"),
    _rows("GET", "/devices", _c.ListDevices, _c.Devices, _c.DeviceRow, "Devices of the user"),
    Route("DELETE", "/devices/{device}", _c.ForgetDevice, _c.Done, "Log out a device"),
    # -- groups
    _rows("GET", "/groups", _c.ListGroups, _c.Groups, _c.GroupRow, "All groups"),
    Route("POST", "/groups", _c.CreateGroup, _c.Done, "Create a group"),
    Route("POST", _group("/join"), _c.JoinGroup, _c.Done, "Ask to join a group"),
    Route("POST", _group("/leave"), _c.LeaveGroup, _c.Done, "Leave a group"),
    _rows("GET", _group("/members"), _c.ListMembers, _c.Users, _c.UserRow, "Members of a group"),
    Route("DELETE", _group("/members/{user}"), _c.RemoveMember, _c.Done, "Remove a member"),
    _rows("GET", _group("/requests"), _c.ListRequests, _c.Users, _c.UserRow, "Join requests"),
    Route("POST", f"{_REQUEST}/accept", _c.AcceptRequest, _c.Done, "Accept a join request"),
    Route("POST", f"{_REQUEST}/reject", _c.RejectRequest, _c.Done, "Reject a join request"),
    _rows("GET", _group("/invites"), _c.ListInvites, _c.Invites, _c.InviteRow, "Open invitations"),
    Route("POST", _group("/invites"), _c.Invite, _c.Invited, "Make an invitation"),
    Route("DELETE", _group("/invites/{id}"), _c.RevokeInvite, _c.Done, "Revoke an invitation"),
    Route("POST", "/join", _c.Redeem, _c.Redeemed, "Join a group by an invitation"),
    # -- files
    _rows("GET", _group("/files"), _c.ListFiles, _c.Files, _c.FileRow, "Shares of a group"),
    Route("POST", _group("/files"), _c.UploadFile, _c.Uploaded, "Share a path of this machine"),
    Route("GET", _FILE, _c.Info, _c.ShareInfo, "All about a share"),
    Route("POST", f"{_FILE}/stop-share", _c.StopShare, _c.Done, "Stop sharing from this device"),
    Route("POST", f"{_FILE}/withdraw", _c.Withdraw, _c.Done, "Withdraw from the group"),
    Route("POST", f"{_FILE}/download", _c.DownloadFile, _c.Downloaded, "Download a share"),
    Route("POST", f"{_FILE}/verify", _c.Verify, _c.Verified, "Read a copy of this device again"),
    Route("POST", f"{_FILE}/move", _c.Move, _c.Done, "Move a copy of this device"),
    _rows("GET", "/shares", _c.ListShares, _c.ShareRows, _c.ShareRow, "Shares of this device"),
    Route("POST", f"{_FILE}/wait", _c.AwaitCopies, _c.Copies, "Wait for copies on other devices"),
    _rows("GET", f"{_FILE}/holders", _c.WhoHas, _c.Holders, _c.HolderRow, "Devices that hold it"),
    _rows("GET", "/follows", _c.ListFollows, _c.Follows, _c.FollowRow, "Follows of this device"),
    Route("POST", _group("/follow"), _c.Follow, _c.Follows, "Follow a group into a folder"),
    Route("POST", _group("/unfollow"), _c.Unfollow, _c.Follows, "Follow a group no longer"),
    _rows("GET", "/downloads", _c.ShowDownloads, _c.Downloads, _c.DownloadRow, "All downloads"),
    Route("POST", "/downloads/clear", _c.Clear, _c.DoneAll, "Clear complete downloads"),
    Route("POST", _group("/downloads"), _c.AwaitDownload, _c.Downloaded, "Wait for a download"),
    Route("POST", f"{_DOWNLOAD}/pause", _c.Pause, _c.Done, "Pause a download"),
    Route("POST", f"{_DOWNLOAD}/resume", _c.Resume, _c.Done, "Resume a download"),
    Route("POST", f"{_DOWNLOAD}/cancel", _c.Cancel, _c.Done, "Cancel a download"),
    _rows("GET", f"{_DOWNLOAD}/sources", _c.WhySlow, _c.SourceRows, _c.SourceRow, "Its sources"),
    Route("GET", f"{_DOWNLOAD}/pieces", _c.PieceMap, _c.PieceMapIs, "Its pieces, for display"),
    Route("GET", "/space", _c.FreeSpace, _c.SpaceIs, "Free space at a path of this machine"),
    Route("POST", "/qr-code", _c.QrCode, _c.QrCodeIs, "A text as a QR code"),
)


def unrouted() -> set[type]:
    """Commands without a route; a test holds that there are none."""
    return set(get_args(control.Command)) - {route.command for route in ROUTES} - set(NOT_ROUTED)
