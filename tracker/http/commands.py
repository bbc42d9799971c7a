"""Commands of the HTTP API: those of the operator's socket, and some that are composed of them.

Owns: the arguments of a request as typed values, and the answers that no message has.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from common.messages import operator

Text = Annotated[str, Meta(max_length=4096)]
Limit = Annotated[int, Meta(ge=1, le=100_000)]


class Health(StrEnum):
    """Health of a share: many devices online hold it whole, one does, or none."""

    HEALTHY = "healthy"
    SINGLE = "single_seeder"
    UNSEEDED = "unseeded"


class _Command(msgspec.Struct, frozen=True, tag=True):
    """Base of the commands."""


class GetStatus(_Command, frozen=True):
    """State of the tracker."""


class ListUsers(_Command, frozen=True):
    """List users. ``text``: part of a name. ``online``: only users with a device online."""

    text: Text = ""
    online: bool = False
    limit: Limit = 100_000


class ResetPassword(_Command, frozen=True):
    """Set a new password. ``password``: empty for a random one."""

    user: Text
    password: Text = ""


class ListGroups(_Command, frozen=True):
    text: Text = ""
    limit: Limit = 100_000


class ListDevices(_Command, frozen=True):
    """List devices. ``text``: part of a user, key or address."""

    text: Text = ""
    online: bool = False
    limit: Limit = 100_000


class ListSwarms(_Command, frozen=True):
    """List swarms. ``text``: part of a group or name. ``group``: one group, exactly."""

    text: Text = ""
    group: Text = ""
    health: Health | None = None
    limit: Limit = 100


class GetHistory(_Command, frozen=True):
    """Get the recorded load. ``after``: number of the last point that is known."""

    after: Annotated[int, Meta(ge=0)] = 0


class Backup(_Command, frozen=True):
    """Write a backup. ``file``: an absolute path on the tracker's machine."""

    file: Text
    replace: bool = False


class Doctor(_Command, frozen=True):
    """Checks of the tracker's home, database, disk and libraries."""


Composed: TypeAlias = (
    GetStatus
    | ListUsers
    | ResetPassword
    | ListGroups
    | ListDevices
    | ListSwarms
    | GetHistory
    | Backup
    | Doctor
)
Command: TypeAlias = (
    Composed
    | operator.Stop
    | operator.SetDisabled
    | operator.DeleteUser
    | operator.DeleteGroup
    | operator.SetRegistration
    | operator.ListMembers
    | operator.GetLoad
    | operator.ListLog
)


# -- answers ------------------------------------------------------------------------------------


class HealthRow(msgspec.Struct, frozen=True):
    """A share and its health; the rest as in `operator.SwarmRow`."""

    group: str
    name: str
    version: int
    since: str
    health: Health
    size_bytes: int
    pieces: int
    holders: int
    seeders: int
    leechers: int
    fetching: list[operator.FetchRow]


class SwarmsAre(msgspec.Struct, frozen=True):
    """Page of swarms. ``wanted``: unseeded shares that devices fetch. ``matching``: rows before
    ``limit``.

    ``complete``: False if there are more shares of a health than are kept, those without fetching
    devices being left out.
    """

    shares: int
    healthy: int
    single_seeder: int
    unseeded: int
    wanted: int
    matching: int
    complete: bool
    time: str
    rows: list[HealthRow]


class CheckRow(msgspec.Struct, frozen=True):
    check: str
    health: str
    found: str
    hint: str | None
