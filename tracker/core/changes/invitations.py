"""Changes of invitations. ``key`` is the hash of an invitation's secret."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from common.ids import GroupId, UserId
from tracker.core.changes.base import Change, change
from tracker.core.records import Invitation

if TYPE_CHECKING:
    from tracker.core.state import State


@change(21)
class InvitationMade(Change):
    """New invitation for ``uses`` users until ``expires_ms``."""

    group: GroupId
    key: bytes
    user: UserId
    at_ms: int
    expires_ms: int
    uses: int

    def apply(self, state: State) -> None:
        made = Invitation(self.user, self.at_ms, self.expires_ms, self.uses)
        state.add_invitation(self.group, self.key, made)


@change(22)
class InvitationUsed(Change):
    """One more user has become a member by it."""

    group: GroupId
    key: bytes

    def apply(self, state: State) -> None:
        invitations = state.groups[self.group].invitations
        known = invitations[self.key]
        state.undo.item(invitations, self.key)
        invitations[self.key] = replace(known, used=known.used + 1)


@change(23)
class InvitationDropped(Change):
    """The invitation is revoked, or was used up and makes place for another one."""

    group: GroupId
    key: bytes

    def apply(self, state: State) -> None:
        state.drop_invitation(self.group, self.key)


@change(24)
class InvitationsExpired(Change):
    """Invitations that ended at ``before_ms`` or earlier are deleted."""

    before_ms: int

    def apply(self, state: State) -> None:
        for key, group in list(state.invited_by.items()):
            if state.groups[group].invitations[key].expires_ms <= self.before_ms:
                state.drop_invitation(group, key)
