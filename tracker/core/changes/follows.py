"""Changes of follows: a device keeps up with what a group shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.ids import DeviceKey, GroupId, UserId
from tracker.core.changes.base import Change, change
from tracker.core.records import FollowRecord

if TYPE_CHECKING:
    from tracker.core.state import State


@change(35)
class FollowSet(Change):
    """Follow of a group by ``device``; unbinding, `MemberGone` and `GroupDissolved` end it too."""

    group: GroupId
    user: UserId
    device: DeviceKey
    globs: tuple[str, ...]
    at_ms: int

    def apply(self, state: State) -> None:
        follows = state.groups[self.group].follows
        state.undo.item(follows, self.device)
        follows[self.device] = FollowRecord(self.user, self.globs, self.at_ms)


@change(36)
class FollowEnded(Change):
    group: GroupId
    device: DeviceKey

    def apply(self, state: State) -> None:
        follows = state.groups[self.group].follows
        state.undo.removal(follows, self.device)
        del follows[self.device]
