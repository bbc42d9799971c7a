"""Mirror of the durable state in memory; every query is answered from it.

Owns: `State.apply`, which does to the mirror what the store does to the tables, and the indexes.
Not here: the record types (see tracker.core.records) and decisions. All dictionaries keep the order
in which things happened.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, TypeVar, assert_never

from common import limits
from common.errors import LocalProtocolError
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.operator import Registration
from common.messages.tracker import DeviceRow
from tracker.core import changes as c
from tracker.core import invitation_changes as ic
from tracker.core import operator_changes as oc
from tracker.core.budgets import Budgets, BudgetSpent
from tracker.core.follow_changes import FollowEnded, FollowSet, apply_follow, drop_follows
from tracker.core.invitation_state import add_invitation, apply_invitation, drop_invitations
from tracker.core.records import (
    Account,
    Binding,
    Group,
    GroupTombstone,
    Invitation,
    Member,
    Revocation,
    Share,
)
from tracker.core.share_names import Version
from tracker.core.shares_state import SharesState
from tracker.core.sorted_lists import remove_sorted

K = TypeVar("K")
V = TypeVar("V")


class State(SharesState):
    """All durable state except the manifests' bytes and the log's entries."""

    def __init__(self) -> None:
        super().__init__()
        self.position = 0  # of the last commit, in a database of several trackers
        self.accounts: dict[UserId, Account] = {}
        self.registration = Registration.OPEN
        self.devices: dict[DeviceKey, UserId] = {}
        self.devices_of: dict[UserId, dict[DeviceKey, Binding]] = {}
        self.group_ids: list[GroupId] = []  # sorted: a page costs no pass over all groups
        self.tombstones: dict[GroupId, GroupTombstone] = {}
        self.groups_of: dict[UserId, dict[GroupId, None]] = {}
        self.requests_of: dict[UserId, dict[GroupId, None]] = {}
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

    # -- changes --------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a batch of changes that `take_back` can undo; `keep` or `take_back` ends it."""
        self._undo.begin()

    def keep(self) -> None:
        """Keep the changes since `begin`: they are durable."""
        self._undo.keep()

    def take_back(self) -> None:
        """Undo the changes since `begin`: they are not durable. Cost: these changes."""
        self._undo.take_back()

    def apply(self, change: c.Change) -> None:
        """Apply ``change`` to the mirror.

        Raise `LocalProtocolError` or KeyError if it does not fit. Part of it may be applied then:
        take the batch back, or load the mirror again.
        """
        match change:
            case c.AccountCreated(user, password_hash, at_ms):
                self._undo.item(self.accounts, user)
                self.accounts[user] = Account(user, password_hash, at_ms)
            case c.PasswordReplaced(user, password_hash):
                self._undo.item(self.accounts, user)
                self.accounts[user] = replace(self.accounts[user], password_hash=password_hash)
            case oc.AccountDisabled(user, disabled):
                self._undo.item(self.accounts, user)
                self.accounts[user] = replace(self.accounts[user], disabled=disabled)
                self._devices_changed(user)
            case oc.AccountDeleted(user):
                self._delete_account(user)
            case oc.RegistrationSet(mode):
                self._undo.field(self, "registration")
                self.registration = mode
            case c.DeviceBound(device, user, at_ms):
                self._undo.item(self.devices, device)
                self.devices[device] = user
                self._set_in(self.devices_of, user, device, Binding(at_ms, at_ms))
                self._devices_changed(user)
            case c.DeviceUnbound(device):
                self._undo.removal(self.devices, device, ordered=False)
                user = self.devices.pop(device)
                self._undo.removal(self.devices_of[user], device)
                del self.devices_of[user][device]
                self._devices_changed(user)
                drop_follows(self.groups_with(user), [device], self._undo)
            case c.DeviceSeen(device, at_ms):
                bindings = self.devices_of[self.devices[device]]
                self._undo.item(bindings, device)
                bindings[device] = replace(bindings[device], seen_ms=at_ms)
            case c.GroupCreated():
                self._create_group(change)
            case c.GroupDissolved():
                self._dissolve_group(change)
            case c.TombstoneExpired(group):
                self._undo.removal(self.tombstones, group)
                del self.tombstones[group]
            case c.OwnerChanged(group, user):
                self._undo.field(self.groups[group], "owner")
                self.groups[group].owner = user
                drop_invitations(self.groups[group], self.invited_by, self._undo)
            case c.MemberJoined(group, user, seq, at_ms):
                self._undo.item(self.groups[group].members, user)
                self.groups[group].members[user] = Member(at_ms, seq)
                self._set_in(self.groups_of, user, group, None)
                self._forget_rows(group)
            case c.MemberGone():
                self._remove_member(change)
            case c.RekeyPending(group):
                self._undo.field(self.groups[group], "rekey_pending")
                self.groups[group].rekey_pending = True
            case c.GroupKeyHanded(group, epoch, key):
                self._undo.field(self.groups[group], "epoch", "key")
                self.groups[group].epoch, self.groups[group].key = epoch, key
            case c.GroupRekeyed():
                self._rekey(change)
            case c.RevocationForgotten(group, user):
                owner = self.groups.get(group) or self.tombstones[group]
                self._undo.removal(owner.revoked, user)
                owner.revoked.pop(user, None)
            case c.RequestMade(group, user, at_ms):
                self._add_request(self.groups[group], user, at_ms)
            case c.RequestDropped(group, user):
                self._undo.removal(self.groups[group].requests, user)
                del self.groups[group].requests[user]
                self._undo.removal(self.requests_of[user], group)
                del self.requests_of[user][group]
            case (
                ic.InvitationMade()
                | ic.InvitationUsed()
                | ic.InvitationDropped()
                | ic.InvitationsExpired()
            ):
                apply_invitation(self.groups, self.invited_by, change, self._undo)
            case c.ManifestStored(summary, _, sender):
                self.add_manifest(summary, sender)
            case c.ManifestShown(user, content):
                self._show(user, content)
            case c.ManifestDropped(content):
                self._drop_manifest(content)
            case c.VersionAdded(group, share, name, content, user, at_ms):
                added = Version(content, user, at_ms)
                self.groups[group].names.add_version(share, name, added, self._undo)
            case c.VersionsWithdrawn():
                self._withdraw(change)
            case c.NameForgotten(group, name_id):
                self.groups[group].names.forget(name_id, self._undo)
            case c.ShareAdded(group, share, content, at_ms):
                name = self.groups[group].names.by_id[share.name].text
                self.add_share(group, share, Share(name, content, at_ms))
            case c.ShareDropped():
                self._drop_share(change)
            case c.OfferAdded(group, share, _, user, device, at_ms):
                self.add_offer((group, share), (user, device), at_ms)
            case c.OfferDropped(group, share, _, user, device):
                self._drop_offer(group, self.groups[group].shares[share], (user, device))
                self._drop_ref((user, device), (group, share))
            case c.OffersEnded():
                self._end_offers(change)
            case FollowSet() | FollowEnded():
                apply_follow(self.groups, change, self._undo)
            case c.Logged(entry):
                self.groups[GroupId(entry.group)].count_entry(entry.seq, self._undo)
            case c.LogTrimmed(group, count):
                self._undo.field(self.groups[group], "entries")
                self.groups[group].entries -= count
            case c.ReceiptStored(device, request_id, fingerprint, at_ms):
                self._undo.item(self.receipts, (device, request_id))
                self.receipts[device, request_id] = (fingerprint, at_ms)
            case BudgetSpent():
                self._undo.step(self.budgets.give_back, change)
                self.budgets.take(change)
            case c.ReceiptsExpired(before_ms):
                self._undo.field(self, "receipts")
                self.receipts = {k: v for k, v in self.receipts.items() if v[1] >= before_ms}
            case _:
                assert_never(change)

    def _delete_account(self, user: UserId) -> None:
        self._undo.removal(self.accounts, user)
        del self.accounts[user]
        tables: tuple[dict[UserId, Any], ...] = (self.devices_of, self.groups_of, self.requests_of)
        for left in tables:
            self._undo.removal(left, user, ordered=False)
            if left.pop(user, None):
                raise LocalProtocolError(f"an account that is deleted has {left} left")

    def add_invitation(self, group: GroupId, key: bytes, invitation: Invitation) -> None:
        """Add an invitation to a group."""
        add_invitation(self.groups[group], self.invited_by, key, invitation, self._undo)

    def _devices_changed(self, user: UserId) -> None:
        for group in self.groups_of.get(user, ()):
            self._forget_rows(group)

    def _forget_rows(self, group: GroupId) -> None:
        self._undo.item(self._device_rows, group)  # a query may sort them again during the batch
        self._device_rows.pop(group, None)

    def _set_in(self, tables: dict[UserId, dict[K, V]], user: UserId, key: K, value: V) -> None:
        self._undo.item(tables, user)
        theirs = tables.setdefault(user, {})
        self._undo.item(theirs, key)
        theirs[key] = value

    def _show(self, user: UserId, content: ContentId) -> None:
        self._undo.item(self._shown, (user, content))
        self._shown[(user, content)] = None
        if len(self._shown) > limits.MANIFESTS_SHOWN_MAX:
            oldest = next(iter(self._shown))
            self._undo.removal(self._shown, oldest)
            del self._shown[oldest]

    def _rekey(self, change: c.GroupRekeyed) -> None:
        group = self.groups[change.group]
        group.rekey(change.epoch, change.key, self._undo)
        self._undo.field(group, "rekeyed_ms")
        group.rekeyed_ms = group.rekeyed_ms.copy()
        group.rekeyed_ms.append(change.at_ms)

    def _add_request(self, group: Group, user: UserId, at_ms: int) -> None:
        self._undo.item(group.requests, user)
        group.requests[user] = at_ms
        if group.request_buckets.take(user, at_ms / 1000):
            self._undo.step(group.request_buckets.give_back, user, at_ms / 1000)
        self._set_in(self.requests_of, user, group.id, None)

    def _create_group(self, change: c.GroupCreated) -> None:
        self._undo.removal(self.tombstones, change.group)
        former = self.tombstones.pop(change.group, None)
        self.add_group(
            Group(
                change.group,
                change.owner,
                change.topic,
                change.key,
                change.seq,
                change.epoch,
                change.at_ms,
                revoked=former.revoked if former else {},
            )
        )

    def _dissolve_group(self, change: c.GroupDissolved) -> None:
        undo, group = self._undo, self.groups[change.group]
        undo.removal(self.groups, group.id)
        del self.groups[group.id]
        undo.subtraction(self.group_ids, group.id)
        remove_sorted(self.group_ids, group.id)
        for user in group.members:
            undo.removal(self.groups_of[user], group.id)
            del self.groups_of[user][group.id]
        for user in group.requests:
            undo.removal(self.requests_of[user], group.id)
            del self.requests_of[user][group.id]
        self._forget_rows(group.id)
        drop_invitations(group, self.invited_by, undo)
        for share_id, share in group.shares.items():
            self._unlist(group, share_id, share.content, change.at_ms)
        ended = {offer for share in group.shares.values() for offer in share.offers}
        for share in group.shares.values():
            for offer in list(share.offers):
                self._drop_offer(group.id, share, offer)
        self._drop_refs(group, ended)
        for user in group.members:
            undo.item(group.revoked, user)
            group.revoked[user] = Revocation(change.epoch, change.at_ms)
        undo.item(self.tombstones, group.id)
        self.tombstones[group.id] = GroupTombstone(
            group.seq, change.epoch, group.revoked, change.at_ms
        )

    def _remove_member(self, change: c.MemberGone) -> None:
        undo, group = self._undo, self.groups[change.group]
        undo.removal(group.members, change.user)
        del group.members[change.user]
        undo.removal(self.groups_of[change.user], group.id)
        del self.groups_of[change.user][group.id]
        drop_follows([group], self.devices_of.get(change.user, ()), undo)
        undo.item(group.revoked, change.user)
        group.revoked[change.user] = Revocation(change.epoch, change.at_ms)
        group.rekey(change.epoch, change.key, undo)
        self._forget_rows(group.id)

    def add_group(self, group: Group) -> None:
        """Add a group that has no members yet."""
        self._undo.item(self.groups, group.id)
        self.groups[group.id] = group
        self._undo.addition(self.group_ids, group.id)
        insort(self.group_ids, group.id)
