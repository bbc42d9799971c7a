"""Reachability test: whether a device answers at the address that it announced.

Owns: the connections that the tracker opens itself, and their budget. Not here: the choice of the
endpoint: always the one that the asking device announced (see tracker.core.announcements).

Why the limits: a tracker that connects where a user says is a scanner of its network. So a user
gets a few tests a minute. Only a complete handshake with the key of the asking device counts. A
failure is reported after the same time whatever its reason, so an open port, a closed one and an
address without a machine look alike.
"""

from __future__ import annotations

import asyncio
from typing import Any

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.errors import Refused
from common.host.clock import monotonic
from common.messages.refusals import Code
from common.net.monitor import ConnectionEvent, monitored
from common.net.pump import Pump
from common.net.sockets import Connect, make_socket
from common.token_bucket import KeyedTokenBuckets, Rate
from tracker.core.context import ProbeDevice


class Prober:
    """Connects to devices with the tracker's own key, to test whether they can be reached."""

    def __init__(self, context: zmq.Context[Any], pair: KeyPair) -> None:
        self._context = context
        self._pair = pair
        self._budget = KeyedTokenBuckets(Rate(limits.PROBE_BURST, limits.PROBE_RATE))
        self._under_way = 0

    async def probe(self, order: ProbeDevice) -> bool:
        """Whether the device answers. Raise `Refused` beyond the budget."""
        if self._under_way >= limits.PROBES_MAX:
            raise Refused(Code.BUSY, "too many devices are being tested", "try again in a minute")
        if not self._budget.take(order.user, monotonic()):
            wait_s = self._budget.wait_s(order.user, monotonic())
            hint = f"try again in {max(1, round(wait_s))} s"
            raise Refused(Code.SLOW_DOWN, "too many reachability tests", hint)
        self._under_way += 1
        try:
            return await self._answers(order)
        finally:
            self._under_way -= 1

    async def _answers(self, order: ProbeDevice) -> bool:
        up = asyncio.Event()

        def on_link(link: ConnectionEvent) -> None:
            if link is ConnectionEvent.UP:
                up.set()

        role = Connect(self._pair, order.device)
        socket = make_socket(self._context, zmq.DEALER, role, message_bytes_max=limits.KIB)
        watch = monitored(socket, on_link)
        pump = Pump(socket, lambda _: None)
        try:
            socket.connect(order.endpoint)
            await asyncio.wait_for(up.wait(), limits.PROBE_S)
        except (TimeoutError, zmq.ZMQError):
            return False
        finally:
            watch.close()
            pump.close()
        return True
