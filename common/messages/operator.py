"""Messages between `mini-torrent-tracker` and the running tracker of the same home.

They travel over a private ipc socket in the home. Rows are named structs that ``--json`` prints, so
their field names are part of the contract of the command line.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias, get_args
from zlib import crc32

import msgspec
from msgspec import Meta

from common import limits
from common.messages.refusals import Code

Text = Annotated[str, Meta(max_length=4096)]
Key = Annotated[str, Meta(max_length=limits.USER_ID_MAX)]


class Registration(StrEnum):
    """Rule for new accounts: for all, for holders of an invitation, or none."""

    OPEN = "open"
    INVITE = "invite"
    CLOSED = "closed"


class _Ask(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of the commands."""


class _Row(msgspec.Struct, frozen=True, omit_defaults=False):
    """Base of the rows, in the shape that ``--json`` prints."""


class _Result(msgspec.Struct, frozen=True, tag=True):
    """Base of the results."""


# -- commands -----------------------------------------------------------------------------------


class Status(_Ask, frozen=True):
    """``form``: `FORM` of the command line; another one is refused."""

    form: Text = ""


class Stop(_Ask, frozen=True):
    """End the tracker in order."""


class ListUsers(_Ask, frozen=True):
    """``after``: the last user of the page before."""

    after: Key = ""


class SetDisabled(_Ask, frozen=True):
    user: Text
    disabled: bool


class DeleteUser(_Ask, frozen=True):
    user: Text


class ResetPassword(_Ask, frozen=True):
    """Give ``user`` the password and log out all devices."""

    user: Text
    password: Text


class ListGroups(_Ask, frozen=True):
    after: Key = ""


class DeleteGroup(_Ask, frozen=True):
    group: Text


class SetRegistration(_Ask, frozen=True):
    """``mode``: None only asks which one it is."""

    mode: Registration | None = None


class Metrics(_Ask, frozen=True):
    """Return the metrics as Prometheus reads them."""


Ask: TypeAlias = (
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
)


# -- results ------------------------------------------------------------------------------------


class UserRow(_Row, frozen=True):
    """``devices``: those that are logged in; ``online``: of these. ``owns``: groups."""

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
    """``size_bytes``: of all shares. ``invitations``: open ones. ``log_head``: its last entry."""

    group: str
    owner: str
    created: str
    members: int
    requests: int
    invitations: int
    shares: int
    size_bytes: int
    log_head: int


class StatusIs(_Result, frozen=True):
    """``log_head``: entries in the logs of all groups since they began."""

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


class Users(_Result, frozen=True):
    rows: list[UserRow]
    more: bool = False


class Groups(_Result, frozen=True):
    rows: list[GroupRow]
    more: bool = False


class RegistrationIs(_Result, frozen=True):
    """``changed``: the command has changed it."""

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


class Failed(_Result, frozen=True):
    """The command was refused or failed."""

    code: Code
    message: str
    hint: str | None = None


Answer: TypeAlias = Failed | StatusIs | Users | Groups | RegistrationIs | Changed | MetricsAre


def _form() -> str:
    """A checksum of all messages and rows: their names, and the names and types of the fields."""
    kinds = (*get_args(Ask), *get_args(Answer), *_Row.__subclasses__())
    rows = [f"{kind.__name__}{kind.__struct_fields__}{kind.__annotations__}" for kind in kinds]
    text = "\n".join(rows).encode()
    return f"{crc32(text):08x}{len(text):08x}"


FORM = _form()
"""The version of these messages: it changes with every change of a message or row."""
