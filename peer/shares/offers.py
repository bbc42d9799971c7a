"""Offers of this device at the tracker: made, withdrawn and listed."""

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
from common.names import fold_id, fold_name, split_version, versioned
from peer.tracker_client.claims import check_offered, check_version
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

BUSY_S = 1.0  # pause before a busy tracker gets the command again
TRIES = 30
R = TypeVar("R")
Report = Callable[[control.Progress], None]


class TrackerOffers:
    """The tracker's list of our offers. Every method raises the errors of `TrackerLink.request`."""

    def __init__(self, link: TrackerLink) -> None:
        self._link = link

    async def offer(
        self,
        group: GroupId,
        name: str,
        content: ContentId,
        encoded: bytes,
        report: Report,
        *,
        replace: bool = False,
        version: int = 0,
    ) -> tracker.Offered:
        """Offer a content, and send its manifest if the tracker lacks it; ``replace`` and
        ``version`` as in `tracker.Offer`.

        Raises `IntegrityError` too, if the tracker answers with another row."""
        command = tracker.Offer(group, name, content, replace, version)
        try:
            return await self._offered(command)
        except Refused as error:
            if error.code is not Code.NEED_MANIFEST:
                raise
        total, step = len(encoded), limits.MANIFEST_PART_BYTES
        for offset in range(0, total, step):
            report(control.Progress("sending the manifest", offset, total))
            put = tracker.PutManifest(content, total, offset)
            part = encoded[offset : offset + step]
            await self._request(put, tracker.Done, part)
        return await self._offered(command)

    async def _offered(self, command: tracker.Offer) -> tracker.Offered:
        reply = await self._request(command, tracker.Offered)
        check_offered(reply.row, command.name, ContentId(command.content))
        if command.version and not command.replace:
            check_version(reply.row, command.version)
        return reply

    async def _request(
        self, command: tracker.Command, answer: type[R], data: bytes | None = None
    ) -> R:
        """The reply of the tracker, which may be busy for a while.

        Why: a device that comes back with thousands of shares exceeds the tracker's limits."""
        for _ in range(TRIES):
            try:
                return await self._link.request(command, answer, data=data)
            except Refused as error:
                if error.code is not Code.BUSY:
                    raise
            await asyncio.sleep(BUSY_S)
        return await self._link.request(command, answer, data=data)

    async def find(self, group: GroupId, name: str) -> tracker.ShareFound | None:
        """The current version of ``name`` or a twin of it; None if there is none."""
        try:
            command = tracker.FindShare(group, name)
            return await self._link.request(command, tracker.ShareFound)
        except Refused as error:
            if error.code is Code.UNKNOWN_SHARE:
                return None
            raise

    async def manifest(self, group: GroupId, content: ContentId) -> bytes:
        """The encoded manifest of a content of the group. Raises `IntegrityError` too."""
        parts = bytearray()
        total = 1
        while len(parts) < total:
            answer = await self._link.manifest_part(group, content, len(parts))
            total = answer.reply.total_bytes
            if not answer.data or total > limits.MANIFEST_BYTES_MAX:
                break
            parts += answer.data
        if manifest_id(parts) != content:
            raise IntegrityError("the tracker's manifest does not hash to the content's id")
        return bytes(parts)

    async def reachable(self) -> None:
        """Raise `TransportError` if nothing can be offered now."""
        await self._link.reachable()

    async def withdraw(self, group: str, name: str, version: int) -> None:
        """Withdraw the offer of a version of ``name``; 0: of all versions."""
        await self._request(tracker.StopShare(group, name, version), tracker.Done)

    async def withdraw_for_all(self, group: str, name: str, version: int) -> None:
        """Withdraw the offers of a version of ``name`` on all devices of the group."""
        await self._request(tracker.Withdraw(group, name, version), tracker.Done)

    async def withdraw_named(self, group: GroupId, text: str) -> None:
        """Withdraw NAME, or NAME@K, on all devices of the group."""
        name, version = split_version(text)
        try:
            await self.withdraw_for_all(group, name, version)
        except Refused as error:
            if not version or error.code is not Code.UNKNOWN_SHARE:
                raise
            try:  # earlier releases allowed names with such an end
                await self.withdraw_for_all(group, text, 0)
            except Refused:
                raise error from None

    async def listed(self) -> dict[tuple[str, str, int], tracker.OfferRow]:
        """The offers that the tracker lists, by folded group, folded name and version."""

        async def page(last: tracker.OfferRow | None) -> tracker.OfferRows:
            command = tracker.MyOffers("" if last is None else _after(last))
            return await self._request(command, tracker.OfferRows)

        rows = listing(page, _reference, "offers", limits.OFFERS_PER_DEVICE_MAX)
        return {_reference(row): row async for row in rows}


def _after(row: tracker.OfferRow) -> str:
    return f"{row.group}/{versioned(row.name, row.version)}"


def _reference(row: tracker.OfferRow) -> tuple[str, str, int]:
    return fold_id(row.group), fold_name(row.name), row.version
