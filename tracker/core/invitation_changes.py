"""Durable changes of invitations, as values.

Owns: these types. Not here: the other changes (see tracker.core.changes). Times are milliseconds
since 1970; ``key`` is the hash of an invitation's secret.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from common.ids import GroupId, UserId


@dataclass(frozen=True, slots=True)
class InvitationMade:
    """``key``: the hash of its secret. It serves ``uses`` users until ``expires_ms``."""

    group: GroupId
    key: bytes
    user: UserId
    at_ms: int
    expires_ms: int
    uses: int


@dataclass(frozen=True, slots=True)
class InvitationUsed:
    """One more user has become a member by it."""

    group: GroupId
    key: bytes


@dataclass(frozen=True, slots=True)
class InvitationDropped:
    """The invitation is revoked, or was used up and makes place for another one."""

    group: GroupId
    key: bytes


@dataclass(frozen=True, slots=True)
class InvitationsExpired:
    """Invitations that ended at ``before_ms`` or earlier are deleted."""

    before_ms: int


InvitationChange: TypeAlias = (
    InvitationMade | InvitationUsed | InvitationDropped | InvitationsExpired
)
