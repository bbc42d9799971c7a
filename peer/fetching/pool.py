"""The fetching side: the connections to all sources, shared by all downloads.

Owns which connections there are, when one is made and when it ends, and whom none is made to. What
is said on one is ``peer.fetching.connection``'s. Which pieces are asked of whom is decided by
``peer.swarm.fetching.machine``.
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
from common.ids import DeviceKey, GroupId
from common.link import check_source
from common.net.connection_limits import MESSAGES, ConnectionLimiter
from peer.fetching.backoff import PeerBackoff
from peer.fetching.channel import ChannelHandler
from peer.fetching.connection import SourceConnection

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 8.0  # connecting, the handshake and the answer to `Open`, all together
NO_BULK_S = 600.0  # something between us and there may bear only what it can read
# What says that it is us who cannot connect to anybody just now.
_OUR_FAULT = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, zmq.ETERM}


class ConnectionPool:
    """All connections on which this device fetches, by the device at the other end."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        ticket_for: Callable[[GroupId], bytes | None],
        *,
        bulk: bool = False,
    ) -> None:
        self.context = context
        self.pair = pair
        self.ticket_for = ticket_for
        self.counts: Counter[str] = Counter()
        self.connections = ConnectionLimiter(MESSAGES)
        self._connections: dict[DeviceKey, SourceConnection] = {}
        self._backoff = PeerBackoff()
        self._bulk = bulk and aes_is_fast()
        self._no_bulk_until: dict[DeviceKey, float] = {}

    def open(self, handler: ChannelHandler, device: DeviceKey, endpoint: str) -> None:
        """Open ``handler``'s content at a device. Answered by `opened`, `refused` or `lost`."""
        connection = self._connection_to(device, endpoint)
        if connection is not None:
            connection.close_channel(handler)
            # Once at most on a connection, or the other download of it would wait for nothing.
            if not connection.has_open(handler.content):
                connection.open(handler, OPEN_TIMEOUT_S)
                return
        # In the next turn: whoever opens does not expect an answer from within.
        asyncio.get_running_loop().call_soon(handler.lost, device, False)

    def _connection_to(self, device: DeviceKey, endpoint: str) -> SourceConnection | None:
        """The connection to ``device``, made if there is none; None when none can be made."""
        connection = self._connections.get(device)
        if connection is not None and connection.endpoint != endpoint and not connection.up:
            self.connection_lost(connection)
            connection = None
        if connection is not None:
            return connection
        if self._backoff.holds(device, monotonic()):
            return None
        try:
            # Whoever lists it: a name would be resolved while all other connections wait.
            connection = SourceConnection(self, device, check_source(endpoint))
        except ConfigError as error:
            log.debug("no connection is made: %s", error)
            return None
        except zmq.ZMQError as error:
            if error.errno in _OUR_FAULT:
                log.warning("no connection can be made: %s", error)
            else:
                self._shun(device, f"no connection to {endpoint} can be made: {error}")
            return None
        self._connections[device] = connection
        return connection

    def _shun(self, device: DeviceKey, why: str) -> None:
        wait_s = self._backoff.add(device, monotonic())
        log.warning("%s is left alone for %.0f s: %s", device.hex()[:16], wait_s, why)

    def drop(self, connection: SourceConnection, why: str) -> None:
        """End a connection for what its source did, and make none to it for a while."""
        if self._connections.get(connection.device) is connection:
            self._shun(connection.device, why)
            self.connection_lost(connection)

    def wants_bulk(self, connection: SourceConnection) -> bool:
        """Whether pieces may come from there on a bulk connection."""
        return (
            self._bulk
            and connection.endpoint.startswith("tcp://")
            and self._no_bulk_until.get(connection.device, 0.0) <= monotonic()
        )

    def avoid_bulk(self, device: DeviceKey) -> None:
        """Have pieces from there come with everything else, for a while."""
        self.counts["bulk failed"] += 1
        now = monotonic()
        self._no_bulk_until = {d: at for d, at in self._no_bulk_until.items() if at > now}
        self._no_bulk_until[device] = now + NO_BULK_S

    def bulk_failed(self, connection: SourceConnection) -> None:
        """A bulk connection came about and did not last. What was on its way on it will never
        come, so the whole connection begins anew, without."""
        self.avoid_bulk(connection.device)
        self.connection_lost(connection)

    def request(self, handler: ChannelHandler, device: DeviceKey, pieces: tuple[int, ...]) -> None:
        """Ask a device for pieces of ``handler``'s content."""
        if (connection := self._connections.get(device)) is not None:
            connection.request(handler, pieces)

    def withdraw(self, handler: ChannelHandler, device: DeviceKey, pieces: tuple[int, ...]) -> None:
        """These came from elsewhere."""
        if (connection := self._connections.get(device)) is not None:
            connection.withdraw(handler, pieces)

    def ask_manifest(self, handler: ChannelHandler, device: DeviceKey, offset: int) -> None:
        """Ask a device for a part of the manifest."""
        if (connection := self._connections.get(device)) is not None:
            connection.ask_manifest(handler, offset)

    def close(self, handler: ChannelHandler, device: DeviceKey) -> None:
        """``handler`` wants nothing more of this device."""
        if (connection := self._connections.get(device)) is not None:
            connection.close_channel(handler)
            self.connection_idle(connection)

    def begin_anew(self, handler: ChannelHandler, device: DeviceKey) -> None:
        """A device owes ``handler`` something and is silent: drop the whole
        connection, on which something may have been lost. The next `open` makes another."""
        connection = self._connections.get(device)
        channel = None if connection is None else connection.channel_of(handler)
        if connection is None or channel is None:
            return
        self.counts["silent"] += 1
        log.info("%s is silent: its connection is made anew", connection.endpoint)
        connection.doubt_bulk(channel)
        del connection.channels[channel.number]
        if channel.timer is not None:
            channel.timer.cancel()
        self.connection_lost(connection)

    def moved_at(self, device: DeviceKey) -> float | None:
        """When bytes of a message last came in from a device; None without a connection."""
        connection = self._connections.get(device)
        return None if connection is None else connection.moved_at

    def close_all(self, handler: ChannelHandler) -> None:
        """``handler`` wants nothing more of anybody."""
        for device in list(self._connections):
            self.close(handler, device)

    def renewed(self, group: GroupId, ticket: bytes) -> None:
        """A fresh ticket came: show it on all connections that live by an older one."""
        for connection in self._connections.values():
            if connection.up:
                connection.renew(group, ticket)

    def connection_lost(self, connection: SourceConnection) -> None:
        """A connection ended: its channels are told, and the next `open` makes a new one."""
        if self._connections.get(connection.device) is not connection:
            return
        del self._connections[connection.device]
        connection.close()
        channels, connection.channels = list(connection.channels.values()), {}
        for channel in channels:
            channel.handler.lost(connection.device, channel.opened)

    def connection_idle(self, connection: SourceConnection) -> None:
        """Close a connection on which nothing is open any more, after the messages under way."""
        if connection.channels:
            return

        def close_if_idle() -> None:
            known = self._connections.get(connection.device) is connection
            if known and not connection.channels:
                del self._connections[connection.device]
                connection.close()

        # A moment's grace: LINGER is 0, and a closing message just handed over would be lost.
        asyncio.get_running_loop().call_later(0.5, close_if_idle)

    def shut(self) -> None:
        """Close everything at once."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        self.connections.close()
