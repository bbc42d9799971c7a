"""Mirror of the shares: what each group lists, its offers and manifests, and their indexes.

Owns: the steps that several changes of these share (see tracker.core.changes.shares). Not here: the
other durable state (see tracker.core.state, which is built on this), and the names and their
versions (see tracker.core.share_names).
"""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Collection

from common.ids import ContentId, GroupId, UserId
from tracker.core.holdings import Holdings
from tracker.core.manifests import Manifests
from tracker.core.records import Group, Holder, ManifestSummary, Share
from tracker.core.share_names import ShareId
from tracker.core.sorted_lists import remove_sorted
from tracker.core.undo import UndoLog
from tracker.core.unshared_manifests import UnsharedManifests


class SharesState:
    """Shares of all groups. Each change is noted in ``undo`` before it is made."""

    def __init__(self) -> None:
        self.groups: dict[GroupId, Group] = {}
        self.offers_of: dict[Holder, list[Share]] = {}  # each list sorted
        self.manifests = Manifests()
        # The shares of a content in all groups beyond the first one.
        self.shared_again: Counter[ContentId] = Counter()
        self.unshared_manifests = UnsharedManifests()
        self.holdings = Holdings()
        self.undo = UndoLog()

    def add_manifest(self, summary: ManifestSummary, sender: UserId | None = None) -> None:
        """Add a manifest that no share names yet."""
        self.manifests.add(summary, self.undo)
        self.unshared_manifests.add(
            summary.content, summary.manifest_bytes, summary.stored_ms, sender, self.undo
        )

    def add_share(self, share: Share) -> None:
        """Add a share without offers; its version and its manifest must be known."""
        undo, share_id, group = self.undo, share.id, self.groups[share.group]
        group.names.begin(share_id, undo)
        undo.field(group, "size_bytes")
        group.size_bytes += self.manifests[share.content].size
        undo.item(group.shares, share_id)
        group.shares[share_id] = share
        undo.addition(group.share_ids, share_id)
        insort(group.share_ids, share_id)
        undo.item(group.names_of, share.content)
        group.names_of[share.content] = (*group.names_of.get(share.content, ()), share_id)
        if share.content in self.unshared_manifests:
            self.unshared_manifests.remove(share.content, undo)
        else:
            undo.item(self.shared_again, share.content)
            self.shared_again[share.content] += 1

    def add_offer(self, share: Share, holder: Holder, at_ms: int) -> None:
        """Add an offer of a known share."""
        undo, user = self.undo, holder[0]
        if not share.is_of(user):
            size = self.manifests[share.content].manifest_bytes
            self.holdings.add_share(share.group, user, size, undo)
        share.add(holder, at_ms, undo)
        self.holdings.add_offer(user, undo)
        undo.item(self.offers_of, holder)
        offered = self.offers_of.setdefault(holder, [])
        undo.addition(offered, share)
        insort(offered, share)

    def drop_offer(self, share: Share, holder: Holder) -> None:
        """Drop an offer from its share; `drop_ref` drops it from the offers of the device."""
        undo, user = self.undo, holder[0]
        share.drop(holder, undo)
        self.holdings.drop_offer(user, undo)
        if not share.is_of(user):
            size = self.manifests[share.content].manifest_bytes
            self.holdings.drop_share(share.group, user, size, undo)

    def remove_share(self, group: Group, share_id: ShareId) -> Share:
        """Remove a share from its group, and return it."""
        self.undo.removal(group.shares, share_id)
        self.undo.subtraction(group.share_ids, share_id)
        remove_sorted(group.share_ids, share_id)
        return group.shares.pop(share_id)

    def drop_shares(self, group: Group, at_ms: int) -> None:
        """Drop all shares of a group that is dissolved, with their offers."""
        self.unlist(group, group.shares.values(), at_ms)
        ended = {holder for share in group.shares.values() for holder in share.offers}
        for share in group.shares.values():
            for holder in list(share.offers):
                self.drop_offer(share, holder)
        self.drop_refs(group, ended)

    def unlist(self, group: Group, shares: Collection[Share], at_ms: int) -> None:
        """Drop shares of ``group`` from the indexes by content.

        Why all at once: each further name of a content would cost a pass over its names.
        """
        undo, dropped = self.undo, {share.id for share in shares}
        undo.field(group, "size_bytes")
        group.size_bytes -= sum(self.manifests[share.content].size for share in shares)
        for content in dict.fromkeys(share.content for share in shares):
            undo.removal(group.names_of, content, ordered=False)
            before = group.names_of.pop(content)
            left = tuple(share_id for share_id in before if share_id not in dropped)
            if left:
                group.names_of[content] = left
            undo.removal(self.shared_again, content, ordered=False)
            again = self.shared_again.pop(content, 0) - (len(before) - len(left))
            if again > 0:
                self.shared_again[content] = again
            elif again < 0:
                size = self.manifests[content].manifest_bytes
                self.unshared_manifests.add(content, size, at_ms, None, undo)

    def drop_ref(self, holder: Holder, share: Share) -> None:
        """Remove a share from the offers of a device."""
        offered = self.offers_of[holder]
        self.undo.subtraction(offered, share)
        remove_sorted(offered, share)
        if not offered:
            self.undo.removal(self.offers_of, holder, ordered=False)
            del self.offers_of[holder]

    def drop_refs(self, group: Group, ended: set[Holder]) -> None:
        """Remove the shares of ``group`` from the offers of ``ended``."""
        for holder in ended:
            left = [share for share in self.offers_of[holder] if share.group != group.id]
            self.undo.removal(self.offers_of, holder, ordered=False)
            if left:
                self.offers_of[holder] = left
            else:
                del self.offers_of[holder]
