"""Changes of groups: their members, join requests, keys, revocations and logs."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from common.ids import GroupId, UserId
from common.messages.events import LogEntry
from tracker.core.changes.base import Change, change
from tracker.core.records import Group, GroupTombstone, Member, Revocation
from tracker.core.sorted_lists import remove_sorted

if TYPE_CHECKING:
    from tracker.core.state import State


@change(9)
class GroupCreated(Change):
    """A new group without members. ``seq`` and ``epoch`` continue those of a tombstone, if any."""

    group: GroupId
    owner: UserId
    topic: bytes
    key: bytes = field(repr=False)
    seq: int
    epoch: int
    at_ms: int

    def apply(self, state: State) -> None:
        state.undo.removal(state.tombstones, self.group)
        former = state.tombstones.pop(self.group, None)
        state.add_group(
            Group(
                self.group,
                self.owner,
                self.topic,
                self.key,
                self.seq,
                self.epoch,
                self.at_ms,
                revoked=former.revoked if former else {},
            )
        )


@change(10)
class GroupDissolved(Change):
    """Members, requests, invitations, shares, offers and log of the group are deleted.

    ``user``: the last member, or one of those who were left when the operator deleted it. Tickets
    of all these below ``epoch`` are invalid if the name is used for a new group.
    """

    group: GroupId
    user: UserId
    epoch: int
    at_ms: int

    def apply(self, state: State) -> None:
        undo, group = state.undo, state.groups[self.group]
        undo.removal(state.groups, group.id)
        del state.groups[group.id]
        undo.subtraction(state.group_ids, group.id)
        remove_sorted(state.group_ids, group.id)
        for user in group.members:
            state.drop_of(state.groups_of, user, group.id)
        for user in group.requests:
            state.drop_of(state.requests_of, user, group.id)
        state.forget_rows(group.id)
        state.drop_invitations(group)
        state.drop_shares(group, self.at_ms)
        for user in group.members:
            undo.item(group.revoked, user)
            group.revoked[user] = Revocation(self.epoch, self.at_ms)
        undo.item(state.tombstones, group.id)
        state.tombstones[group.id] = GroupTombstone(
            group.seq, self.epoch, group.revoked, self.at_ms
        )


@change(11)
class TombstoneExpired(Change):
    """The tombstone of the former group of this name is deleted."""

    group: GroupId

    def apply(self, state: State) -> None:
        state.undo.removal(state.tombstones, self.group)
        del state.tombstones[self.group]


@change(12)
class OwnerChanged(Change):
    """Another member owns the group; the invitations of the owner before end."""

    group: GroupId
    user: UserId

    def apply(self, state: State) -> None:
        group = state.groups[self.group]
        state.undo.field(group, "owner")
        group.owner = self.user
        state.drop_invitations(group)


@change(13)
class MemberJoined(Change):
    """New member, who may read the log from ``seq`` on, the entry of this event."""

    group: GroupId
    user: UserId
    seq: int
    at_ms: int

    def apply(self, state: State) -> None:
        members = state.groups[self.group].members
        state.undo.item(members, self.user)
        members[self.user] = Member(self.at_ms, self.seq)
        state.add_of(state.groups_of, self.user, self.group)
        state.forget_rows(self.group)


@change(14)
class MemberGone(Change):
    """End of the membership of ``user``; the group continues in ``epoch`` with a new event key."""

    group: GroupId
    user: UserId
    epoch: int
    key: bytes = field(repr=False)
    at_ms: int

    def apply(self, state: State) -> None:
        undo, group = state.undo, state.groups[self.group]
        undo.removal(group.members, self.user)
        del group.members[self.user]
        state.drop_of(state.groups_of, self.user, group.id)
        state.drop_follows([group], state.devices_of.get(self.user, ()))
        undo.item(group.revoked, self.user)
        group.revoked[self.user] = Revocation(self.epoch, self.at_ms)
        group.rekey(self.epoch, self.key, undo)
        state.forget_rows(group.id)


@change(15)
class RekeyPending(Change):
    """A device that was unbound knows the group's event key; rate limits delay the next key."""

    group: GroupId

    def apply(self, state: State) -> None:
        state.undo.field(state.groups[self.group], "rekey_pending")
        state.groups[self.group].rekey_pending = True


@change(16)
class GroupRekeyed(Change):
    """The group continues in ``epoch`` with a fresh event key; its members are the same."""

    group: GroupId
    epoch: int
    key: bytes = field(repr=False)
    at_ms: int

    def apply(self, state: State) -> None:
        group = state.groups[self.group]
        group.rekey(self.epoch, self.key, state.undo)
        state.undo.field(group, "rekeyed_ms")
        group.rekeyed_ms = group.rekeyed_ms.copy()
        group.rekeyed_ms.append(self.at_ms)


@change(17)
class GroupKeyHanded(Change):
    """The group continues in ``epoch`` with a fresh event key that all members may have.

    It is published on ``topic``, sealed with ``old_key`` of the epoch before. A pending rekey
    (`RekeyPending`) stays pending: the device that caused it could open this one.
    """

    group: GroupId
    epoch: int
    key: bytes = field(repr=False)
    topic: bytes
    old_key: bytes = field(repr=False)

    def apply(self, state: State) -> None:
        group = state.groups[self.group]
        state.undo.field(group, "epoch", "key")
        group.epoch, group.key = self.epoch, self.key


@change(18)
class RevocationForgotten(Change):
    """All tickets that the revocation concerns have expired."""

    group: GroupId
    user: UserId

    def apply(self, state: State) -> None:
        owner = state.groups.get(self.group) or state.tombstones[self.group]
        state.undo.removal(owner.revoked, self.user)
        owner.revoked.pop(self.user, None)


@change(19)
class RequestMade(Change):
    group: GroupId
    user: UserId
    at_ms: int

    def apply(self, state: State) -> None:
        group, at_s = state.groups[self.group], self.at_ms / 1000
        state.undo.item(group.requests, self.user)
        group.requests[self.user] = self.at_ms
        if group.request_buckets.take(self.user, at_s):
            state.undo.step(group.request_buckets.give_back, self.user, at_s)
        state.add_of(state.requests_of, self.user, group.id)


@change(20)
class RequestDropped(Change):
    group: GroupId
    user: UserId

    def apply(self, state: State) -> None:
        requests = state.groups[self.group].requests
        state.undo.removal(requests, self.user)
        del requests[self.user]
        state.drop_of(state.requests_of, self.user, self.group)


@change(37)
class Logged(Change):
    """An entry of a group's log, published on ``topic``, sealed with ``key`` of ``key_epoch``.

    An entry that begins a new epoch is sealed with the key of the epoch before.
    """

    entry: LogEntry
    topic: bytes
    key: bytes = field(repr=False)
    key_epoch: int

    @property
    def group(self) -> GroupId:
        return GroupId(self.entry.group)

    def apply(self, state: State) -> None:
        state.groups[self.group].count_entry(self.entry.seq, state.undo)


@change(38)
class LogTrimmed(Change):
    """The ``count`` oldest entries of a group's log are deleted: it was too long."""

    group: GroupId
    count: int

    def apply(self, state: State) -> None:
        state.undo.field(state.groups[self.group], "entries")
        state.groups[self.group].entries -= self.count
