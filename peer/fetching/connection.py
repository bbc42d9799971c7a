"""Connection to one source: the DEALER to another device, and the channels on it.

Owns: messages to and from the source, acknowledgements, and the budget for unsolicited bytes, such
as pieces on channels that are not open. Requests and acknowledgements are collected for one turn of
the loop or longer (see ``peer.swarm.fetching.flush``), so that one message answers a batch of
pieces. Not here: the set of connections (see ``peer.fetching.pool``); received pieces (see
``peer.downloads.transfer``).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from math import inf
from typing import Protocol, assert_never

import zmq

from common import limits
from common.errors import RemoteProtocolError
from common.ids import ContentId, DeviceKey, GroupId
from common.link import host_of
from common.messages import peer
from common.messages.base import Refusal
from common.names import quoted
from common.net.codec import Decoder, pack
from common.net.connection_limits import TrackedConnection
from common.net.monitor import ConnectionEvent, monitored
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import Connect, make_socket
from peer.fetching.bulk import BulkReceiver, BulkSource
from peer.fetching.channel import Channel
from peer.fetching.connection_config import ConnectionConfig
from peer.fetching.unsolicited import UnsolicitedBudget
from peer.native.fetcher import StoredRun
from peer.swarm.fetching.flush import FlushDelay

log = logging.getLogger(__name__)

CHANNELS_MAX = 1 << 16
_answers: Decoder[peer.Answer] = Decoder(
    peer.Answer,
    data_frames=limits.DATA_FRAMES_MAX,
    data_with=(peer.Piece, peer.Opened, peer.ManifestBytes),
    request_ids=False,
)


class PoolCallbacks(Protocol):
    """The pool, as far as a connection uses it."""

    def ticket_for(self, group: GroupId) -> bytes | None:
        """Return the current ticket for ``group``, if there is one."""

    def wants_bulk(self, connection: SourceConnection) -> bool:
        """Whether the source may send pieces on a bulk connection."""

    def opens_aegis(self) -> bool:
        """Whether messages on bulk connections may be sealed with AEGIS-128L."""

    def bulk_receiver(self, source: BulkSource) -> BulkReceiver:
        """Start a bulk connection. Raises `zmq.ZMQError` or `OSError`."""

    def avoid_bulk(self, connection: SourceConnection) -> None:
        """Accept no bulk connection of this source for a while."""

    def on_misbehaviour(self, connection: SourceConnection, reason: str) -> None:
        """Close the connection and start the backoff of its source."""

    def on_closed(self, connection: SourceConnection) -> None:
        """The connection ended: close it, and report that to its channels."""

    def on_idle(self, connection: SourceConnection) -> None:
        """The last channel was closed."""


class SourceConnection:
    """The DEALER to one device, and the channels on it. Implements `ChannelConnection`."""

    def __init__(
        self, config: ConnectionConfig, pool: PoolCallbacks, device: DeviceKey, endpoint: str
    ) -> None:
        """Start to connect. Raises `zmq.ZMQError`."""
        self.device = device
        self.endpoint = endpoint
        self.channels: dict[int, Channel] = {}
        self.received_bytes = 0
        self.up = False
        self._config = config
        self._pool = pool
        exceeded = partial(pool.on_misbehaviour, self, "too many unsolicited bytes")
        self._unsolicited = UnsolicitedBudget(exceeded)
        self._refusal_logged = False
        self._acked_bytes = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._flush_delay = FlushDelay()
        self._loop = asyncio.get_running_loop()
        self._next_number = 0
        self._bulk: BulkReceiver | None = None
        self._bulk_requested = False
        socket = make_socket(
            config.context,
            zmq.DEALER,
            Connect(config.pair, device),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self._line = TrackedConnection(config.limiter)
        self._monitor = monitored(socket, self._on_link, self._line)
        self._pump = Pump(socket, self._on_message)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    # -- connecting -----------------------------------------------------------------------------

    def _on_link(self, link: ConnectionEvent) -> None:
        self._config.counts[f"link {link.value}"] += 1
        match link:
            case ConnectionEvent.UP:
                self.up = True
                for channel in self.channels.values():
                    self._send_open(channel)
            case ConnectionEvent.DOWN | ConnectionEvent.FAILED if self.up:
                # A new socket gets a new routing id; the old id might be reused by another there.
                self._pool.on_closed(self)
            case _:
                pass  # libzmq tries again until the channels time out

    def open(self, channel: Channel, timeout_s: float) -> None:
        """Open a channel as soon as the connection is up.

        It is lost if the source has not answered after ``timeout_s``.
        """
        channel.number = self._next_number
        self._next_number = (channel.number + 1) % CHANNELS_MAX
        channel.connection = self
        channel.timer = self._loop.call_later(timeout_s, self._open_timed_out, channel)
        self.channels[channel.number] = channel
        if self.up:
            self._send_open(channel)

    def _send_open(self, channel: Channel) -> None:
        ticket = self._pool.ticket_for(channel.group)
        if ticket is None:
            return  # the channel times out; until the next attempt there will be a ticket
        bulk = self._pool.wants_bulk(self)
        self._bulk_requested = self._bulk_requested or bulk
        aegis = bulk and self._pool.opens_aegis()
        message = peer.Open(
            channel.number, channel.group, channel.content, ticket, bulk, True, aegis
        )
        self._pump.send(pack(b"", message))

    def _open_timed_out(self, channel: Channel) -> None:
        self._release(channel)
        self._credit_cancelled(channel)
        channel.handler.on_lost(self.device, False)
        self._check_idle()

    def has(self, content: ContentId) -> bool:
        """Whether a channel for ``content`` is open here, or being opened."""
        return any(channel.content == content for channel in self.channels.values())

    def _release(self, channel: Channel) -> None:
        """Remove a channel; it ignores all calls from now on."""
        del self.channels[channel.number]
        if self._bulk is not None:
            self._bulk.close_channel(channel.number)
        channel.connection = None
        channel.stop_timer()

    def _check_idle(self) -> None:
        if not self.channels:
            self._pool.on_idle(self)

    # -- sending --------------------------------------------------------------------------------

    def renew(self, group: GroupId, ticket: bytes) -> None:
        """Show a fresh ticket if an older one was shown."""
        if any(channel.group == group for channel in self.channels.values()):
            self._pump.send(pack(b"", peer.Renew(group, ticket)))

    def close_channel(self, channel: Channel) -> None:
        """Close a channel and report that to the source."""
        self._release(channel)
        self._credit_cancelled(channel)
        if self.up:
            self._pump.send(pack(b"", peer.Close(channel.number)))
        self._check_idle()

    def reconnect(self, channel: Channel) -> None:
        """Close a channel, and the connection with all other channels on it."""
        self._config.counts["silent"] += 1
        log.info("source %s is silent: reconnecting", self.endpoint)
        self._suspect_bulk(channel)
        self._release(channel)
        self._pool.on_closed(self)

    def flush_soon(self) -> None:
        """Send the requests and cancellations of all channels with the next message."""
        now = self._loop.time()
        due = now + self._flush_delay.delay_s(self.received_bytes - self._acked_bytes, now)
        if self._flush_timer is not None:
            if self._flush_timer.when() <= due:
                return
            self._flush_timer.cancel()
        self._flush_timer = self._loop.call_at(due, self._flush)

    def _flush(self) -> None:
        self._flush_timer = None
        self._flush_delay.flushed(self._loop.time())
        for channel in self.channels.values():
            cancelled, channel.cancelled = channel.cancelled, []
            if cancelled and self._bulk is not None:
                self._bulk.forget(channel.number, cancelled)
            for some in peer.piece_lists(cancelled):
                self.send(peer.Withdraw(channel.number, some))
            pending, channel.pending = channel.pending, []
            channel.pieces_due += len(pending)
            if pending and self._bulk is not None:
                self._bulk.expect(channel.number, channel.handler.target(), pending)
            for some in peer.piece_lists(pending):
                self.send(peer.Request(channel.number, some, self.received_bytes))
                self._acked_bytes = self.received_bytes
        if self._acked_bytes < self.received_bytes:
            self._acked_bytes = self.received_bytes
            self.send(peer.Credit(self.received_bytes))

    def send(self, message: peer.ClientMessage) -> None:
        """Send a message at once."""
        if self._pump.send(pack(b"", message)) is not Sent.YES and self.up:
            # A source that does not accept requests is treated as disconnected.
            self._loop.call_soon(self._pool.on_closed, self)

    # -- receiving ------------------------------------------------------------------------------

    def _on_message(self, frames: Frames) -> None:
        self._config.limiter.on_message(frames[-1])
        try:
            envelope = _answers.unpack(frames)
        except RemoteProtocolError as error:
            self._config.counts["malformed"] += 1
            log.debug("malformed message from %s: %s", self.endpoint, error)
            self._unsolicited.charge(sum(map(len, frames)))
            return
        data = memoryview(b"") if envelope.data is None else envelope.data
        match envelope.body:
            case peer.Piece(number, index):
                self._on_pieces(peer.Pieces(number, index, 1), data)
            case peer.Have(number, pieces):
                if (channel := self._open_channel(number, data)) is not None:
                    channel.handler.on_have(self.device, pieces)
            case peer.OnItsWay(number, pieces):
                if (channel := self._open_channel(number, data)) is not None:
                    channel.handler.on_its_way(self.device, pieces)
            case peer.Opened(number, complete):
                self._on_opened(number, complete, data)
            case peer.Declined(number) as answer:
                if (channel := self._open_channel(number, data)) is not None:
                    channel.handler.on_declined(self.device, answer)
            case peer.Closed(number, refusal):
                self._on_channel_closed(number, refusal)
            case peer.ManifestBytes(number, total, offset):
                self._on_manifest_part(number, total, offset, data)
            case peer.Bulk():
                self._on_bulk_offer(envelope.body)
            case Refusal() as refusal:
                self._on_refusal(refusal)
            case _:
                assert_never(envelope.body)

    def _on_pieces(self, run: peer.Pieces, data: memoryview) -> None:
        # Acknowledged even if unsolicited: the bytes have left the path to us.
        self.received_bytes += len(data)
        self.flush_soon()
        if (channel := self._open_channel(run.channel, data)) is not None:
            channel.pieces_due = max(0, channel.pieces_due - run.count)
            channel.handler.on_pieces(self.device, run.first, run.count, data)

    def _on_stored(self, number: int, runs: list[StoredRun]) -> None:
        """Pieces arrived on the bulk connection, which were requested, and are stored already."""
        self.received_bytes += sum(run.size for run in runs)
        self.flush_soon()
        channel = self.channels.get(number)
        if channel is not None:  # else it was closed meanwhile
            channel.pieces_due = max(0, channel.pieces_due - sum(run.count for run in runs))
            channel.handler.on_stored_runs(self.device, runs)

    def _open_channel(self, number: int, data: memoryview) -> Channel | None:
        channel = self.channels.get(number)
        if channel is not None and channel.opened:
            return channel
        self._on_unsolicited(len(data))
        return None

    def _on_opened(self, number: int, complete: bool, data: memoryview) -> None:
        channel = self.channels.get(number)
        if channel is None or channel.opened:
            self._on_unsolicited(len(data))
            return
        channel.opened = True
        channel.stop_timer()
        channel.handler.on_opened(self.device, None if complete else bytes(data))

    def _on_manifest_part(self, number: int, total: int, offset: int, data: memoryview) -> None:
        channel = self._open_channel(number, data)
        if channel is None:
            return
        if not channel.parts_due:
            self._on_unsolicited(len(data))
            return
        channel.parts_due -= 1
        channel.handler.on_manifest_part(self.device, total, offset, bytes(data))

    def _on_refusal(self, refusal: Refusal) -> None:
        if not self.channels:
            self._on_unsolicited(0)
            return
        # Once: a source could fill our log with refusals of any number and length.
        level = logging.DEBUG if self._refusal_logged else logging.INFO
        self._refusal_logged = True
        log.log(level, "%s refuses: %s", self.endpoint, quoted(refusal.message))
        for number in list(self.channels):
            self._on_channel_closed(number, refusal)

    def _on_channel_closed(self, number: int, refusal: Refusal) -> None:
        channel = self.channels.get(number)
        if channel is None:
            self._on_unsolicited(0)
            return
        self._release(channel)
        if self._bulk is not None:
            self._credit_cancelled(channel)  # this may have overtaken pieces that were sent there
        channel.handler.on_refused(self.device, refusal)
        self._check_idle()

    # -- the bulk connection --------------------------------------------------------------------

    def _on_bulk_offer(self, offer: peer.Bulk) -> None:
        if not self._bulk_requested:
            self._on_unsolicited(0)
            return
        self._bulk_requested = False
        if self._bulk is not None:
            self._bulk.close()  # the source has forgotten us, and the pieces that were sent there
        try:
            source = BulkSource(
                host_of(self.endpoint), offer, self._on_pieces, self._on_stored, self._on_bulk_lost
            )
            self._bulk = self._pool.bulk_receiver(source)
        except (zmq.ZMQError, OSError) as error:
            log.debug("no bulk connection can be made: %s", error)

    def _on_bulk_lost(self, reason: str) -> None:
        # Pieces that were sent there will never arrive: start again, on a new connection.
        log.info("bulk connection to %s failed: %s", self.endpoint, reason)
        self._pool.avoid_bulk(self)
        self._pool.on_closed(self)

    @property
    def moved_at(self) -> float:
        """Time at which bytes last arrived from the source, on either connection."""
        bulk_at = -inf if self._bulk is None else self._bulk.moved_at
        return max(self._line.moved_at, bulk_at)

    def _suspect_bulk(self, channel: Channel) -> None:
        """Avoid bulk connections if a channel is given up while the bulk connection is silent.

        Why: an attacker on the path may pass heartbeats and drop everything else.
        """
        if channel.pieces_due and self._bulk is not None and self._bulk.is_silent:
            self._pool.avoid_bulk(self)

    # -- unsolicited bytes ----------------------------------------------------------------------

    def _credit_cancelled(self, channel: Channel) -> None:
        """Add the bytes due on a closed channel to the budget: an honest source may send them."""
        self._suspect_bulk(channel)
        self._unsolicited.credit(channel.bytes_due)

    def _on_unsolicited(self, size: int) -> None:
        """Count a message for a channel that is not open, or without a request."""
        self._config.counts["unsolicited"] += 1
        self._unsolicited.charge(size)

    def close(self) -> list[Channel]:
        """Close the socket and all channels, without callbacks; return the channels."""
        closed = list(self.channels.values())
        for channel in closed:
            self._release(channel)
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if self._bulk is not None:
            self._bulk.close()
        self._monitor.close()
        self._pump.close()
        return closed
