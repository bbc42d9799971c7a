"""Messages between the command line and its own peer, over a private ipc socket.

Rows are named structs. ``--json`` prints them, so their field names are part of the contract of the
command line. Long commands send any number of `Progress` before their result.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias, get_args

import msgspec
from msgspec import Meta

from common.limits import CONTENT_BYTES_MAX, FILE_PATTERNS_MAX, INVITATION_S, REUSE_PATHS_MAX
from common.messages.form import form_of
from common.messages.refusals import Code
from common.names import PATH_BYTES_MAX
from common.units import percent_text

Text = Annotated[str, Meta(max_length=4096)]
Seconds = Annotated[float, Meta(ge=0, le=1e15)]
LINK_ROOTS_MAX = 64  # folders of link targets in one command; each is compared at each link
HOOK_WORDS_MAX = 256  # of the command of a hook
EXCLUDED_MAX = 1_000  # patterns in one command; each entry is compared with all


class _Command(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of the commands."""


class _Row(msgspec.Struct, frozen=True, omit_defaults=False):
    """Base of the rows, in the shape that ``--json`` prints."""


class _Result(msgspec.Struct, frozen=True, tag=True):
    """Base of the results."""


# -- what is asked ------------------------------------------------------------------------------


class Hello(_Command, frozen=True):
    """Ask for the release of the peer; every release from 0.1.1 on answers it."""


class Status(_Command, frozen=True):
    pass


class Down(_Command, frozen=True):
    """Stop this peer in order."""


class CreateUser(_Command, frozen=True):
    user: Text
    password: Text


class Login(_Command, frozen=True):
    """Log in. ``yes``: also if this logs out another user whose shares run."""

    user: Text
    password: Text
    yes: bool = False


class Logout(_Command, frozen=True):
    pass


class ChangePassword(_Command, frozen=True):
    old: Text
    new: Text
    keep_devices: bool = False


class ListDevices(_Command, frozen=True):
    pass


class ForgetDevice(_Command, frozen=True):
    """Log out another device of the user. ``device``: the beginning of its id, or its whole key as
    ``--json`` shows it."""

    device: Text


class CreateGroup(_Command, frozen=True):
    group: Text


class JoinGroup(_Command, frozen=True):
    group: Text


class LeaveGroup(_Command, frozen=True):
    """Leave a group. ``yes``: also as its owner."""

    group: Text
    yes: bool = False


class ListGroups(_Command, frozen=True):
    pass


class ListRequests(_Command, frozen=True):
    group: Text


class ListMembers(_Command, frozen=True):
    group: Text


class AcceptRequest(_Command, frozen=True):
    group: Text
    user: Text


class RejectRequest(_Command, frozen=True):
    group: Text
    user: Text


class RemoveMember(_Command, frozen=True):
    group: Text
    user: Text


class UploadFile(_Command, frozen=True):
    """Share a file or folder. ``path`` is absolute. ``name`` defaults to the last part of the path.
    ``yes``: hidden and private files may be shared; ``times``: the times of modification are.

    ``links``: treatment of links in a folder; ``link_roots``: absolute folders that may hold their
    targets too. ``exclude``: patterns of entries to leave out; ``skip``: leave out what cannot be
    shared. ``dry_run``: change nothing, and answer with `Planned`."""

    path: Text
    group: Text
    name: Text | None = None
    digest: str = "blake3"
    piece_length: int | None = None
    yes: bool = False
    times: bool = True
    links: str = "refuse"
    link_roots: Annotated[list[Text], Meta(max_length=LINK_ROOTS_MAX)] = []
    exclude: Annotated[list[Text], Meta(max_length=EXCLUDED_MAX)] = []
    skip: bool = False
    dry_run: bool = False
    replace: bool = False
    """If the name has another content, this one becomes its next version."""
    expires_s: Seconds | None = None
    """Seconds until the share ends by itself; None if it does not."""


class ListFiles(_Command, frozen=True):
    """List the shares of a group. ``versions``: earlier versions too."""

    group: Text
    versions: bool = False


class DownloadFile(_Command, frozen=True):
    """Download a share. ``dest`` is absolute: a folder to put the share into, or a new path; with
    ``/`` at its end a folder, which is made if it is missing.

    With ``wait`` the answer comes when the verified file is in place, with progress before it; or
    after ``timeout_s`` as an error, and the download goes on.
    ``times``: whether it gets its times of modification; None as ``peer.toml`` has it.
    ``overwrite``: the verified content replaces what stands at its final path.
    """

    group: Text
    name: Text
    dest: Text
    wait: bool = True
    pick: str = "rarest"
    times: bool | None = None
    timeout_s: Seconds | None = None
    reuse: Annotated[list[Text], Meta(max_length=REUSE_PATHS_MAX)] = []
    """Absolute paths of files and folders that are looked through for pieces first."""
    overwrite: bool = False
    files: Annotated[list[Text], Meta(max_length=FILE_PATTERNS_MAX)] = []
    """Patterns of the files of a folder to fetch; empty for all."""
    on_complete: Annotated[list[Text], Meta(max_length=HOOK_WORDS_MAX)] = []
    """Words of a command that runs when it is complete; the first one is an absolute path."""


class AwaitDownload(_Command, frozen=True):
    """Wait for the end of a download that was started before; ``path`` as in `Begun`."""

    group: Text
    path: Text
    timeout_s: Seconds | None = None


class ListShares(_Command, frozen=True):
    pass


class ShowDownloads(_Command, frozen=True):
    pass


class StopShare(_Command, frozen=True):
    group: Text
    name: Text


class Withdraw(_Command, frozen=True):
    """Withdraw a share from its group. ``name``: NAME for all versions, or NAME@K."""

    group: Text
    name: Text


class Info(_Command, frozen=True):
    """Show a share and its entries. ``name`` as in `Withdraw`; NAME is its current version.
    ``first``: the number of entries that an earlier answer brought; ``entries``: how many this one
    may bring."""

    group: Text
    name: Text
    first: Annotated[int, Meta(ge=0)] = 0
    entries: Annotated[int, Meta(ge=0)] = 20


class Pause(_Command, frozen=True):
    group: Text
    name: Text


class Resume(_Command, frozen=True):
    group: Text
    name: Text


class Cancel(_Command, frozen=True):
    """Cancel a download and delete its partial data."""

    group: Text
    name: Text


class Clear(_Command, frozen=True):
    """Take all complete downloads off the list; their files stay."""


class Verify(_Command, frozen=True):
    """Read a copy on this device again, and compare each piece with its digest."""

    group: Text
    name: Text


class Move(_Command, frozen=True):
    """Move a copy on this device to ``path``, which is absolute: a folder to put it into, or a new
    path; with ``/`` at its end a folder, which is made if it is missing."""

    group: Text
    name: Text
    path: Text


class WhySlow(_Command, frozen=True):
    """The state of each source of a running download."""

    group: Text
    name: Text


class PieceMap(_Command, frozen=True):
    """The pieces of a running download, for display."""

    group: Text
    name: Text


class Metrics(_Command, frozen=True):
    """Return the metrics as Prometheus reads them."""


class QrCode(_Command, frozen=True):
    """Draw ``text`` as a QR code."""

    text: Annotated[str, Meta(max_length=1024)]


class FreeSpace(_Command, frozen=True):
    """The space that is free at ``path``, which is absolute and need not exist."""

    path: Text


class ReadFile(_Command, frozen=True):
    """Bytes of a share, or of the file ``entry`` of one, which is fetched as far as it is missing.

    ``reader``: a random name of the command line; its pieces are fetched first until it ends, which
    ``size`` 0 says. ``tag``: that of an earlier answer, which another content refuses.
    """

    group: Text
    name: Text
    entry: Annotated[str, Meta(max_length=PATH_BYTES_MAX)]
    reader: Annotated[str, Meta(min_length=1, max_length=64)]
    offset: Annotated[int, Meta(ge=0, lt=CONTENT_BYTES_MAX)]
    size: Annotated[int, Meta(ge=0, lt=CONTENT_BYTES_MAX)]
    tag: Annotated[str, Meta(max_length=64)] = ""


class Watch(_Command, frozen=True):
    """Events of one group, or of all, until the command line hangs up."""

    group: Text | None = None


class Limit(_Command, frozen=True):
    """Change limits of this peer, and return them. Rates in bytes a second, 0 for no limit;
    None leaves one as it is. ``schedule``: a timetable; empty for none."""

    up: int | None = None
    down: int | None = None
    up_per_user: int | None = None
    down_per_user: int | None = None
    schedule: Text | None = None


class WhoHas(_Command, frozen=True):
    """List the devices that hold or fetch a share. ``name`` may be ``NAME@K``."""

    group: Text
    name: Text


class AwaitCopies(_Command, frozen=True):
    """Wait until ``copies`` other devices hold a verified copy; 0: all that follow the group.

    Each device is reported by a `Happened`. At ``timeout_s`` the answer tells which are missing.
    """

    group: Text
    name: Text
    copies: Annotated[int, Meta(ge=0)] = 0
    timeout_s: Seconds | None = None


class Follow(_Command, frozen=True):
    """Fetch every share of ``group`` that matches into the folder ``path``, which is absolute."""

    group: Text
    path: Text
    globs: list[Text] = []
    keep_versions: int = 0


class Unfollow(_Command, frozen=True):
    """End the follow of ``group`` into ``path``, or all of them."""

    group: Text
    path: Text | None = None


class ListFollows(_Command, frozen=True):
    pass


class Doctor(_Command, frozen=True):
    """The checks inside the running peer."""


class Invite(_Command, frozen=True):
    """Make an invitation to ``group``, for ``uses`` users and ``life_s`` seconds."""

    group: Text
    uses: int = 1
    life_s: int = INVITATION_S


class ListInvites(_Command, frozen=True):
    group: Text


class RevokeInvite(_Command, frozen=True):
    group: Text
    id: Text


class Redeem(_Command, frozen=True):
    """Join a group by the link of an invitation.

    ``user`` and ``password``: None on a device that is logged in. ``create``: make the account if
    there is none; otherwise the refusal has the code ``unknown-user``.
    """

    link: Text
    user: Text | None = None
    password: Text | None = None
    create: bool = True


class OpenPage(_Command, frozen=True):
    """Serve the page of this peer on a loopback port."""


class HangUp(_Command, frozen=True):
    """The command line no longer waits for the command with this request id."""

    stop_work: bool = False


Command: TypeAlias = (
    Hello
    | Status
    | Down
    | CreateUser
    | Login
    | Logout
    | ChangePassword
    | ListDevices
    | ForgetDevice
    | CreateGroup
    | JoinGroup
    | LeaveGroup
    | ListGroups
    | ListRequests
    | ListMembers
    | AcceptRequest
    | RejectRequest
    | RemoveMember
    | UploadFile
    | ListFiles
    | DownloadFile
    | AwaitDownload
    | ShowDownloads
    | ListShares
    | StopShare
    | Pause
    | Resume
    | Cancel
    | Clear
    | WhySlow
    | PieceMap
    | QrCode
    | Metrics
    | ReadFile
    | Verify
    | Move
    | Watch
    | Limit
    | Doctor
    | Invite
    | ListInvites
    | RevokeInvite
    | Redeem
    | OpenPage
    | HangUp
    | WhoHas
    | AwaitCopies
    | Follow
    | Unfollow
    | ListFollows
    | Withdraw
    | Info
    | FreeSpace
)


# -- rows ---------------------------------------------------------------------------------------


class GroupRow(_Row, frozen=True):
    group: str
    owner: str
    members: int
    role: str


class UserRow(_Row, frozen=True):
    user: str
    role: str
    since: str
    online: int
    follows: int = 0
    """Number of the user's devices that follow the group."""


class InviteRow(_Row, frozen=True):
    """Invitation in a list. ``by``: its maker; ``used``: how many of its ``uses`` are taken."""

    id: str
    by: str
    created: str
    expires: str
    uses: int
    used: int


class DeviceRow(_Row, frozen=True):
    """Device in a list. ``id``: what `ForgetDevice` takes, as short as it can be; ``device``: the
    whole key, as ``status`` shows it; ``address``: where it serves, while it is online."""

    id: str
    device: str
    bound: str
    seen: str
    online: bool
    address: str | None
    this: bool


class FileRow(_Row, frozen=True):
    name: str
    size_bytes: int
    files: int
    pieces: int
    piece_bytes: int
    algorithm: str
    digest: str
    seeders: int
    leechers: int
    shared_by: list[str]
    away: bool = False
    """Shared from this device too, from a place that cannot be reached now."""
    version: int = 1
    current: bool = True
    """The name alone means this version."""
    folder: bool | None = None
    """Whether it is a folder, not a file; None: the tracker has no record of it."""


class EntryRow(_Row, frozen=True):
    """A file, or an empty folder, of a share. ``kind``: file, executable or folder."""

    path: str
    size_bytes: int
    kind: str


class HeldRow(_Row, frozen=True):
    """A copy of a version on this device. ``state``: shared, checking, away, or that of a
    download."""

    state: str
    path: str
    verified_bytes: int


PAUSED_BY_USER = "paused by the user"
"""The reason of a download that rests until `Resume`."""
NOT_LISTENING = "not listening yet"
"""The text for people in the place of an empty `StatusIs.listen`."""
QUEUED = "queued"
"""The beginning of the reason of a download that waits for its turn; its state is `PAUSED`."""
DOWNLOADING, COMPLETE, PAUSED, FAILED = STATES = ("downloading", "complete", "paused", "failed")
"""The states of a download."""


class SourceEnd(_Row, frozen=True):
    """A source that an unfinished download is connected to."""

    user: str
    endpoint: str


class DownloadRow(_Row, frozen=True):
    """Download in a list. ``state``: one of `STATES`."""

    state: str
    group: str
    name: str
    path: str
    size_bytes: int
    verified_bytes: int
    rate_bytes_per_s: float
    eta_s: float | None
    sources: list[SourceEnd]
    reason: str | None
    version: int = 1
    files: list[str] = []
    """Patterns of the files, if it is only a part of the share."""


class SourceUse(_Row, frozen=True):
    """A source of a finished download, and the number of its pieces."""

    user: str
    endpoint: str
    pieces: int


class SourceRow(_Row, frozen=True):
    """One source of a running download; ``verdict``: its state, in words."""

    user: str
    endpoint: str
    complete: bool
    rate_bytes_per_s: float
    pieces: int
    in_flight: int
    verdict: str
    device: str = ""
    id: str = ""


class SkippedRow(_Row, frozen=True):
    """A file that was not shared with its folder, and why."""

    path: str
    reason: str


class FetchingRow(_Row, frozen=True):
    """A device that fetches from this one now."""

    user: str
    device: str
    rate_bytes_per_s: float
    id: str = ""


class ShareRow(_Row, frozen=True):
    """A share of this device. ``state``: ``shared``; ``checking`` while touched files are read
    again; ``away`` while its place cannot be reached; ``failed``; or ``waiting`` to be opened."""

    group: str
    name: str
    version: int
    path: str
    size_bytes: int | None
    state: str
    reason: str | None
    served_bytes: int
    fetching: list[FetchingRow]
    expires: str | None = None


class LimitsRow(_Row, frozen=True):
    """The limits in force; None: unlimited. ``by_hand``: they hold in place of ``schedule``.
    ``until``: when the timetable changes them."""

    up_bytes_per_s: int | None = None
    down_bytes_per_s: int | None = None
    up_per_user_bytes_per_s: int | None = None
    down_per_user_bytes_per_s: int | None = None
    schedule: str | None = None
    by_hand: bool = False
    until: str | None = None


class HolderRow(_Row, frozen=True):
    """A device that holds, fetches or follows a share: ``holds``, ``fetching``, ``follows`` or
    ``away``. ``device`` is the whole key; all bytes of an away device are verified if it holds a
    copy."""

    user: str
    device: str
    state: str
    verified_bytes: int
    since: str
    size_bytes: int
    id: str
    """The beginning of the key, as ``list-devices`` shows it."""

    @property
    def state_text(self) -> str:
        """The state, with the progress of a device that fetches."""
        if self.state == "fetching":
            return f"{self.state} {percent_text(self.verified_bytes, self.size_bytes)}"
        return self.state


class FollowedShare(_Row, frozen=True):
    """A share with regard to a follow. ``state``: held, elsewhere, dismissed, fetching, queued,
    waiting, failed or left-out. ``path``: where it is or goes; empty if that is not known."""

    name: str
    version: int
    state: str
    path: str
    size_bytes: int
    verified_bytes: int
    reason: str | None


class FollowRow(_Row, frozen=True):
    """Follow in a list. ``state``: following, or waiting for ``reason``. ``matching``, ``held``:
    numbers of shares. ``unsettled``: those that are not simply held in the folder, at most
    `FOLLOWED_SHARES_MAX`."""

    group: str
    path: str
    match: list[str]
    keep_versions: int
    since: str
    state: str
    reason: str | None
    matching: int
    held: int
    fetching: int
    waiting: int
    unsettled: list[FollowedShare] = []


FOLLOWED_SHARES_MAX = 1_000


class CheckRow(_Row, frozen=True):
    """One finding of the doctor: ``ok``, or else ``hint`` says what to do."""

    check: str
    ok: bool
    found: str
    hint: str | None = None


# -- results ------------------------------------------------------------------------------------


Value: TypeAlias = str | int | float | bool | None


class Done(_Result, frozen=True):
    """A command is done. ``text`` is for people; ``changed`` is the document of ``--json``."""

    text: str = ""
    changed: dict[str, Value] = {}


class DoneAll(_Result, frozen=True):
    """Results of a command about any number of things, a document for each."""

    text: str
    changed: list[dict[str, Value]]


class Welcome(_Result, frozen=True):
    """Answer to `Hello`. ``form``: the version of the messages, see `FORM`."""

    release: str
    form: str


class NeedsConsent(_Result, frozen=True):
    """Nothing was done yet: ask ``question``, then repeat the command with ``yes``."""

    question: str


class Begun(_Result, frozen=True):
    """A download to ``path`` was started, without a wait for its end."""

    text: str
    group: str
    path: str
    name: str = ""
    version: int = 1


class StatusIs(_Result, frozen=True):
    """Status of the peer. ``listen``: empty while the peer has no address to listen at.
    ``announced``: what others are told; ``advertise``: what `up` was told of that. ``advice``: why
    others cannot reach it. ``requests``: how many ask to join the user's own groups. ``pending``:
    the groups that the user asked to join, unanswered so far."""

    user: str | None
    connected: bool
    tracker: str
    listen: str
    device: str
    shares: int
    downloads: int = 0
    pid: int = 0
    trouble: str | None = None
    announced: str = ""
    advertise: str = ""
    advice: str | None = None
    away: list[str] = []
    """Shares whose place cannot be reached now, with their groups and why."""
    requests: int = 0
    requests_by_group: dict[str, int] = {}
    pending: list[str] = []
    id: str = ""
    """The device's, as ``list-devices`` shows it; ``device`` is the whole key."""
    version: str = ""
    """The release of the running peer."""
    home: str = ""
    up_bytes_per_s: float = 0.0
    down_bytes_per_s: float = 0.0
    served_bytes: int = 0
    """Bytes of pieces sent since the peer was started."""
    fetching: list[FetchingRow] = []
    """The devices that fetch from this one now."""
    limits: LimitsRow = LimitsRow()
    data_path: str = ""
    """Whether the compiled data path is in use, and why not."""


class PageOpened(_Result, frozen=True):
    """Address of the page, and a secret that it takes once, within `limits.PAGE_SECRET_S`."""

    url: str
    secret: str


class Groups(_Result, frozen=True):
    rows: list[GroupRow]


class Invited(_Result, frozen=True):
    """New invitation. ``link`` contains the secret. ``local``: it works on this machine only."""

    group: str
    id: str
    link: str
    uses: int
    expires: str
    local: bool = False


class Invites(_Result, frozen=True):
    rows: list[InviteRow]


class Redeemed(_Result, frozen=True):
    """Result of a redeemed invitation. ``by``: maker of the invitation; ``created``: the account
    was made."""

    group: str
    user: str
    by: str
    created: bool


class Users(_Result, frozen=True):
    rows: list[UserRow]


class Devices(_Result, frozen=True):
    rows: list[DeviceRow]


class LimitsAre(_Result, frozen=True):
    row: LimitsRow


class Files(_Result, frozen=True):
    rows: list[FileRow]


class ShareInfo(_Result, frozen=True):
    """One version of a name. ``versions``: all that are to be had; ``first_by`` shared this one
    first, at ``since``; ``here``: what this device has of it; ``more``: entries are left."""

    group: str
    name: str
    version: int
    current: bool
    versions: list[int]
    size_bytes: int
    files: int
    pieces: int
    piece_bytes: int
    algorithm: str
    digest: str
    content: str
    seeders: int
    leechers: int
    shared_by: list[str]
    first_by: str | None
    since: str | None
    here: list[HeldRow]
    entries: list[EntryRow]
    more: bool = False


class Downloads(_Result, frozen=True):
    rows: list[DownloadRow]


class ShareRows(_Result, frozen=True):
    rows: list[ShareRow]


class SourceRows(_Result, frozen=True):
    """Sources of a download. ``reason``: why nothing is fetched, if the download rests."""

    rows: list[SourceRow]
    reason: str | None = None


class PieceMapIs(_Result, frozen=True):
    """Cells of adjacent pieces: the parts that are held and in flight (0 to 1), and the number of
    sources of the rarest piece that was looked at."""

    cells: list[tuple[float, float, int]]


class MetricsAre(_Result, frozen=True):
    text: str


class QrCodeIs(_Result, frozen=True):
    """Drawn QR code. ``modules``: one text of ``0`` and ``1`` a row, without a margin."""

    modules: list[str]


class SpaceIs(_Result, frozen=True):
    """Free space at a path. ``folder``: the deepest folder on the way to the path that exists.
    ``free_bytes``: None if its file system does not tell."""

    path: str
    folder: str
    free_bytes: int | None


class FilePart(_Result, frozen=True):
    """Part of a file that is read. ``data``: verified bytes, none at the end; ``size_bytes`` and
    ``tag`` are of the file."""

    data: bytes
    size_bytes: int
    tag: str


class Checks(_Result, frozen=True):
    rows: list[CheckRow]


class Verified(_Result, frozen=True):
    """Result of a check. ``damaged``: the pieces that do not have their digests; ``files``: those
    they belong to, relative to ``path``."""

    group: str
    name: str
    version: int
    path: str
    size_bytes: int
    pieces: int
    damaged: list[int]
    files: list[str]
    elapsed_s: float


class Holders(_Result, frozen=True):
    rows: list[HolderRow]


class Follows(_Result, frozen=True):
    """Follows of this device. ``text`` is for people; empty for a list."""

    rows: list[FollowRow]
    text: str = ""


class Copies(_Result, frozen=True):
    """The end of `AwaitCopies`. ``text`` tells how many there are, and at the timeout what is
    missing."""

    rows: list[HolderRow]
    text: str
    timed_out: bool = False


class Uploaded(_Result, frozen=True):
    """Result of sharing. ``joined``: others offered the same content before. ``again``: this device
    did. ``notes``: what differs from what was asked, a sentence each. ``skipped``: the entries left
    out, but for ``skipped_unnamed`` more, and those that were ``excluded``."""

    row: FileRow
    elapsed_s: float
    joined: bool
    again: bool = False
    notes: list[str] = []
    skipped: list[SkippedRow] = []
    skipped_unnamed: int = 0
    excluded: int = 0
    expires: str | None = None
    """Time at which this share ends."""


class Planned(_Result, frozen=True):
    """Plan of an upload. ``outcome``: new, join, again, replace or refused, with ``reason``.
    ``question``: the hidden and private files, which would have to be confirmed."""

    group: str
    name: str
    size_bytes: int
    files: int
    pieces: int
    piece_bytes: int
    algorithm: str
    outcome: str
    reason: str | None = None
    hint: str | None = None
    question: str | None = None
    skipped: list[SkippedRow] = []
    skipped_unnamed: int = 0
    excluded: int = 0


class Downloaded(_Result, frozen=True):
    """Complete download. ``fetched_bytes`` came from other devices. ``reused_bytes`` did not: they
    were in files of this device, are zeros, or equal other pieces. ``in_place``: the content was
    there before. ``kept``: the path of what is kept of a folder that it replaced."""

    group: str
    name: str
    path: str
    size_bytes: int
    algorithm: str
    digest: str
    elapsed_s: float
    rate_bytes_per_s: float
    fetched_bytes: int
    reused_bytes: int
    sources: list[SourceUse]
    version: int = 1
    in_place: bool = False
    kept: str | None = None
    files: list[str] = []
    """Patterns of the files, if only a part of the share is there."""


class Progress(msgspec.Struct, frozen=True, tag=True):
    """Progress of a long command. ``stage``: digesting, sending the manifest, waiting, downloading,
    checking. ``done`` and ``total`` in bytes; ``rate`` in bytes a second."""

    stage: str
    done: int
    total: int
    rate: float = 0.0
    eta_s: float | None = None
    sources: int = 0
    note: str | None = None
    advice: str | None = None
    """Advice against the obstacle that ``note`` reports."""


class Happened(msgspec.Struct, frozen=True, tag=True):
    """One event of a group, as ``watch`` shows it. ``details`` depend on the event."""

    seq: int
    time: str
    group: str
    event: str
    details: dict[str, str | int | bool]


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Keepalive, sent every few seconds while a command runs. It has no answer."""


class Failed(_Result, frozen=True):
    """The command was refused or failed; ``exit_code`` is that of the command line."""

    code: Code
    message: str
    hint: str | None = None
    exit_code: int = 1


Answer: TypeAlias = (
    Failed
    | Done
    | Welcome
    | NeedsConsent
    | DoneAll
    | Begun
    | PageOpened
    | StatusIs
    | Groups
    | Users
    | Invited
    | Invites
    | Redeemed
    | Devices
    | LimitsAre
    | Files
    | ShareInfo
    | Downloads
    | ShareRows
    | SourceRows
    | PieceMapIs
    | QrCodeIs
    | MetricsAre
    | FilePart
    | Checks
    | Verified
    | Uploaded
    | Planned
    | Downloaded
    | Progress
    | Happened
    | Alive
    | Holders
    | Copies
    | Follows
    | SpaceIs
)


def _form() -> str:
    return form_of((*get_args(Command), *get_args(Answer), *_Row.__subclasses__()))


FORM = _form()
"""The version of these messages: it changes with every change of a message or row."""
