"""Tickets of this device: fetched from the tracker, one for each group, and renewed in time.

Owns: the current ticket of each group and its renewal. Not here: validation of the tickets that
other devices show (see ``peer.serving.access``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from common import limits
from common.errors import MiniTorrentError, Refused
from common.host.clock import TrackerTime, monotonic
from common.ids import GroupId
from common.messages import tracker
from common.messages.refusals import Code
from common.names import fold_id
from peer.tracker_client.link import TrackerLink

log = logging.getLogger(__name__)


class TicketWallet:
    """Tickets of this device, one for each group.

    Each is renewed at a random time in the second half of its life. ``on_renewed`` is called with
    the group and the fresh ticket, which must be shown on open connections.
    """

    RETRY_S = 5.0

    def __init__(
        self,
        link: TrackerLink,
        time: TrackerTime,
        on_renewed: Callable[[GroupId, bytes], None],
        rng: random.Random,
    ) -> None:
        self._link = link
        self._time = time
        self._on_renewed = on_renewed
        self._rng = rng
        self._held: dict[GroupId, tuple[bytes, int]] = {}
        self._wanted: set[GroupId] = set()
        self._missing: set[GroupId] = set()  # wanted and held, but missing in the last reply
        self._renewal: asyncio.Task[None] | None = None

    def current(self, group: GroupId) -> bytes | None:
        """Return the ticket for ``group``, or None if there is no valid one."""
        token, expires_ms = self._held.get(group, (b"", 0))
        return token if expires_ms > self._time.now_ms() else None

    @property
    def first_expiry_ms(self) -> int | None:
        """Tracker's time at which the first ticket in use ends; None without tickets."""
        ends = [until for group, (_, until) in self._held.items() if group in self._wanted]
        return min(ends, default=None)

    async def want(self, group: GroupId) -> bytes:
        """Return a ticket for ``group`` and renew it from now on, while the tracker issues one.

        Raises `Refused` if the tracker issues none, and the errors of `TrackerLink.request`.
        """
        self._wanted.add(group)
        token = self.current(group)
        if token is None:
            await self._fetch([group])
            token = self.current(group)
        if token is None:
            raise Refused(Code.UNKNOWN_GROUP, f"there is no group {group}, or it is not yours")
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(), name="tickets")
        return token

    def drop(self, group: GroupId) -> None:
        """Forget the ticket of ``group`` and stop renewing it."""
        self._wanted.discard(group)
        self._held.pop(group, None)
        self._missing.discard(group)

    def clear(self) -> None:
        """Forget all tickets: the user logged out or changed."""
        self._wanted.clear()
        self._held.clear()
        self._missing.clear()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    async def _fetch(self, groups: list[GroupId]) -> None:
        sent_at = monotonic()
        try:
            command = tracker.GetTickets(list(groups))
            reply = await self._link.request(command, tracker.Tickets)
        except Refused as error:
            if error.code is Code.UNKNOWN_GROUP:  # the user is in none of them
                self._not_given(groups)
            raise
        # Their expiry is by the tracker's clock, which may have been set since the last reply.
        self._time.learn(reply.time_ms, sent_at, monotonic())
        # Invariant: a ticket is renewed within the longest life, even if its row says more.
        latest_ms = reply.time_ms + limits.TICKET_LIFE_S * 1000
        given = {GroupId(fold_id(row.group)): row for row in reply.rows}
        for group, row in given.items():
            if group in self._wanted:  # it may have been dropped meanwhile
                self._held[group] = (row.token, min(row.expires_ms, latest_ms))
                self._missing.discard(group)
                self._on_renewed(group, row.token)
        self._not_given([group for group in groups if group not in given])

    def _not_given(self, groups: Sequence[GroupId]) -> None:
        """Handle groups for which the tracker issued no ticket.

        Another tracker of several may have accepted the user, and this one may lag behind. So it
        is asked once more when the ticket held expires; only then the group is dropped.
        """
        for group in groups:
            if self.current(group) is None:
                self.drop(group)
            else:
                self._missing.add(group)

    def _due_in_s(self) -> float:
        """Return the seconds until the first ticket is due for renewal.

        That is between a half and nine tenths of its life, so that many devices do not ask at once.
        """
        spare_s = limits.TICKET_LIFE_S * self._rng.uniform(0.1, 0.5)
        due_s = [
            (expires_ms - self._time.now_ms()) / 1000 - (0.0 if group in self._missing else spare_s)
            for group, (_, expires_ms) in self._held.items()
            if group in self._wanted
        ]
        return max(0.0, min(due_s, default=0.0))

    async def _renew(self) -> None:
        while self._wanted:
            await asyncio.sleep(self._due_in_s())
            try:
                await self._fetch(sorted(self._wanted))
            except MiniTorrentError as error:
                log.info("tickets could not be renewed: %s", error)
            await asyncio.sleep(self.RETRY_S)
