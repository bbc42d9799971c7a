"""Mirror of the durable state in memory; every query is answered from it.

Owns: the indexes, and the steps that several changes share. Not here: the changes themselves (see
tracker.core.changes), the record types (see tracker.core.records) and decisions. All dictionaries
keep the order in which things happened. Invariant: ``undo`` gets to know what is replaced first.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from typing import TypeVar

from common import limits
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.operator import Registration
from common.messages.tracker import DeviceRow
from tracker.core.budgets import Budgets
from tracker.core.records import Account, Binding, Group, GroupTombstone, Invitation
from tracker.core.shares_state import SharesState

K = TypeVar("K")


class State(SharesState):
    """All durable state except the manifests' bytes and the log's entries."""

    def __init__(self) -> None:
        super().__init__()
        self.position = 0  # of the last commit, in a database of several trackers
        self.accounts: dict[UserId, Account] = {}
        self.registration = Registration.OPEN
        self.devices: dict[DeviceKey, UserId] = {}
        self.bindings: dict[DeviceKey, Binding] = {}  # of the same devices
        self.devices_of: dict[UserId, tuple[DeviceKey, ...]] = {}
        self.group_ids: list[GroupId] = []  # sorted: a page costs no pass over all groups
        self.tombstones: dict[GroupId, GroupTombstone] = {}
        self.groups_of: dict[UserId, tuple[GroupId, ...]] = {}
        self.requests_of: dict[UserId, tuple[GroupId, ...]] = {}
        self.invited_by: dict[bytes, GroupId] = {}  # the group of each invitation, by its hash
        self.budgets = Budgets()  # in memory only
        self.receipts: dict[tuple[DeviceKey, bytes], tuple[bytes, int]] = {}
        self._device_rows: dict[GroupId, list[DeviceRow]] = {}  # sorted once for all peers that ask
        self._shown: dict[tuple[UserId, ContentId], None] = {}  # manifests that users sent lately

    # -- queries --------------------------------------------------------------------------------

    def may_know(self, user: UserId, content: ContentId) -> bool:
        """Whether ``user`` may know a content's manifest.

        It is shared in a group of that user, or the user sent all of it.
        """
        if content not in self.manifests:
            return False
        return (user, content) in self._shown or any(
            content in group.names_of for group in self.groups_with(user)
        )

    def user_on(self, device: DeviceKey) -> UserId | None:
        """Return the user who may act on ``device``: one who is logged in and not disabled."""
        user = self.devices.get(device)
        return None if user is None or self.is_disabled(user) else user

    def is_disabled(self, user: UserId) -> bool:
        """Whether the operator has disabled the account of ``user``."""
        account = self.accounts.get(user)
        return account is not None and account.disabled

    def groups_with(self, user: UserId) -> Iterator[Group]:
        """Iterate over the groups of ``user`` in the order of joining."""
        return (self.groups[group] for group in self.groups_of.get(user, ()))

    def device_rows(self, group: Group) -> list[DeviceRow]:
        """Return the devices of all members who are not disabled, sorted by key."""
        rows = self._device_rows.get(group.id)
        if rows is None:
            rows = sorted(
                (
                    DeviceRow(device, user)
                    for user in group.members
                    if not self.is_disabled(user)
                    for device in self.devices_of.get(user, ())
                ),
                key=lambda row: row.device,
            )
            self._device_rows[group.id] = rows
        return rows

    def offers(self, group: Group, content: ContentId, user: UserId, device: DeviceKey) -> bool:
        """Whether ``device`` of ``user`` offers ``content`` in ``group`` under any name."""
        return any(
            (user, device) in group.shares[share].offers
            for share in group.names_of.get(content, ())
        )

    # -- batches --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a batch of changes that `take_back` can undo; `keep` or `take_back` ends it."""
        self.undo.begin()

    def keep(self) -> None:
        """Keep the changes since `begin`: they are durable."""
        self.undo.keep()

    def take_back(self) -> None:
        """Undo the changes since `begin`: they are not durable. Cost: these changes."""
        self.undo.take_back()

    # -- parts of changes -----------------------------------------------------------------------

    def add_group(self, group: Group) -> None:
        """Add a group that has no members yet."""
        self.undo.item(self.groups, group.id)
        self.groups[group.id] = group
        self.undo.addition(self.group_ids, group.id)
        insort(self.group_ids, group.id)

    def add_invitation(self, group: GroupId, key: bytes, invitation: Invitation) -> None:
        """Add an invitation to a group."""
        invitations = self.groups[group].invitations
        self.undo.item(invitations, key)
        invitations[key] = invitation
        self.undo.item(self.invited_by, key)
        self.invited_by[key] = group

    def drop_invitation(self, group: GroupId, key: bytes) -> None:
        """Drop an invitation to a group."""
        invitations = self.groups[group].invitations
        self.undo.removal(invitations, key)
        self.undo.removal(self.invited_by, key)
        del invitations[key], self.invited_by[key]

    def drop_invitations(self, group: Group) -> None:
        """Drop all invitations to ``group``."""
        for key in group.invitations:
            self.undo.removal(self.invited_by, key)
            del self.invited_by[key]
        self.undo.clearing(group.invitations)
        group.invitations.clear()

    def drop_follows(self, groups: Iterable[Group], devices: Iterable[DeviceKey]) -> None:
        """End the follows of ``groups`` by ``devices``."""
        gone = list(devices)
        for group in groups:
            for device in gone:
                self.undo.removal(group.follows, device)
                group.follows.pop(device, None)

    def show(self, user: UserId, content: ContentId) -> None:
        """Remember for a while that ``user`` knows a manifest."""
        self.undo.item(self._shown, (user, content))
        self._shown[user, content] = None
        if len(self._shown) > limits.MANIFESTS_SHOWN_MAX:
            oldest = next(iter(self._shown))
            self.undo.removal(self._shown, oldest)
            del self._shown[oldest]

    def forget_rows(self, *groups: GroupId) -> None:
        """Forget the sorted devices of groups."""
        for group in groups:
            self.undo.item(self._device_rows, group)  # a query may sort them again in the batch
            self._device_rows.pop(group, None)

    def add_of(self, table: dict[UserId, tuple[K, ...]], user: UserId, key: K) -> None:
        """Add ``key`` to those of a user."""
        self.undo.item(table, user)
        table[user] = (*table.get(user, ()), key)

    def drop_of(self, table: dict[UserId, tuple[K, ...]], user: UserId, key: K) -> None:
        """Drop ``key`` from those of a user."""
        self.undo.removal(table, user, ordered=False)
        left = tuple(other for other in table.pop(user) if other != key)
        if left:
            table[user] = left
