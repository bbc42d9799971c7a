"""Mirror of the durable state in memory; every query is answered from it.

Owns: `State.apply`, which does to the mirror what the store does to the tables, and the indexes.
Not here: the record types (see tracker.core.records) and decisions. All dictionaries keep the order
in which things happened.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

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
from tracker.core.holdings import Holdings
from tracker.core.invitation_state import apply_invitation, drop_invitations
from tracker.core.records import (
    Account,
    Binding,
    Group,
    GroupTombstone,
    Invitation,
    Member,
    Revocation,
    Share,
    ShareRef,
)
from tracker.core.share_names import Version
from tracker.core.sorted_lists import remove_sorted
from tracker.core.unshared_manifests import UnsharedManifests


class State:
    """All durable state except the manifests' bytes and the log's entries."""

    def __init__(self) -> None:
        self.accounts: dict[UserId, Account] = {}
        self.registration = Registration.OPEN
        self.devices: dict[DeviceKey, UserId] = {}
        self.devices_of: dict[UserId, dict[DeviceKey, Binding]] = {}
        self.groups: dict[GroupId, Group] = {}
        self.group_ids: list[GroupId] = []  # sorted: a page costs no pass over all groups
        self.tombstones: dict[GroupId, GroupTombstone] = {}
        self.groups_of: dict[UserId, dict[GroupId, None]] = {}
        self.requests_of: dict[UserId, dict[GroupId, None]] = {}
        self.invited_by: dict[bytes, GroupId] = {}  # the group of each invitation, by its hash
        self.offers_of: dict[tuple[UserId, DeviceKey], list[ShareRef]] = {}  # each list sorted
        self.manifests: dict[ContentId, c.ManifestSummary] = {}
        self.shared_in: dict[ContentId, dict[ShareRef, None]] = {}
        self.unshared_manifests = UnsharedManifests()
        self.holdings = Holdings()
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

    def apply(self, change: c.Change) -> None:
        """Apply ``change`` to the mirror.

        Raise `LocalProtocolError` or KeyError if it does not fit; the caller must then load the
        mirror from the store again.
        """
        match change:
            case c.AccountCreated(user, password_hash, at_ms):
                self.accounts[user] = Account(user, password_hash, at_ms)
            case c.PasswordReplaced(user, password_hash):
                self.accounts[user] = replace(self.accounts[user], password_hash=password_hash)
            case oc.AccountDisabled(user, disabled):
                self.accounts[user] = replace(self.accounts[user], disabled=disabled)
                self._devices_changed(user)
            case oc.AccountDeleted(user):
                self._delete_account(user)
            case oc.RegistrationSet(mode):
                self.registration = mode
            case c.DeviceBound(device, user, at_ms):
                self.devices[device] = user
                self.devices_of.setdefault(user, {})[device] = Binding(at_ms, at_ms)
                self._devices_changed(user)
            case c.DeviceUnbound(device):
                user = self.devices.pop(device)
                del self.devices_of[user][device]
                self._devices_changed(user)
                drop_follows(self.groups_with(user), [device])
            case c.DeviceSeen(device, at_ms):
                bindings = self.devices_of[self.devices[device]]
                bindings[device] = replace(bindings[device], seen_ms=at_ms)
            case c.GroupCreated():
                self._create_group(change)
            case c.GroupDissolved():
                self._dissolve_group(change)
            case c.TombstoneExpired(group):
                del self.tombstones[group]
            case c.OwnerChanged(group, user):
                self.groups[group].owner = user
                drop_invitations(self.groups[group], self.invited_by)
            case c.MemberJoined(group, user, seq, at_ms):
                self.groups[group].members[user] = Member(at_ms, seq)
                self.groups_of.setdefault(user, {})[group] = None
                self._device_rows.pop(group, None)
            case c.MemberGone():
                self._remove_member(change)
            case c.RekeyPending(group):
                self.groups[group].rekey_pending = True
            case c.GroupKeyHanded(group, epoch, key):
                self.groups[group].epoch, self.groups[group].key = epoch, key
            case c.GroupRekeyed():
                self.groups[change.group].rekey(change.epoch, change.key)
                self.groups[change.group].rekeyed_ms.append(change.at_ms)
            case c.RevocationForgotten(group, user):
                owner = self.groups.get(group) or self.tombstones[group]
                owner.revoked.pop(user, None)
            case c.RequestMade(group, user, at_ms):
                self.groups[group].requests[user] = at_ms
                self.groups[group].request_buckets.take(user, at_ms / 1000)
                self.requests_of.setdefault(user, {})[group] = None
            case c.RequestDropped(group, user):
                del self.groups[group].requests[user]
                del self.requests_of[user][group]
            case (
                ic.InvitationMade()
                | ic.InvitationUsed()
                | ic.InvitationDropped()
                | ic.InvitationsExpired()
            ):
                apply_invitation(self.groups, self.invited_by, change)
            case c.ManifestStored(summary, _, sender):
                self.add_manifest(summary, sender)
            case c.ManifestShown(user, content):
                self._shown[(user, content)] = None
                if len(self._shown) > limits.MANIFESTS_SHOWN_MAX:
                    del self._shown[next(iter(self._shown))]
            case c.ManifestDropped(content):
                self.unshared_manifests.remove(content)
                del self.manifests[content]
            case c.VersionAdded(group, share, name, content, user, at_ms):
                added = Version(content, user, at_ms)
                self.groups[group].names.add_version(share, name, added)
            case c.VersionsWithdrawn():
                self._withdraw(change)
            case c.NameForgotten(group, name_id):
                self.groups[group].names.forget(name_id)
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
                apply_follow(self.groups, change)
            case c.Logged(entry):
                self.groups[GroupId(entry.group)].count_entry(entry.seq)
            case c.LogTrimmed(group, count):
                self.groups[group].entries -= count
            case c.ReceiptStored(device, request_id, fingerprint, at_ms):
                self.receipts[device, request_id] = (fingerprint, at_ms)
            case BudgetSpent():
                self.budgets.take(change)
            case c.ReceiptsExpired(before_ms):
                self.receipts = {k: v for k, v in self.receipts.items() if v[1] >= before_ms}
            case _:
                assert_never(change)

    def _delete_account(self, user: UserId) -> None:
        del self.accounts[user]
        for left in (self.devices_of, self.groups_of, self.requests_of):
            if left.pop(user, None):
                raise LocalProtocolError(f"an account that is deleted has {left} left")

    def add_invitation(self, group: GroupId, key: bytes, invitation: Invitation) -> None:
        """Add an invitation to a group."""
        self.groups[group].invitations[key] = invitation
        self.invited_by[key] = group

    def _devices_changed(self, user: UserId) -> None:
        for group in self.groups_of.get(user, ()):
            self._device_rows.pop(group, None)

    def _create_group(self, change: c.GroupCreated) -> None:
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
        group = self.groups.pop(change.group)
        remove_sorted(self.group_ids, group.id)
        for user in group.members:
            del self.groups_of[user][group.id]
        for user in group.requests:
            del self.requests_of[user][group.id]
        self._device_rows.pop(group.id, None)
        drop_invitations(group, self.invited_by)
        for share_id, share in group.shares.items():
            self._unlist(group, share_id, share.content, change.at_ms)
        ended = {offer for share in group.shares.values() for offer in share.offers}
        for share in group.shares.values():
            for offer in list(share.offers):
                self._drop_offer(group.id, share, offer)
        self._drop_refs(group, ended)
        for user in group.members:
            group.revoked[user] = Revocation(change.epoch, change.at_ms)
        self.tombstones[group.id] = GroupTombstone(
            group.seq, change.epoch, group.revoked, change.at_ms
        )

    def _remove_member(self, change: c.MemberGone) -> None:
        group = self.groups[change.group]
        del group.members[change.user]
        del self.groups_of[change.user][group.id]
        drop_follows([group], self.devices_of.get(change.user, ()))
        group.revoked[change.user] = Revocation(change.epoch, change.at_ms)
        group.rekey(change.epoch, change.key)
        self._device_rows.pop(group.id, None)

    def add_group(self, group: Group) -> None:
        """Add a group that has no members yet."""
        self.groups[group.id] = group
        insort(self.group_ids, group.id)

    def add_manifest(self, summary: c.ManifestSummary, sender: UserId | None = None) -> None:
        """Add a manifest that no share names yet."""
        self.manifests[summary.content] = summary
        self.unshared_manifests.add(
            summary.content, summary.manifest_bytes, summary.stored_ms, sender
        )

    def add_share(self, group_id: GroupId, share_id: c.ShareId, share: Share) -> None:
        """Add a share without offers; its version and its manifest must be known."""
        group = self.groups[group_id]
        group.names.begin(share_id)
        group.shares[share_id] = share
        insort(group.share_ids, share_id)
        group.names_of.setdefault(share.content, {})[share_id] = None
        self.shared_in.setdefault(share.content, {})[group_id, share_id] = None
        self.unshared_manifests.remove(share.content)

    def add_offer(self, ref: ShareRef, offer: tuple[UserId, DeviceKey], at_ms: int) -> None:
        """Add an offer of a known share."""
        share, user = self.groups[ref[0]].shares[ref[1]], offer[0]
        share.offers[offer] = at_ms
        if user not in share.users:
            self.holdings.add_share(ref[0], user, self.manifests[share.content].manifest_bytes)
        share.users[user] = share.users.get(user, 0) + 1
        self.holdings.add_offer(user)
        insort(self.offers_of.setdefault(offer, []), ref)

    def _drop_offer(self, group: GroupId, share: Share, offer: tuple[UserId, DeviceKey]) -> None:
        user = offer[0]
        del share.offers[offer]
        self.holdings.drop_offer(user)
        share.users[user] -= 1
        if not share.users[user]:
            del share.users[user]
            size = self.manifests[share.content].manifest_bytes
            self.holdings.drop_share(group, user, size)

    def _drop_share(self, change: c.ShareDropped) -> None:
        group = self.groups[change.group]
        del group.shares[change.share]
        remove_sorted(group.share_ids, change.share)
        self._unlist(group, change.share, change.content, change.at_ms)
        group.names.end([change.share], change.at_ms)

    def _withdraw(self, change: c.VersionsWithdrawn) -> None:
        group = self.groups[change.group]
        for share_id in group.names.withdrawn(change.name, change.version, earlier=change.earlier):
            share = group.shares.pop(share_id)
            for offer in list(share.offers):
                self._drop_offer(group.id, share, offer)
                self._drop_ref(offer, (group.id, share_id))
            remove_sorted(group.share_ids, share_id)
            self._unlist(group, share_id, share.content, change.at_ms)
        group.names.withdraw(
            change.name, change.version, earlier=change.earlier, at_ms=change.at_ms
        )

    def _unlist(self, group: Group, share: c.ShareId, content: ContentId, at_ms: int) -> None:
        names = group.names_of[content]
        del names[share]
        if not names:
            del group.names_of[content]
        refs = self.shared_in[content]
        del refs[group.id, share]
        if not refs:
            del self.shared_in[content]
            self.unshared_manifests.add(
                content, self.manifests[content].manifest_bytes, at_ms, None
            )

    def _end_offers(self, change: c.OffersEnded) -> None:
        """End offers in one pass; removed one by one, each removal would shift the sorted lists."""
        group, ended = self.groups[change.group], set()
        dropped: list[c.ShareId] = []
        for share_id, share in list(group.shares.items()):
            theirs = [
                (user, device)
                for user, device in share.offers
                if user == change.user and change.device in (None, device)
            ]
            for offer in theirs:
                self._drop_offer(group.id, share, offer)
            ended.update(theirs)
            if not share.offers:
                del group.shares[share_id]
                self._unlist(group, share_id, share.content, change.at_ms)
                dropped.append(share_id)
        group.names.end(dropped, change.at_ms)
        group.share_ids = [share_id for share_id in group.share_ids if share_id in group.shares]
        self._drop_refs(group, ended)

    def _drop_ref(self, offer: tuple[UserId, DeviceKey], ref: ShareRef) -> None:
        remove_sorted(self.offers_of[offer], ref)
        if not self.offers_of[offer]:
            del self.offers_of[offer]

    def _drop_refs(self, group: Group, ended: set[tuple[UserId, DeviceKey]]) -> None:
        """Remove the references to ``group`` from the offers of ``ended``."""
        for offer in ended:
            left = [ref for ref in self.offers_of[offer] if ref[0] != group.id]
            if left:
                self.offers_of[offer] = left
            else:
                del self.offers_of[offer]
