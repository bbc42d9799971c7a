"""End of shares whose time is over, as their user set it by `upload-file --expires`.

The record of a share holds its end, by this device's clock. At that time the share is served no
longer, and withdrawn for the whole group if its user may do that; otherwise this device's offer
ends. Invariant: the record goes only after the tracker has agreed, so a share that ends while the
device or the tracker is away ends when both are back, and is not served in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from common import names
from common.host.clock import wall_ms
from peer.records import ShareRecord
from peer.shares.agreement import OfferAgreement
from peer.shares.share_records import ShareRecords

log = logging.getLogger(__name__)

REVIEW_S = 30.0  # between two reviews: the clock may be set, and the tracker come back


def is_over(record: ShareRecord) -> bool:
    """Whether the time of a share is over."""
    return 0 < record.expires_ms <= wall_ms()


class ShareExpiry:
    """Ends the shares of the current user in time."""

    def __init__(
        self,
        records: ShareRecords,
        agreement: OfferAgreement,
        notify: Callable[[str], None],
    ) -> None:
        self._records = records
        self._agreement = agreement
        self._notify = notify
        self._changed = asyncio.Event()

    def review_soon(self) -> None:
        """Review the records: a share got an end, or its user logged in."""
        self._changed.set()

    async def watch(self) -> None:
        """End shares in time, until this is cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.end_due()
            except Exception:
                log.exception("shares whose time is over could not be ended")
            try:
                await asyncio.wait_for(self._changed.wait(), self._pause_s())
            except TimeoutError:
                continue

    def _pause_s(self) -> float:
        now = wall_ms()
        ends = [record.expires_ms for record in self._mine() if record.expires_ms > now]
        return min([REVIEW_S, *((end - now) / 1000 for end in ends)])

    def _mine(self) -> list[ShareRecord]:
        user = self._agreement.user
        return [] if user is None else [record for _, record in self._records.of_user(user)]

    async def end_due(self) -> None:
        """End the shares of the current user whose time is over."""
        for record in self._mine():
            if is_over(record) and await self._agreement.end_for_all(record):
                shown = names.printable(record.name)
                self._notify(f"{shown} in {record.group} has expired, and is no longer shared")
