"""Changes of manifests, of the versions of names, and of shares and their offers."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from common.ids import ContentId, DeviceKey, GroupId, UserId
from tracker.core.changes.base import Change, change
from tracker.core.records import Holder, ManifestSummary, Share
from tracker.core.share_names import NameId, ShareId, Version

if TYPE_CHECKING:
    from tracker.core.state import State


@change(25)
class ManifestStored(Change):
    """Stored manifest. ``sender``, in memory only: the user whose offer should follow."""

    summary: ManifestSummary
    body: bytes = field(repr=False)
    sender: UserId | None = None

    def apply(self, state: State) -> None:
        state.add_manifest(self.summary, self.sender)


@change()
class ManifestShown(Change):
    """Proof that ``user`` knows a content: the whole manifest was sent. In memory only."""

    user: UserId
    content: ContentId

    def apply(self, state: State) -> None:
        state.show(self.user, self.content)


@change(26)
class ManifestDropped(Change):
    content: ContentId

    def apply(self, state: State) -> None:
        state.unshared_manifests.remove(self.content, state.undo)
        state.manifests.remove(self.content, state.undo)


@change(27)
class VersionAdded(Change):
    """A version of ``name`` is on record: ``user`` shared it first. Its offer follows."""

    group: GroupId
    share: ShareId
    name: str
    content: ContentId
    user: UserId
    at_ms: int

    def apply(self, state: State) -> None:
        added = Version(self.share.version, self.content, self.user, self.at_ms)
        names = state.groups[self.group].names
        names.add_version(self.share.name, self.name, added, state.undo)


@change(28)
class VersionsWithdrawn(Change):
    """Withdrawal of ``version`` of a name, with ``earlier`` of all before it too: no new offers.

    All their offers end. ``contents``: those of the versions that have offers.
    """

    group: GroupId
    name: NameId
    version: int
    earlier: bool
    contents: tuple[ContentId, ...]
    at_ms: int

    def apply(self, state: State) -> None:
        group = state.groups[self.group]
        ending = group.names.withdrawn(self.name, self.version, earlier=self.earlier)
        shares = [state.remove_share(group, share_id) for share_id in ending]
        for share in shares:
            for holder in list(share.offers):
                state.drop_offer(share, holder)
                state.drop_ref(holder, share)
        state.unlist(group, shares, self.at_ms)
        group.names.withdraw(
            self.name, self.version, state.undo, earlier=self.earlier, at_ms=self.at_ms
        )


@change(29)
class NameForgotten(Change):
    """A name without offers leaves the record, with its withdrawals."""

    group: GroupId
    name: NameId

    def apply(self, state: State) -> None:
        state.groups[self.group].names.forget(self.name, state.undo)


@change(30)
class ShareAdded(Change):
    """A version on record is listed: it gets its first offer."""

    group: GroupId
    share: ShareId
    content: ContentId
    at_ms: int

    def apply(self, state: State) -> None:
        group = state.groups[self.group]
        name = group.names.by_id[self.share.name].text
        state.add_share(Share(group.id, self.share, name, self.content, self.at_ms))


@change(31)
class ShareDropped(Change):
    """The share has no offers left; they were dropped before. A name without any share ends."""

    group: GroupId
    share: ShareId
    content: ContentId
    at_ms: int

    def apply(self, state: State) -> None:
        group = state.groups[self.group]
        state.unlist(group, [state.remove_share(group, self.share)], self.at_ms)
        group.names.end([self.share], self.at_ms, state.undo)


@change(32)
class OfferAdded(Change):
    group: GroupId
    share: ShareId
    content: ContentId
    user: UserId
    device: DeviceKey
    at_ms: int

    def apply(self, state: State) -> None:
        share = state.groups[self.group].shares[self.share]
        state.add_offer(share, (self.user, self.device), self.at_ms)


@change(33)
class OfferDropped(Change):
    group: GroupId
    share: ShareId
    content: ContentId
    user: UserId
    device: DeviceKey

    def apply(self, state: State) -> None:
        share, holder = state.groups[self.group].shares[self.share], (self.user, self.device)
        state.drop_offer(share, holder)
        state.drop_ref(holder, share)


@change(34)
class OffersEnded(Change):
    """All offers of ``user`` in the group ended, on all devices or on ``device``.

    Shares without another offer end too. It follows `MemberGone` or `DeviceUnbound`, which update
    the swarms.
    """

    group: GroupId
    user: UserId
    at_ms: int
    device: DeviceKey | None = None

    def apply(self, state: State) -> None:
        """End them in one pass; removed one by one, each removal would shift the sorted lists."""
        undo, group = state.undo, state.groups[self.group]
        ended: set[Holder] = set()
        dropped: list[Share] = []
        for share_id, share in list(group.shares.items()):
            theirs = [
                (user, device)
                for user, device in share.offers
                if user == self.user and self.device in (None, device)
            ]
            for holder in theirs:
                state.drop_offer(share, holder)
            ended.update(theirs)
            if not share.offers:
                undo.removal(group.shares, share_id)
                del group.shares[share_id]
                dropped.append(share)
        state.unlist(group, dropped, self.at_ms)
        group.names.end([share.id for share in dropped], self.at_ms, undo)
        undo.field(group, "share_ids")
        group.share_ids = [share_id for share_id in group.share_ids if share_id in group.shares]
        state.drop_refs(group, ended)
