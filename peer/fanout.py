"""The fetching side: a DEALER for each source, and many requests in flight on each.

Owns the connections to other devices, shared by all downloads, and how effects of the swarm core
become messages: what is to be said on a connection is gathered for one turn of the loop, so that a
batch of arrived pieces is answered by one request with its credit. Which pieces are asked of whom
is decided by ``peer.swarm.download``; what happens to a piece is the business of its `Sink`.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, assert_never

import zmq

from common import limits
from common.codec import Decoder, pack
from common.connections import MESSAGES, Connections
from common.errors import RemoteProtocolError
from common.ids import ContentId, DeviceKey, GroupId
from common.keys import KeyPair
from common.messages import peer
from common.messages.refusals import Refusal
from common.sockets import Connect, Frames, Link, Pump, Sent, Watch, make_socket

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 8.0  # connecting, the handshake and the answer to `Open`, all together
CHANNELS_MAX = 1 << 16
FLUSH_S = 0.002
FLUSH_BYTES = 2 * 1024 * 1024
_answers: Decoder[peer.Answer] = Decoder(peer.Answer)


class Sink(Protocol):
    """One download, as its sources speak to it."""

    content: ContentId
    group: GroupId

    def opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        """The source lets us fetch; ``bitfield`` is None when it holds everything."""

    def have(self, device: DeviceKey, pieces: list[int]) -> None:
        """The source holds these pieces too."""

    def piece(self, device: DeviceKey, index: int, data: memoryview) -> None:
        """A piece came. ``data`` is the message's own memory, unchecked."""

    def declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        """The source will not send these."""

    def refused(self, device: DeviceKey, refusal: Refusal) -> None:
        """The source closed the channel."""

    def lost(self, device: DeviceKey, opened: bool) -> None:
        """The connection ended or did not come about (``opened`` false)."""

    def manifest_part(self, device: DeviceKey, total: int, offset: int, data: bytes) -> None:
        """A part of the manifest that was asked for."""


@dataclass(slots=True)
class _Channel:
    number: int
    sink: Sink
    opened: bool = False
    timer: asyncio.TimerHandle | None = None
    wishes: list[int] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)


class _Connection:
    """The DEALER to one device, and the channels on it."""

    def __init__(self, fanout: Fanout, device: DeviceKey, endpoint: str) -> None:
        self.device = device
        self.endpoint = endpoint
        self.channels: dict[int, _Channel] = {}
        self.received_bytes = 0
        self.up = False
        self._fanout = fanout
        self._credited_bytes = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._last_flush_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._next_number = 0
        socket = make_socket(
            fanout.context,
            zmq.DEALER,
            Connect(fanout.pair, device),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        try:
            self._watch = Watch(socket, self._on_link, fanout.connections)
        except zmq.ZMQError:
            socket.close(linger=0)
            raise
        self._pump = Pump(socket, self._on_message)
        socket.connect(endpoint)

    # -- connecting -----------------------------------------------------------------------------

    def _on_link(self, link: Link) -> None:
        match link:
            case Link.UP:
                self.up = True
                for channel in self.channels.values():
                    self._say_open(channel)
            case Link.DOWN | Link.FAILED if self.up:
                # A fresh socket gets a fresh name; the old one's might still be taken over there.
                self._fanout.connection_lost(self)
            case _:
                pass  # libzmq tries again until the channels' time is over

    def open(self, sink: Sink) -> None:
        """Open a channel for ``sink`` as soon as the connection is up."""
        number = self._next_number
        self._next_number = (number + 1) % CHANNELS_MAX
        channel = _Channel(number, sink)
        channel.timer = asyncio.get_running_loop().call_later(
            OPEN_TIMEOUT_S, self._open_timed_out, number
        )
        self.channels[number] = channel
        if self.up:
            self._say_open(channel)

    def _say_open(self, channel: _Channel) -> None:
        ticket = self._fanout.ticket_for(channel.sink.group)
        if ticket is None:
            return  # the timer ends it, and by the next attempt there is a ticket again
        ask = peer.Open(channel.number, channel.sink.group, channel.sink.content, ticket)
        self._pump.send(pack(b"", ask))

    def _open_timed_out(self, number: int) -> None:
        channel = self.channels.pop(number, None)
        if channel is not None:
            channel.sink.lost(self.device, False)
            self._fanout.connection_idle(self)

    def has_open(self, content: ContentId) -> bool:
        """Whether a channel for ``content`` is open here, or being opened."""
        return any(channel.sink.content == content for channel in self.channels.values())

    def channel_of(self, sink: Sink) -> _Channel | None:
        """The channel that ``sink`` has here."""
        return next((c for c in self.channels.values() if c.sink is sink), None)

    # -- saying ---------------------------------------------------------------------------------

    def request(self, sink: Sink, pieces: tuple[int, ...]) -> None:
        """Wish for pieces, with this turn's message."""
        channel = self.channel_of(sink)
        if channel is not None:
            channel.wishes.extend(pieces)
            self._flush_soon()

    def withdraw(self, sink: Sink, pieces: tuple[int, ...]) -> None:
        """Take wishes back, with this turn's message."""
        channel = self.channel_of(sink)
        if channel is not None:
            channel.withdrawn.extend(pieces)
            self._flush_soon()

    def ask_manifest(self, sink: Sink, offset: int) -> None:
        """Ask for a part of the manifest."""
        channel = self.channel_of(sink)
        if channel is not None:
            self._pump.send(pack(b"", peer.AskManifest(channel.number, offset)))

    def renew(self, group: GroupId, ticket: bytes) -> None:
        """Show a fresh ticket where an older one was shown."""
        if any(channel.sink.group == group for channel in self.channels.values()):
            self._pump.send(pack(b"", peer.Renew(group, ticket)))

    def close_channel(self, sink: Sink) -> None:
        """Close the channel of ``sink``."""
        channel = self.channel_of(sink)
        if channel is None:
            return
        del self.channels[channel.number]
        if channel.timer is not None:
            channel.timer.cancel()
        if self.up:
            self._pump.send(pack(b"", peer.Close(channel.number)))

    def _flush_soon(self) -> None:
        # On a fast link a piece comes every half millisecond. Waiting a little for the next ones
        # saves both sides most of the messages; a request that is urgent waits for nothing.
        urgent = self.received_bytes - self._credited_bytes >= FLUSH_BYTES or not self._fast
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(0.0 if urgent else FLUSH_S, self._flush)
        elif urgent and self._flush_timer.when() > self._loop.time():
            self._flush_timer.cancel()
            self._flush_timer = self._loop.call_later(0.0, self._flush)

    @property
    def _fast(self) -> bool:
        """Whether pieces come so fast that the next one is worth waiting for."""
        return self._loop.time() - self._last_flush_at < 4 * FLUSH_S

    def _flush(self) -> None:
        self._flush_timer = None
        self._last_flush_at = self._loop.time()
        most = limits.PIECES_PER_REQUEST_MAX
        for channel in self.channels.values():
            withdrawn, channel.withdrawn = channel.withdrawn, []
            for at in range(0, len(withdrawn), most):
                self._tell(peer.Withdraw(channel.number, withdrawn[at : at + most]))
            wishes, channel.wishes = channel.wishes, []
            for at in range(0, len(wishes), most):
                some = wishes[at : at + most]
                self._tell(peer.Request(channel.number, some, self.received_bytes))
                self._credited_bytes = self.received_bytes
        if self._credited_bytes < self.received_bytes:
            self._credited_bytes = self.received_bytes
            self._tell(peer.Credit(self.received_bytes))

    def _tell(self, ask: peer.Ask) -> None:
        if self._pump.send(pack(b"", ask)) is not Sent.YES and self.up:
            # A source that does not even take requests is as good as gone.
            asyncio.get_running_loop().call_soon(self._fanout.connection_lost, self)

    # -- hearing --------------------------------------------------------------------------------

    def _on_message(self, frames: Frames) -> None:
        self._fanout.connections.heard(frames[-1])
        try:
            envelope = _answers.unpack(frames)
        except RemoteProtocolError as error:
            self._fanout.counts["malformed"] += 1
            log.debug("%s sent what cannot be read: %s", self.endpoint, error)
            return
        match envelope.body:
            case peer.Piece(number, index):
                data = envelope.data
                if data is None:
                    data = memoryview(b"")
                # Credited whether it is of use or not: it took its place on the wire.
                self.received_bytes += len(data)
                self._flush_soon()
                channel = self.channels.get(number)
                if channel is not None and channel.opened:
                    channel.sink.piece(self.device, index, data)
            case peer.Have(number, pieces):
                if (channel := self._open_channel(number)) is not None:
                    channel.sink.have(self.device, pieces)
            case peer.Opened(number, complete):
                self._opened(number, None if complete else bytes(envelope.data or b""))
            case peer.Declined(number) as answer:
                if (channel := self._open_channel(number)) is not None:
                    channel.sink.declined(self.device, answer)
            case peer.Closed(number, refusal):
                self._closed(number, refusal)
            case peer.ManifestBytes(number, total, offset):
                if (channel := self._open_channel(number)) is not None:
                    channel.sink.manifest_part(
                        self.device, total, offset, bytes(envelope.data or b"")
                    )
            case Refusal() as refusal:
                log.info("%s refuses: %s", self.endpoint, refusal.message)
                for number in list(self.channels):
                    self._closed(number, refusal)
            case _:
                assert_never(envelope.body)

    def _open_channel(self, number: int) -> _Channel | None:
        channel = self.channels.get(number)
        return channel if channel is not None and channel.opened else None

    def _opened(self, number: int, bitfield: bytes | None) -> None:
        channel = self.channels.get(number)
        if channel is None or channel.opened:
            return
        channel.opened = True
        if channel.timer is not None:
            channel.timer.cancel()
            channel.timer = None
        channel.sink.opened(self.device, bitfield)

    def _closed(self, number: int, refusal: Refusal) -> None:
        channel = self.channels.pop(number, None)
        if channel is None:
            return
        if channel.timer is not None:
            channel.timer.cancel()
        channel.sink.refused(self.device, refusal)
        self._fanout.connection_idle(self)

    def close(self) -> None:
        """Close the socket. Nobody is told."""
        for channel in self.channels.values():
            if channel.timer is not None:
                channel.timer.cancel()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._watch.close()
        self._pump.close()


class Fanout:
    """All connections on which this device fetches, by the device at the other end."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        ticket_for: Callable[[GroupId], bytes | None],
    ) -> None:
        self.context = context
        self.pair = pair
        self.ticket_for = ticket_for
        self.counts: Counter[str] = Counter()
        self.connections = Connections(MESSAGES)
        self._connections: dict[DeviceKey, _Connection] = {}

    def open(self, sink: Sink, device: DeviceKey, endpoint: str) -> None:
        """Open ``sink``'s content at a device. Answered by `opened`, `refused` or `lost`."""
        connection = self._connections.get(device)
        if connection is not None and connection.endpoint != endpoint and not connection.up:
            self.connection_lost(connection)
            connection = None
        if connection is None:
            try:
                connection = _Connection(self, device, endpoint)
            except zmq.ZMQError as error:  # out of file descriptors
                log.warning("no connection can be made: %s", error)
                # In the next turn: whoever opens does not expect an answer from within.
                asyncio.get_running_loop().call_soon(sink.lost, device, False)
                return
            self._connections[device] = connection
        connection.close_channel(sink)
        if connection.has_open(sink.content):
            # Once at most on a connection, or the other download of it would wait for nothing.
            asyncio.get_running_loop().call_soon(sink.lost, device, False)
            return
        connection.open(sink)

    def request(self, sink: Sink, device: DeviceKey, pieces: tuple[int, ...]) -> None:
        """Ask a device for pieces of ``sink``'s content."""
        if (connection := self._connections.get(device)) is not None:
            connection.request(sink, pieces)

    def withdraw(self, sink: Sink, device: DeviceKey, pieces: tuple[int, ...]) -> None:
        """These came from elsewhere."""
        if (connection := self._connections.get(device)) is not None:
            connection.withdraw(sink, pieces)

    def ask_manifest(self, sink: Sink, device: DeviceKey, offset: int) -> None:
        """Ask a device for a part of the manifest."""
        if (connection := self._connections.get(device)) is not None:
            connection.ask_manifest(sink, offset)

    def close(self, sink: Sink, device: DeviceKey) -> None:
        """``sink`` wants nothing more of this device."""
        if (connection := self._connections.get(device)) is not None:
            connection.close_channel(sink)
            self.connection_idle(connection)

    def close_all(self, sink: Sink) -> None:
        """``sink`` wants nothing more of anybody."""
        for device in list(self._connections):
            self.close(sink, device)

    def renewed(self, group: GroupId, ticket: bytes) -> None:
        """A fresh ticket came: show it on all connections that live by an older one."""
        for connection in self._connections.values():
            if connection.up:
                connection.renew(group, ticket)

    def connection_lost(self, connection: _Connection) -> None:
        """A connection ended: its channels are told, and the next `open` makes a new one."""
        if self._connections.get(connection.device) is not connection:
            return
        del self._connections[connection.device]
        connection.close()
        channels, connection.channels = list(connection.channels.values()), {}
        for channel in channels:
            channel.sink.lost(connection.device, channel.opened)

    def connection_idle(self, connection: _Connection) -> None:
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
