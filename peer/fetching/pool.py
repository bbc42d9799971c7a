"""Connection pool for fetching: one encrypted connection to each source, for all downloads.

Owns: when a connection is made and closed, and the sources to which none is made for a while. Not
here: the messages on a connection (see ``peer.fetching.connection``); the choice of the pieces to
request (see ``peer.swarm.fetching.machine``).
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq

from common.crypto.keys import KeyPair
from common.crypto.sealed_stream import aes_is_fast
from common.errors import ConfigError
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId
from common.link import check_source
from common.net.connection_limits import MESSAGES, ConnectionLimiter
from peer.fetching.backoff import PeerBackoff
from peer.fetching.bulk import BulkReceiver, BulkSource
from peer.fetching.channel import Channel, ChannelHandler
from peer.fetching.compiled_bulk import CompiledBulkReceiver
from peer.fetching.connection import SourceConnection
from peer.fetching.connection_config import ConnectionConfig
from peer.native.fetcher import Fetcher, start

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 8.0  # connecting, the handshake and the answer to `Open`, all together
NO_BULK_S = 600.0  # a firewall on the way may pass only traffic that it can read
IDLE_S = 0.5  # LINGER is 0: a `Close` that was just sent would be lost if the socket closed now
# Errors of this device, not of the source: no connection can be made at the moment.
_LOCAL_ERRORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, zmq.ETERM}


class ConnectionPool:
    """All connections on which this device fetches, by source. Implements `PoolCallbacks`."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        ticket_for: Callable[[GroupId], bytes | None],
        *,
        bulk: bool = False,
    ) -> None:
        self.pair = pair
        self.counts: Counter[str] = Counter()
        self._ticket_for = ticket_for
        self._limiter = ConnectionLimiter(MESSAGES)
        self._config = ConnectionConfig(context, pair, self._limiter, self.counts)
        self._connections: dict[DeviceKey, SourceConnection] = {}
        self._backoff = PeerBackoff()
        self._bulk = bulk and aes_is_fast()
        self._fetcher: Fetcher | None = None
        self._fetcher_tried = False
        self._no_bulk_until: dict[DeviceKey, float] = {}

    def open(
        self,
        device: DeviceKey,
        endpoint: str,
        content: ContentId,
        group: GroupId,
        handler: ChannelHandler,
    ) -> Channel:
        """Open ``content`` at a device. The result is `on_opened`, `on_refused` or `on_lost`."""
        channel = Channel(device, content, group, handler)
        connection = self._connection_to(device, endpoint)
        if connection is not None and not connection.has(content):
            connection.open(channel, OPEN_TIMEOUT_S)
        else:
            # Why once on a connection: the source would close the channel of the other download
            # without a message. In the next turn: the caller has no handle yet.
            channel.timer = asyncio.get_running_loop().call_soon(handler.on_lost, device, False)
        return channel

    def _connection_to(self, device: DeviceKey, endpoint: str) -> SourceConnection | None:
        """Return the connection to ``device``, new or not; None if none can be made."""
        connection = self._connections.get(device)
        if connection is not None and connection.endpoint != endpoint and not connection.up:
            self.on_closed(connection)
            connection = None
        if connection is not None:
            return connection
        if self._backoff.holds(device, monotonic()):
            return None
        try:
            # No host name, even if the tracker lists one: resolving it would block all connections.
            endpoint = check_source(endpoint)
            connection = SourceConnection(self._config, self, device, endpoint)
        except ConfigError as error:
            log.debug("no connection is made: %s", error)
            return None
        except zmq.ZMQError as error:
            if error.errno in _LOCAL_ERRORS:
                log.warning("no connection can be made: %s", error)
            else:
                self._back_off(device, f"no connection to {endpoint} can be made: {error}")
            return None
        self._connections[device] = connection
        return connection

    def _back_off(self, device: DeviceKey, reason: str) -> None:
        wait_s = self._backoff.add(device, monotonic())
        log.warning("backoff of %.0f s for %s: %s", wait_s, device.hex()[:16], reason)

    def renewed(self, group: GroupId, ticket: bytes) -> None:
        """Show a fresh ticket on all connections that were opened with an older one."""
        for connection in self._connections.values():
            if connection.up:
                connection.renew(group, ticket)

    def close(self) -> None:
        """Close all connections at once, without callbacks."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        if self._fetcher is not None:
            self._fetcher.close()
        self._limiter.close()

    # -- callbacks of connections ---------------------------------------------------------------

    def ticket_for(self, group: GroupId) -> bytes | None:
        """Return the current ticket for ``group``, if there is one."""
        return self._ticket_for(group)

    def wants_bulk(self, connection: SourceConnection) -> bool:
        """Whether the source may send pieces on a bulk connection."""
        return (
            self._bulk
            and connection.endpoint.startswith("tcp://")
            and self._no_bulk_until.get(connection.device, 0.0) <= monotonic()
        )

    def opens_aegis(self) -> bool:
        """Whether messages on bulk connections may be sealed with AEGIS-128L.

        Why only on the compiled data path: the AES of Python's libraries is as quick.
        """
        if not self._fetcher_tried:
            self._fetcher_tried = True
            self._fetcher = start()
        return self._fetcher is not None

    def bulk_receiver(self, source: BulkSource) -> BulkReceiver:
        """Start a bulk connection, on the compiled data path if that opens its messages.

        Raises `zmq.ZMQError` or `OSError`.
        """
        if self._fetcher is None or self._fetcher.stuck or not source.offer.aegis:
            return BulkReceiver(self._config, source)
        return CompiledBulkReceiver(self._config, source, self._fetcher)

    def avoid_bulk(self, connection: SourceConnection) -> None:
        """Accept no bulk connection of the source for `NO_BULK_S`."""
        self.counts["bulk failed"] += 1
        now = monotonic()
        self._no_bulk_until = {d: at for d, at in self._no_bulk_until.items() if at > now}
        self._no_bulk_until[connection.device] = now + NO_BULK_S

    def on_misbehaviour(self, connection: SourceConnection, reason: str) -> None:
        """Close a connection for a fault of its source, and start the backoff of the source."""
        if self._connections.get(connection.device) is connection:
            self._back_off(connection.device, reason)
            self.on_closed(connection)

    def on_closed(self, connection: SourceConnection) -> None:
        """Remove a connection that ended. Its channels are lost; the next `open` makes another."""
        if self._connections.get(connection.device) is not connection:
            return
        del self._connections[connection.device]
        for channel in connection.close():
            channel.handler.on_lost(connection.device, channel.opened)

    def on_idle(self, connection: SourceConnection) -> None:
        """Close a connection without channels, after `IDLE_S`."""

        def close_if_idle() -> None:
            known = self._connections.get(connection.device) is connection
            if known and not connection.channels:
                del self._connections[connection.device]
                connection.close()

        asyncio.get_running_loop().call_later(IDLE_S, close_if_idle)
