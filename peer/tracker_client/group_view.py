"""Replica of one group at a peer: devices, revocations, epoch keys, place in the log.

Owns: the values, their bounds, and the effect of each log entry. Pure: it returns what to ask the
tracker for (`Effect`). Not here: the requests (see ``peer.tracker_client.group_replica``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from common import limits
from common.ids import DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.names import fold_id

REVOKED_MAX = 2 * limits.MEMBERS_PER_GROUP_MAX  # of a group: the most that leave in a ticket's life
KEYS_KEPT = 4  # epochs whose key still opens what was published before the bump


class Effect(Enum):
    """Step that follows a change of a view."""

    DELIVER = "deliver"
    """Report the entry: it was applied."""
    ASK_STATE = "ask state"
    """Request the state of the groups: keys or revocations are missing."""
    ASK_EVENTS = "ask events"
    """Request the entries after `GroupView.seq`: some are missing."""
    ASK_DEVICES = "ask devices"
    """Request the list of devices: a member is new."""


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
    """``devices`` is as of this entry at least: a list from before it is stale."""
    revoked: dict[UserId, int] = field(default_factory=dict)
    """Users whose tickets below an epoch count no longer, while such a ticket may live."""

    @classmethod
    def begun(cls, group: GroupId, state: tracker.GroupState) -> GroupView:
        """Return the view of a group that begins with ``state``."""
        owner = UserId(fold_id(state.owner))
        view = cls(group, owner, state.epoch, state.topic, state.seq)
        view.take(state)
        return view

    # -- the log --------------------------------------------------------------------------------

    def apply(self, entry: events.LogEntry) -> list[Effect]:
        """Apply the next entry of the log.

        Invariant: each entry is applied once and in order. An entry from before ``seq`` has no
        effect, and one behind a gap only asks for the missing ones.
        """
        if entry.seq <= self.seq:
            return []
        if entry.seq > self.seq + 1:
            return [Effect.ASK_EVENTS]
        self.seq = entry.seq
        effects = self._apply(entry)
        if entry.epoch > self.epoch:
            self.epoch = entry.epoch
            if entry.epoch not in self.keys:
                effects.append(Effect.ASK_STATE)
        return [*effects, Effect.DELIVER]

    def _apply(self, entry: events.LogEntry) -> list[Effect]:
        match entry.event:
            case events.Left(user, epoch) | events.Removed(user, epoch):
                gone = UserId(fold_id(user))
                self.revoke(gone, epoch)
                if entry.seq > self.devices_seq:
                    self.devices = {key: who for key, who in self.devices.items() if who != gone}
                    self.devices_seq = entry.seq
                self.epoch = max(self.epoch, epoch)
                return [Effect.ASK_STATE]
            case events.Joined():
                self.devices_seq = max(self.devices_seq, entry.seq)
                return [Effect.ASK_DEVICES]
            case events.Owner(user):
                self.owner = UserId(fold_id(user))
            case events.Device(user, device, bound) if entry.seq > self.devices_seq:
                self.devices_seq = entry.seq
                if bound and len(self.devices) < limits.DEVICES_PER_GROUP_MAX:
                    self.devices[DeviceKey(device)] = UserId(fold_id(user))
                elif not bound:
                    self.devices.pop(DeviceKey(device), None)
            case _:
                pass
        return []

    def check_head(self, seq: int, epoch: int) -> list[Effect]:
        """Compare the view with the head of the log, and return what to ask for."""
        effects = []
        if seq > self.seq:
            effects.append(Effect.ASK_EVENTS)
        if epoch > self.epoch and epoch not in self.keys:
            effects.append(Effect.ASK_STATE)
        return effects

    def begin_at(self, entry: events.LogEntry) -> None:
        """Begin with ``entry``, the first one that the tracker may tell us.

        Entries from before we joined are not for us to read.
        """
        self.seq = max(self.seq, entry.seq - 1)

    # -- the state ------------------------------------------------------------------------------

    def take(self, state: tracker.GroupState) -> None:
        """Apply epoch, key and revocations of the tracker's state."""
        self.learn_key(state.epoch, state.key)
        for user, epoch in state.revoked[-REVOKED_MAX:]:
            who = UserId(fold_id(user))
            self.revoke(who, max(epoch, self.revoked.get(who, 0)))

    def take_devices(self, seq: int, devices: dict[DeviceKey, UserId]) -> list[Effect] | None:
        """Replace the devices by a list as of entry ``seq``; None if that list is stale.

        Invariant: a stale list is never taken, or a device that was logged out would come back.
        """
        if self.devices_seq > seq:
            return None
        self.devices, self.devices_seq = devices, seq
        # Devices bound while the pages were fetched are in entries that are applied again.
        return [Effect.ASK_EVENTS] if seq > self.seq else []

    def revoke(self, user: UserId, epoch: int) -> None:
        """Revoke tickets of ``user`` below ``epoch``. Of too many revocations the oldest go."""
        self.revoked.pop(user, None)
        self.revoked[user] = epoch
        if len(self.revoked) > REVOKED_MAX:
            del self.revoked[next(iter(self.revoked))]

    def learn_key(self, epoch: int, key: bytes) -> None:
        """Store the event key of an epoch; those of the latest few are kept."""
        self.epoch = max(self.epoch, epoch)
        self.keys[epoch] = key
        for old in sorted(self.keys)[:-KEYS_KEPT]:
            del self.keys[old]


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries ``first`` to ``last`` of a group's log that were never received.

    The tracker no longer keeps them. ``gone``: users who lost a device meanwhile.
    """

    group: GroupId
    first: int
    last: int
    gone: frozenset[UserId]
