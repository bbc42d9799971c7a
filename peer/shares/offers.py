"""What is said to the tracker about this device's shares: offering, withdrawing, comparing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from common import limits
from common.errors import IntegrityError, Refused
from common.ids import ContentId, GroupId
from common.manifest import manifest_id
from common.messages import control, tracker
from common.messages.refusals import Code
from common.names import fold_id, fold_name
from peer.tracker_client.claims import check_offered
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

BUSY_S = 1.0  # how soon a tracker that takes no more commands for now is asked again
PATIENCE = 30
R = TypeVar("R")
Tell = Callable[[control.Progress], None]


class Catalogue:
    """The tracker's list of what we offer. Every method raises what `TrackerLink.ask` does."""

    def __init__(self, link: TrackerLink) -> None:
        self._link = link

    async def offer(
        self, group: GroupId, name: str, content: ContentId, encoded: bytes, tell: Tell
    ) -> tracker.Offered:
        """Offer a content, with its manifest where the tracker has not got it. Raises
        `IntegrityError` as well, when the tracker answers with another row."""
        ask = tracker.Offer(group, name, content)
        try:
            return await self._offered(ask)
        except Refused as error:
            if error.code is not Code.NEED_MANIFEST:
                raise
        total, step = len(encoded), limits.MANIFEST_PART_BYTES
        for offset in range(0, total, step):
            tell(control.Progress("sending the manifest", offset, total))
            put = tracker.PutManifest(content, total, offset)
            part = encoded[offset : offset + step]
            await self._ask(put, tracker.Done, part)
        return await self._offered(ask)

    async def _offered(self, ask: tracker.Offer) -> tracker.Offered:
        reply = await self._ask(ask, tracker.Offered)
        check_offered(reply.row, ask.name, ContentId(ask.content))
        return reply

    async def _ask(self, ask: tracker.Command, answer: type[R], data: bytes | None = None) -> R:
        """The answer of the tracker. A device that comes back with thousands of shares asks more
        than the tracker takes at once: it waits until it does."""
        for _ in range(PATIENCE):
            try:
                return (await self._link.ask(ask, answer, data=data)).reply
            except Refused as error:
                if error.code is not Code.BUSY:
                    raise
            await asyncio.sleep(BUSY_S)
        return (await self._link.ask(ask, answer, data=data)).reply

    async def find(self, group: GroupId, name: str) -> tracker.ShareFound | None:
        """What the group shares under ``name`` or a twin of it; None if nothing."""
        try:
            return (await self._link.ask(tracker.FindShare(group, name), tracker.ShareFound)).reply
        except Refused as error:
            if error.code is Code.UNKNOWN_SHARE:
                return None
            raise

    async def manifest(self, group: GroupId, content: ContentId) -> bytes:
        """The encoded manifest of a content that the group shares. Raises `IntegrityError` too."""
        parts = bytearray()
        total = 1
        while len(parts) < total:
            ask = tracker.GetManifest(group, content, len(parts))
            answer = await self._link.ask(ask, tracker.ManifestPart)
            total = answer.reply.total_bytes
            if not answer.data or total > limits.MANIFEST_BYTES_MAX:
                break
            parts += answer.data
        if manifest_id(parts) != content:
            raise IntegrityError("the tracker's manifest does not hash to the content's id")
        return bytes(parts)

    async def reachable(self) -> None:
        """Raise `TransportError` when nothing can be offered just now."""
        await self._link.reachable()

    async def withdraw(self, group: str, name: str) -> None:
        """Offer ``name`` no more."""
        await self._ask(tracker.StopShare(group, name), tracker.Done)

    async def listed(self) -> dict[tuple[str, str], tracker.OfferRow]:
        """What the tracker believes that we offer, by folded group and name."""

        async def page(last: tracker.OfferRow | None) -> tracker.OfferRows:
            ask = tracker.MyOffers("" if last is None else f"{last.group}/{last.name}")
            return await self._ask(ask, tracker.OfferRows)

        rows = listing(page, _place, "offers", limits.OFFERS_PER_DEVICE_MAX)
        return {_place(row): row async for row in rows}


def _place(row: tracker.OfferRow) -> tuple[str, str]:
    return fold_id(row.group), fold_name(row.name)
