"""What is said to the tracker about this device's shares: offering, withdrawing, comparing."""

from __future__ import annotations

from collections.abc import Callable

from common import limits
from common.errors import Refused
from common.ids import ContentId, GroupId
from common.messages import control, tracker
from common.messages.refusals import Code
from common.names import fold_id, fold_name
from peer.tracker_link import TrackerLink

Tell = Callable[[control.Progress], None]


class Catalogue:
    """The tracker's list of what we offer. Every method raises what `TrackerLink.ask` does."""

    def __init__(self, link: TrackerLink) -> None:
        self._link = link

    async def offer(
        self, group: GroupId, name: str, content: ContentId, encoded: bytes, tell: Tell
    ) -> tracker.Offered:
        """Offer a content, with its manifest where the tracker has not got it."""
        ask = tracker.Offer(group, name, content)
        try:
            return (await self._link.ask(ask, tracker.Offered)).reply
        except Refused as error:
            if error.code is not Code.NEED_MANIFEST:
                raise
        total, step = len(encoded), limits.MANIFEST_PART_BYTES
        for offset in range(0, total, step):
            tell(control.Progress("sending the manifest", offset, total))
            put = tracker.PutManifest(content, total, offset)
            part = encoded[offset : offset + step]
            await self._link.ask(put, tracker.Done, data=part)
        return (await self._link.ask(ask, tracker.Offered)).reply

    async def reachable(self) -> None:
        """Raise `TransportError` when nothing can be offered just now."""
        await self._link.reachable()

    async def withdraw(self, group: str, name: str) -> None:
        """Offer ``name`` no more."""
        await self._link.ask(tracker.StopShare(group, name), tracker.Done)

    async def listed(self) -> dict[tuple[str, str], tracker.OfferRow]:
        """What the tracker believes that we offer, by folded group and name."""
        rows: dict[tuple[str, str], tracker.OfferRow] = {}
        after = ""
        while True:
            page = (await self._link.ask(tracker.MyOffers(after), tracker.OfferRows)).reply
            for row in page.rows:
                rows[(fold_id(row.group), fold_name(row.name))] = row
            if not page.more or not page.rows:
                return rows
            after = f"{page.rows[-1].group}/{page.rows[-1].name}"
