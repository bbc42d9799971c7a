"""Replica of one group at a peer: devices, revocations, epoch keys, place in the log.

Owns: the values and their bounds. Not here: how they are kept current (see
``peer.tracker_client.group_replica``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from common import limits
from common.ids import DeviceKey, GroupId, UserId
from common.messages import tracker
from common.names import fold_id

REVOKED_MAX = 2 * limits.MEMBERS_PER_GROUP_MAX  # of a group: the most that leave in a ticket's life
KEYS_KEPT = 4  # epochs whose key still opens what was published before the bump


@dataclass(slots=True)
class GroupView:
    """One group, as of ``seq`` in its log."""

    group: GroupId
    owner: UserId
    epoch: int
    topic: bytes
    seq: int
    keys: dict[int, bytes] = field(default_factory=dict)
    devices: dict[DeviceKey, UserId] = field(default_factory=dict)
    devices_seq: int = 0
    """``devices`` is as of this entry at least: a list from before it is too old to be taken."""
    revoked: dict[UserId, int] = field(default_factory=dict)
    """Users whose tickets below an epoch count no more, for as long as such a ticket may live."""

    def revoke(self, user: UserId, epoch: int) -> None:
        """Revoke tickets of ``user`` below ``epoch``. Of too many revocations the oldest go."""
        self.revoked.pop(user, None)
        self.revoked[user] = epoch
        if len(self.revoked) > REVOKED_MAX:
            del self.revoked[next(iter(self.revoked))]

    def learn_key(self, epoch: int, key: bytes) -> None:
        """The event key of an epoch; those of the latest few are kept."""
        self.epoch = max(self.epoch, epoch)
        self.keys[epoch] = key
        for old in sorted(self.keys)[:-KEYS_KEPT]:
            del self.keys[old]

    def take(self, state: tracker.GroupState) -> None:
        """Apply epoch, key and revocations of the tracker's state."""
        self.learn_key(state.epoch, state.key)
        for user, epoch in state.revoked[-REVOKED_MAX:]:
            who = UserId(fold_id(user))
            self.revoke(who, max(epoch, self.revoked.get(who, 0)))


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries ``first`` to ``last`` of a group's log, which the tracker no longer keeps and which
    were never received. ``gone``: users who lost a device meanwhile."""

    group: GroupId
    first: int
    last: int
    gone: frozenset[UserId]
