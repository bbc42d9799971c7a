"""Lease at the tracker: the device is online while it renews it.

Owns: the rhythm and the content of `Announce`. Not here: the heads of the logs in its replies (see
``peer.tracker_client.group_replica``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from common import limits
from common.errors import MiniTorrentError, Refused
from common.host.clock import monotonic
from common.messages import tracker
from common.messages.refusals import Code
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink, refused_with

log = logging.getLogger(__name__)

DEBOUNCE_S = 0.2  # changes are gathered that long before they are announced ahead of the rhythm


class LeaseKeeper:
    """Renewal of the lease while a user is logged in and the link is up."""

    def __init__(
        self,
        link: TrackerLink,
        replica: GroupReplica,
        where: Callable[[], Awaitable[str | None]],
        leeching: Callable[[], list[tracker.Leeching]],
        instance: bytes = b"",
        rates: Callable[[], tuple[float, float]] = lambda: (0.0, 0.0),
    ) -> None:
        """Create the keeper; ``rates`` gives the bytes of pieces a second that this device receives
        and sends."""
        self._link = link
        self._replica = replica
        self._where = where
        self._leeching = leeching
        self._instance = instance
        self._rates = rates
        self._announced = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin the rhythm."""
        self._task = asyncio.create_task(self._keep(), name="presence")

    def announce_soon(self) -> None:
        """Announce soon: the content of the announcement changed."""
        self._changed.set()

    async def announce(self) -> None:
        """Renew the lease now.

        A device without an address for others has no lease. Raises `TransportError`, `Refused`.
        """
        endpoint = await self._where()
        if endpoint is None:
            return
        received, sent = map(round, self._rates())
        command = tracker.Announce(
            endpoint, self._leeching()[:1000], self._instance, received, sent
        )
        sent_at = monotonic()
        try:
            reply = await self._link.request(command, tracker.Announced)
        except Refused as error:
            if error.code is Code.KEY_IN_USE:
                # Another machine has this key and is online: we stop acting as this device.
                self._announced = False
                self._link.reconnect()
            raise
        self._announced = True
        self._link.time.learn(reply.time_ms, sent_at, monotonic())
        self._replica.check_heads(reply.heads)
        if reply.elsewhere:
            self._link.move("it has more devices than others")

    async def depart(self) -> None:
        """Release the lease, without a guarantee that the tracker gets the message."""
        if not self._announced:
            return
        with contextlib.suppress(MiniTorrentError):
            await self._link.request(tracker.Depart(), tracker.Done, timeout_s=1.0)

    async def _keep(self) -> None:
        while True:
            if self._link.connected and self._replica.user is not None:
                try:
                    await self.announce()
                except MiniTorrentError as error:
                    log.info("the announcement failed: %s", error)
                    if refused_with(error, Code.NOT_LOGGED_IN):
                        self._replica.logged_out(error.message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), limits.RENEW_S)
                await asyncio.sleep(DEBOUNCE_S)
            self._changed.clear()

    async def close(self) -> None:
        """End the rhythm."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
