"""Mirror of the shares: what each group lists, its offers and manifests, and their indexes.

Owns: the steps that several changes of these share (see tracker.core.changes.shares). Not here: the
other durable state (see tracker.core.state, which is built on this), and the names and their
versions (see tracker.core.share_names).
"""

from __future__ import annotations

from bisect import insort

from common.ids import ContentId, DeviceKey, GroupId, UserId
from tracker.core.holdings import Holdings
from tracker.core.records import Group, ManifestSummary, Share, ShareRef
from tracker.core.share_names import ShareId
from tracker.core.sorted_lists import remove_sorted
from tracker.core.undo import UndoLog
from tracker.core.unshared_manifests import UnsharedManifests


class SharesState:
    """Shares of all groups. Each change is noted in ``undo`` before it is made."""

    def __init__(self) -> None:
        self.groups: dict[GroupId, Group] = {}
        self.offers_of: dict[tuple[UserId, DeviceKey], list[ShareRef]] = {}  # each list sorted
        self.manifests: dict[ContentId, ManifestSummary] = {}
        self.shared_in: dict[ContentId, dict[ShareRef, None]] = {}
        self.unshared_manifests = UnsharedManifests()
        self.holdings = Holdings()
        self.undo = UndoLog()

    def add_manifest(self, summary: ManifestSummary, sender: UserId | None = None) -> None:
        """Add a manifest that no share names yet."""
        self.undo.item(self.manifests, summary.content)
        self.manifests[summary.content] = summary
        self.unshared_manifests.add(
            summary.content, summary.manifest_bytes, summary.stored_ms, sender, self.undo
        )

    def add_share(self, group_id: GroupId, share_id: ShareId, share: Share) -> None:
        """Add a share without offers; its version and its manifest must be known."""
        undo, group = self.undo, self.groups[group_id]
        group.names.begin(share_id, undo)
        undo.item(group.shares, share_id)
        group.shares[share_id] = share
        undo.addition(group.share_ids, share_id)
        insort(group.share_ids, share_id)
        undo.item(group.names_of, share.content)
        names = group.names_of.setdefault(share.content, {})
        undo.item(names, share_id)
        names[share_id] = None
        undo.item(self.shared_in, share.content)
        refs = self.shared_in.setdefault(share.content, {})
        undo.item(refs, (group_id, share_id))
        refs[group_id, share_id] = None
        self.unshared_manifests.remove(share.content, undo)

    def add_offer(self, ref: ShareRef, offer: tuple[UserId, DeviceKey], at_ms: int) -> None:
        """Add an offer of a known share."""
        undo, user = self.undo, offer[0]
        share = self.groups[ref[0]].shares[ref[1]]
        undo.item(share.offers, offer)
        share.offers[offer] = at_ms
        undo.field(share, "listed")
        share.listed = None
        if user not in share.users:
            size = self.manifests[share.content].manifest_bytes
            self.holdings.add_share(ref[0], user, size, undo)
        undo.item(share.users, user)
        share.users[user] = share.users.get(user, 0) + 1
        self.holdings.add_offer(user, undo)
        undo.item(self.offers_of, offer)
        refs = self.offers_of.setdefault(offer, [])
        undo.addition(refs, ref)
        insort(refs, ref)

    def drop_offer(self, group: GroupId, share: Share, offer: tuple[UserId, DeviceKey]) -> None:
        """Drop an offer from its share; `drop_ref` drops it from the offers of the device."""
        undo, user = self.undo, offer[0]
        undo.removal(share.offers, offer)
        del share.offers[offer]
        undo.field(share, "listed")
        share.listed = None
        self.holdings.drop_offer(user, undo)
        if share.users[user] > 1:
            undo.item(share.users, user)
            share.users[user] -= 1
        else:
            undo.removal(share.users, user)
            del share.users[user]
            size = self.manifests[share.content].manifest_bytes
            self.holdings.drop_share(group, user, size, undo)

    def remove_share(self, group: Group, share_id: ShareId) -> Share:
        """Remove a share from its group, and return it."""
        self.undo.removal(group.shares, share_id)
        self.undo.subtraction(group.share_ids, share_id)
        remove_sorted(group.share_ids, share_id)
        return group.shares.pop(share_id)

    def drop_shares(self, group: Group, at_ms: int) -> None:
        """Drop all shares of a group that is dissolved, with their offers."""
        for share_id, share in group.shares.items():
            self.unlist(group, share_id, share.content, at_ms)
        ended = {offer for share in group.shares.values() for offer in share.offers}
        for share in group.shares.values():
            for offer in list(share.offers):
                self.drop_offer(group.id, share, offer)
        self.drop_refs(group, ended)

    def unlist(self, group: Group, share: ShareId, content: ContentId, at_ms: int) -> None:
        """Drop a share from the indexes by content."""
        undo, names = self.undo, group.names_of[content]
        undo.removal(names, share)
        del names[share]
        if not names:
            undo.removal(group.names_of, content, ordered=False)
            del group.names_of[content]
        refs = self.shared_in[content]
        undo.removal(refs, (group.id, share))
        del refs[group.id, share]
        if not refs:
            undo.removal(self.shared_in, content, ordered=False)
            del self.shared_in[content]
            size = self.manifests[content].manifest_bytes
            self.unshared_manifests.add(content, size, at_ms, None, undo)

    def drop_ref(self, offer: tuple[UserId, DeviceKey], ref: ShareRef) -> None:
        """Remove a reference from the offers of a device."""
        refs = self.offers_of[offer]
        self.undo.subtraction(refs, ref)
        remove_sorted(refs, ref)
        if not refs:
            self.undo.removal(self.offers_of, offer, ordered=False)
            del self.offers_of[offer]

    def drop_refs(self, group: Group, ended: set[tuple[UserId, DeviceKey]]) -> None:
        """Remove the references to ``group`` from the offers of ``ended``."""
        for offer in ended:
            left = [ref for ref in self.offers_of[offer] if ref[0] != group.id]
            self.undo.removal(self.offers_of, offer, ordered=False)
            if left:
                self.offers_of[offer] = left
            else:
                del self.offers_of[offer]
