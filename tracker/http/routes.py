"""Table of the tracker's HTTP API: method and path of each command.

Not here: how a request becomes a command (see common.http.routes), and rights (see
common.http.access).
"""

from __future__ import annotations

from typing import Any, cast, get_args

import msgspec

from common.http.routes import Route, struct_of
from common.messages import operator
from common.names import quoted
from tracker.http import commands as c

_USER = "/users/{user}"
_GROUP = "/groups/{group}"
_o = operator
NOT_ROUTED = (_o.Metrics, _o.OpenPage)
"""Commands of the operator's socket that need no route: metrics have a path outside the API, and a
page is opened by `mini-torrent-tracker web`."""

ROUTES: tuple[Route, ...] = (
    # -- the tracker
    Route("GET", "/status", c.GetStatus, _o.StatusIs, "State of the tracker"),
    Route("POST", "/stop", _o.Stop, _o.Changed, "Stop the tracker"),
    Route("POST", "/registration", _o.SetRegistration, _o.RegistrationIs, "Who may register"),
    Route("POST", "/backup", c.Backup, _o.Changed, "Copy everything to a file of this machine"),
    Route("GET", "/checks", c.Doctor, c.CheckRow, "Checks of the doctor", c.CheckRow),
    Route("GET", "/load", _o.GetLoad, _o.LoadIs, "Counts of the tracker's work"),
    Route("GET", "/history", c.GetHistory, _o.HistoryIs, "Load of the last hour"),
    Route("GET", "/log", _o.ListLog, _o.Log, "Latest lines of the log", _o.LogRow),
    # -- users and devices
    Route("GET", "/users", c.ListUsers, _o.Users, "Accounts", _o.UserRow),
    Route("POST", f"{_USER}/disabled", _o.SetDisabled, _o.Changed, "Disable or enable a user"),
    Route("POST", f"{_USER}/password", c.ResetPassword, _o.Changed, "Give a user a new password"),
    Route("DELETE", _USER, _o.DeleteUser, _o.Changed, "Delete an account"),
    Route("GET", "/devices", c.ListDevices, _o.Devices, "Devices that are logged in", _o.DeviceRow),
    # -- groups and swarms
    Route("GET", "/groups", c.ListGroups, _o.Groups, "Groups", _o.GroupRow),
    Route("GET", f"{_GROUP}/members", _o.ListMembers, _o.Members, "Its members", _o.MemberRow),
    Route("DELETE", _GROUP, _o.DeleteGroup, _o.Changed, "Delete a group"),
    Route("GET", "/swarms", c.ListSwarms, c.SwarmsAre, "Shares by health"),
)


def command_of(route: Route, path: dict[str, Any], body: Any) -> c.Command:
    """Build the command. Raises `msgspec.ValidationError`."""
    made = cast(c.Command, struct_of(route, path, body))
    if isinstance(made, c.Backup) and (not made.file.startswith("/") or "\0" in made.file):
        raise msgspec.ValidationError(f"{quoted(made.file)} is no absolute path - at `$.file`")
    return made


def unrouted() -> set[str]:
    """Names of the operator's commands without a route; a test holds that there are none."""
    asks = {command.__name__ for command in get_args(operator.Command)}
    routed = {route.name for route in ROUTES} | {command.__name__ for command in NOT_ROUTED}
    return asks - routed - {"Status"}  # that is GetStatus here, without the form of the messages
