"""Messages between `mini-torrent-tracker` and the running tracker of the same home.

They travel over a private ipc socket in the home. Rows are named structs that ``--json`` prints, so
their field names are part of the contract of the command line.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias, get_args

import msgspec
from msgspec import Meta

from common import limits
from common.messages.form import form_of
from common.messages.refusals import Code

Text = Annotated[str, Meta(max_length=4096)]
Key = Annotated[str, Meta(max_length=limits.USER_ID_MAX)]
ROWS_MAX = 500  # in one answer
Rows = Annotated[int, Meta(ge=1, le=ROWS_MAX)]


class Registration(StrEnum):
    """Rule for new accounts: for all, for holders of an invitation, or none."""

    OPEN = "open"
    INVITE = "invite"
    CLOSED = "closed"


class _Command(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of the commands."""


class _Row(msgspec.Struct, frozen=True, omit_defaults=False):
    """Base of the rows, in the shape that ``--json`` prints."""


class _Result(msgspec.Struct, frozen=True, tag=True):
    """Base of the results."""


# -- commands -----------------------------------------------------------------------------------


class Status(_Command, frozen=True):
    """Ask for the state of the tracker. ``form``: `FORM` of the command line; another one is
    refused."""

    form: Text = ""


class Stop(_Command, frozen=True):
    """End the tracker in order."""


class ListUsers(_Command, frozen=True):
    """List users. ``after``: the last user of the page before. ``text``: part of a name.
    ``online``: only users with a device online. ``rows``: at most that many."""

    after: Key = ""
    text: Text = ""
    online: bool = False
    rows: Rows = ROWS_MAX


class SetDisabled(_Command, frozen=True):
    user: Text
    disabled: bool


class DeleteUser(_Command, frozen=True):
    user: Text


class ResetPassword(_Command, frozen=True):
    """Give ``user`` the password and log out all devices."""

    user: Text
    password: Text


class ListGroups(_Command, frozen=True):
    """List groups. The fields as in `ListUsers`."""

    after: Key = ""
    text: Text = ""
    rows: Rows = ROWS_MAX


class DeleteGroup(_Command, frozen=True):
    group: Text


class SetRegistration(_Command, frozen=True):
    """Change the mode of registration. ``mode``: None asks for the present one."""

    mode: Registration | None = None


class Metrics(_Command, frozen=True):
    """Return the metrics as Prometheus reads them."""


class OpenPage(_Command, frozen=True):
    """Open the tracker's page for one browser tab."""


class ListDevices(_Command, frozen=True):
    """List devices. ``after``: key of the last device of the page before, in hexadecimal.
    ``text``: part of a user, key or address."""

    after: Annotated[str, Meta(max_length=64, pattern="^([0-9a-f]{64})?$")] = ""
    text: Text = ""
    online: bool = False


class ListMembers(_Command, frozen=True):
    """List the members of ``group``, and the users who ask to join it."""

    group: Text


class ListSwarms(_Command, frozen=True):
    """List the shares of all groups; the rest as in `SwarmCursor`, the last one looked at."""

    group: Text = ""
    name: Text = ""
    version: Annotated[int, Meta(ge=0, le=limits.COUNT_MAX)] = 0


class GetLoad(_Command, frozen=True):
    """Return the counts of the tracker's work since it started."""


class GetHistory(_Command, frozen=True):
    """Return the load of the last hour."""


class ListLog(_Command, frozen=True):
    """List the latest lines of the log; ``after``: number of the last one that is known."""

    after: Annotated[int, Meta(ge=0, le=limits.COUNT_MAX)] = 0


Command: TypeAlias = (
    Status
    | Stop
    | ListUsers
    | SetDisabled
    | DeleteUser
    | ResetPassword
    | ListGroups
    | DeleteGroup
    | SetRegistration
    | Metrics
    | OpenPage
    | ListDevices
    | ListMembers
    | ListSwarms
    | GetLoad
    | GetHistory
    | ListLog
)


# -- results ------------------------------------------------------------------------------------


class UserRow(_Row, frozen=True):
    """User in a list. ``devices``: those that are logged in; ``online``: of these. ``owns``:
    groups."""

    user: str
    disabled: bool
    created: str
    seen: str | None
    devices: int
    online: int
    groups: int
    owns: int
    shares: int


class GroupRow(_Row, frozen=True):
    """Group in a list. ``size_bytes``: of all shares. ``invitations``: open ones. ``log_head``: its
    last entry."""

    group: str
    owner: str
    created: str
    members: int
    requests: int
    invitations: int
    shares: int
    size_bytes: int
    log_head: int


class DeviceRow(_Row, frozen=True):
    """A device that is logged in. ``key``: hexadecimal; ``seen``: None while it is online.

    ``fetching``, ``holding``: its contents; both rates as the device announced them, 0 if that was
    at another tracker.
    """

    key: str
    user: str
    disabled: bool
    online: bool
    address: str | None
    since: str
    seen: str | None
    fetching: int
    holding: int
    received_bytes_per_s: int
    sent_bytes_per_s: int


class MemberRow(_Row, frozen=True):
    """Member of a group. ``role``: owner, member, or pending. ``online``, ``follows``: how many of
    ``devices`` do."""

    user: str
    role: str
    since: str
    devices: int
    online: int
    follows: int


class FetchRow(_Row, frozen=True):
    """A device that fetches: ``pieces`` are those that it holds."""

    user: str
    key: str
    pieces: int


class SwarmRow(_Row, frozen=True):
    """A version of a share. ``holders``: devices that offer it, also those that are away.

    ``fetching``: the first ones of ``leechers``.
    """

    group: str
    name: str
    version: int
    since: str
    size_bytes: int
    pieces: int
    holders: int
    seeders: int
    leechers: int
    fetching: list[FetchRow]


class SwarmCursor(_Row, frozen=True):
    """Place in the list of all shares: the one that was looked at last."""

    group: str
    name: str
    version: int


class LogRow(_Row, frozen=True):
    """A line of the log. ``number`` grows by one; ``text`` is printable."""

    number: int
    time: str
    level: str
    source: str
    text: str


class StatusIs(_Result, frozen=True):
    """State of the tracker. ``log_head``: entries in the logs of all groups since they began.

    ``trackers``: that share the database; the counts are of all of them.
    """

    running: bool
    link: str
    pid: int
    version: str
    home: str
    uptime_s: float
    users: int
    users_online: int
    devices: int
    devices_online: int
    groups: int
    shares: int
    log_head: int
    database_bytes: int
    registration: Registration
    trackers: int = 1


class Users(_Result, frozen=True):
    rows: list[UserRow]
    more: bool = False


class Groups(_Result, frozen=True):
    rows: list[GroupRow]
    more: bool = False


class RegistrationIs(_Result, frozen=True):
    """Mode of registration. ``changed``: the command has changed it."""

    registration: Registration
    changed: bool = False


class Changed(_Result, frozen=True):
    """A user or a group was changed: ``text`` for people, ``name`` as it is stored."""

    text: str
    name: str
    devices: int = 0
    groups: int = 0


class MetricsAre(_Result, frozen=True):
    text: str


class PageOpened(_Result, frozen=True):
    """The page is served at ``url``; ``secret`` is valid once, for `limits.PAGE_SECRET_S`."""

    url: str
    secret: str


class Devices(_Result, frozen=True):
    rows: list[DeviceRow]
    more: bool = False


class Members(_Result, frozen=True):
    rows: list[MemberRow]


class Swarms(_Result, frozen=True):
    """Page of swarms. ``next``: where to go on; None at the end."""

    rows: list[SwarmRow]
    next: SwarmCursor | None = None


class LoadIs(_Result, frozen=True):
    """Counts since the start, at ``uptime_s``.

    ``commands``: by outcome. ``durations``: commands without logins that took up to each of
    ``bounds_s``, and at last all. ``refusals``: by reason, also of messages and connections.
    Both rates: sums of all devices, as they announced them. Several trackers: ``devices_online``
    and both rates are of all of them, the rest is of this one.
    """

    uptime_s: float
    commands: dict[str, int]
    logins: dict[str, int]
    bounds_s: list[float]
    durations: list[int]
    commits: int
    commits_s: float
    commit_changes: int
    queue: int
    writable: bool
    loop_lag_s: float
    database_bytes: int
    backup: str | None
    events: int
    tickets: int
    refusals: dict[str, int]
    devices_online: int
    received_bytes_per_s: int
    sent_bytes_per_s: int


class Point(_Row, frozen=True):
    """Load at a time. Rates are of the seconds before it; None if there was nothing to measure."""

    number: int
    time_ms: int
    commands_per_s: float
    refused_per_s: float
    p99_s: float | None
    commit_s: float | None
    queue: int
    loop_lag_s: float
    database_bytes: int
    devices_online: int
    received_bytes_per_s: int
    sent_bytes_per_s: int


class HistoryIs(_Result, frozen=True):
    """Recorded load of the tracker. ``every_s``: time between two points; ``run``: differs after a
    restart of the tracker."""

    run: str
    every_s: float
    points: list[Point]


class Log(_Result, frozen=True):
    rows: list[LogRow]


class Failed(_Result, frozen=True):
    """The command was refused or failed."""

    code: Code
    message: str
    hint: str | None = None


Answer: TypeAlias = (
    Failed
    | StatusIs
    | Users
    | Groups
    | RegistrationIs
    | Changed
    | MetricsAre
    | PageOpened
    | Devices
    | Members
    | Swarms
    | LoadIs
    | HistoryIs
    | Log
)


FORM = form_of((*get_args(Command), *get_args(Answer), *_Row.__subclasses__()))
"""The version of these messages: it changes with every change of a message or row."""
