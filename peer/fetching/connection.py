"""One connection to a source: the DEALER to another device, and the channels on it.

Owns what is said and heard there. What is to be said is gathered for one turn of the loop, so that
a batch of arrived pieces is answered by one request with its credit. Of what a source sends that
makes no sense, such as pieces on channels that are not open, only as much is borne as may honestly
have been on its way. Which connections there are is ``peer.fetching.pool``'s business, what happens
to a piece that of its `Sink`.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, assert_never

import zmq

from common import limits
from common.errors import RemoteProtocolError
from common.ids import ContentId, DeviceKey, GroupId
from common.link import host_of
from common.messages import peer
from common.messages.refusals import Refusal
from common.names import quoted
from common.net.codec import Decoder, pack
from common.net.connection_limits import Line
from common.net.sockets import Connect, ConnectionEvent, Frames, Pump, Sent, make_socket, monitored
from peer.fetching.bulk import BulkReceiver
from peer.fetching.channel import STRAY_BYTES_MIN, Channel, ChannelHandler

if TYPE_CHECKING:
    from peer.fetching.pool import ConnectionPool

log = logging.getLogger(__name__)

CHANNELS_MAX = 1 << 16
FLUSH_S = 0.002
FLUSH_BYTES = 2 * limits.MIB
STRAY_BYTES = 1 * limits.MIB  # without any excuse: sources may have their faults
STRAY_BYTES_MAX = 2 * limits.ON_ITS_WAY_MAX  # with one: twice what a source may have sent
_answers: Decoder[peer.Answer] = Decoder(
    peer.Answer,
    data_frames=limits.DATA_FRAMES_MAX,
    data_with=(peer.Piece, peer.Opened, peer.ManifestBytes),
    request_ids=False,
)


class SourceConnection:
    """The DEALER to one device, and the channels on it."""

    def __init__(self, pool: ConnectionPool, device: DeviceKey, endpoint: str) -> None:
        self.device = device
        self.endpoint = endpoint
        self.channels: dict[int, Channel] = {}
        self.received_bytes = 0
        self.up = False
        self._pool = pool
        self._stray_bytes_left = STRAY_BYTES
        self._refusal_logged = False
        self._credited_bytes = 0
        self._flush_timer: asyncio.TimerHandle | None = None
        self._last_flush_at = 0.0
        self._loop = asyncio.get_running_loop()
        self._next_number = 0
        self._bulk: BulkReceiver | None = None
        self._bulk_asked = False
        socket = make_socket(
            pool.context,
            zmq.DEALER,
            Connect(pool.pair, device),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self._line = Line(pool.connections)
        self._watch = monitored(socket, self._on_link, self._line)
        self._pump = Pump(socket, self._on_message)
        try:
            socket.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    # -- connecting -----------------------------------------------------------------------------

    def _on_link(self, link: ConnectionEvent) -> None:
        match link:
            case ConnectionEvent.UP:
                self.up = True
                for channel in self.channels.values():
                    self._say_open(channel)
            case ConnectionEvent.DOWN | ConnectionEvent.FAILED if self.up:
                # A fresh socket gets a fresh name; the old one's might still be taken over there.
                self._pool.connection_lost(self)
            case _:
                pass  # libzmq tries again until the channels' time is over

    def open(self, handler: ChannelHandler, timeout_s: float) -> None:
        """Open a channel for ``handler`` as soon as the connection is up.

        The sink is told `lost` if the source has not answered after ``timeout_s``.
        """
        number = self._next_number
        self._next_number = (number + 1) % CHANNELS_MAX
        channel = Channel(number, handler)
        channel.timer = self._loop.call_later(timeout_s, self._open_timed_out, number)
        self.channels[number] = channel
        if self.up:
            self._say_open(channel)

    def _say_open(self, channel: Channel) -> None:
        ticket = self._pool.ticket_for(channel.handler.group)
        if ticket is None:
            return  # the timer ends it, and by the next attempt there is a ticket again
        handler, bulk = channel.handler, self._pool.wants_bulk(self)
        self._bulk_asked = self._bulk_asked or bulk
        ask = peer.Open(channel.number, handler.group, handler.content, ticket, bulk)
        self._pump.send(pack(b"", ask))

    def _open_timed_out(self, number: int) -> None:
        channel = self.channels.pop(number, None)
        if channel is not None:
            self._excuse(channel)
            channel.handler.lost(self.device, False)
            self._pool.connection_idle(self)

    def has_open(self, content: ContentId) -> bool:
        """Whether a channel for ``content`` is open here, or being opened."""
        return any(channel.handler.content == content for channel in self.channels.values())

    def channel_of(self, handler: ChannelHandler) -> Channel | None:
        """The channel that ``handler`` has here."""
        return next((c for c in self.channels.values() if c.handler is handler), None)

    # -- saying ---------------------------------------------------------------------------------

    def request(self, handler: ChannelHandler, pieces: tuple[int, ...]) -> None:
        """Wish for pieces, with this turn's message."""
        channel = self.channel_of(handler)
        if channel is not None:
            channel.pending.extend(pieces)
            self._flush_soon()

    def withdraw(self, handler: ChannelHandler, pieces: tuple[int, ...]) -> None:
        """Take wishes back, with this turn's message."""
        channel = self.channel_of(handler)
        if channel is not None:
            # A wish that was not said yet is taken back here, or it would be said after.
            unsaid = set(channel.pending).intersection(pieces)
            channel.pending = [index for index in channel.pending if index not in unsaid]
            channel.withdrawn.extend(index for index in pieces if index not in unsaid)
            self._flush_soon()

    def ask_manifest(self, handler: ChannelHandler, offset: int) -> None:
        """Ask for a part of the manifest."""
        channel = self.channel_of(handler)
        if channel is not None:
            channel.parts_due += 1
            self._pump.send(pack(b"", peer.AskManifest(channel.number, offset)))

    def renew(self, group: GroupId, ticket: bytes) -> None:
        """Show a fresh ticket where an older one was shown."""
        if any(channel.handler.group == group for channel in self.channels.values()):
            self._pump.send(pack(b"", peer.Renew(group, ticket)))

    def close_channel(self, handler: ChannelHandler) -> None:
        """Close the channel of ``handler``."""
        channel = self.channel_of(handler)
        if channel is None:
            return
        del self.channels[channel.number]
        self._excuse(channel)
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
            pending, channel.pending = channel.pending, []
            channel.pieces_due += len(pending)
            for at in range(0, len(pending), most):
                some = pending[at : at + most]
                self._tell(peer.Request(channel.number, some, self.received_bytes))
                self._credited_bytes = self.received_bytes
        if self._credited_bytes < self.received_bytes:
            self._credited_bytes = self.received_bytes
            self._tell(peer.Credit(self.received_bytes))

    def _tell(self, ask: peer.Ask) -> None:
        if self._pump.send(pack(b"", ask)) is not Sent.YES and self.up:
            # A source that does not even take requests is as good as gone.
            asyncio.get_running_loop().call_soon(self._pool.connection_lost, self)

    # -- hearing --------------------------------------------------------------------------------

    def _on_message(self, frames: Frames) -> None:
        self._pool.connections.heard(frames[-1])
        try:
            envelope = _answers.unpack(frames)
        except RemoteProtocolError as error:
            self._pool.counts["malformed"] += 1
            log.debug("%s sent what cannot be read: %s", self.endpoint, error)
            self._bear(sum(map(len, frames)))
            return
        data = memoryview(b"") if envelope.data is None else envelope.data
        match envelope.body:
            case peer.Piece(number, index):
                self._pieces(peer.Pieces(number, index, 1), data)
            case peer.Have(number, pieces):
                if (channel := self._open_channel(number, data)) is not None:
                    channel.handler.have(self.device, pieces)
            case peer.Opened(number, complete):
                self._opened(number, complete, data)
            case peer.Declined(number) as answer:
                if (channel := self._open_channel(number, data)) is not None:
                    channel.handler.declined(self.device, answer)
            case peer.Closed(number, refusal):
                self._closed(number, refusal)
            case peer.ManifestBytes(number, total, offset):
                self._manifest_part(number, total, offset, data)
            case peer.Bulk():
                self._bulk_offered(envelope.body)
            case Refusal() as refusal:
                self._refused(refusal)
            case _:
                assert_never(envelope.body)

    def _pieces(self, run: peer.Pieces, data: memoryview) -> None:
        # Credited whether it is of use or not: it took its place on the wire.
        self.received_bytes += len(data)
        self._flush_soon()
        if (channel := self._open_channel(run.channel, data)) is not None:
            channel.pieces_due = max(0, channel.pieces_due - run.count)
            channel.handler.on_pieces(self.device, run.first, run.count, data)

    def _open_channel(self, number: int, data: memoryview) -> Channel | None:
        channel = self.channels.get(number)
        if channel is not None and channel.opened:
            return channel
        self._stray(len(data))
        return None

    def _opened(self, number: int, complete: bool, data: memoryview) -> None:
        channel = self.channels.get(number)
        if channel is None or channel.opened:
            self._stray(len(data))
            return
        channel.opened = True
        if channel.timer is not None:
            channel.timer.cancel()
            channel.timer = None
        channel.handler.opened(self.device, None if complete else bytes(data))

    def _manifest_part(self, number: int, total: int, offset: int, data: memoryview) -> None:
        channel = self._open_channel(number, data)
        if channel is None:
            return
        if not channel.parts_due:
            self._stray(len(data))
            return
        channel.parts_due -= 1
        channel.handler.manifest_part(self.device, total, offset, bytes(data))

    def _refused(self, refusal: Refusal) -> None:
        if not self.channels:
            self._stray(0)
            return
        # A source may say it as often as it likes, and at any length: our log is not its to fill.
        level = logging.DEBUG if self._refusal_logged else logging.INFO
        self._refusal_logged = True
        log.log(level, "%s refuses: %s", self.endpoint, quoted(refusal.message))
        for number in list(self.channels):
            self._closed(number, refusal)

    def _closed(self, number: int, refusal: Refusal) -> None:
        channel = self.channels.pop(number, None)
        if channel is None:
            self._stray(0)
            return
        if channel.timer is not None:
            channel.timer.cancel()
        if self._bulk is not None:
            self._excuse(channel)  # this may have come past pieces that are on their way there
        channel.handler.refused(self.device, refusal)
        self._pool.connection_idle(self)

    # -- the bulk connection --------------------------------------------------------------------

    def _bulk_offered(self, offer: peer.Bulk) -> None:
        if not self._bulk_asked:
            self._stray(0)
            return
        self._bulk_asked = False
        if self._bulk is not None:
            self._bulk.close()  # the source had forgotten us, and what was on its way there with us
        try:
            self._bulk = BulkReceiver(
                self._pool.context,
                host_of(self.endpoint),
                offer,
                connections=self._pool.connections,
                on_pieces=self._pieces,
                on_lost=self._bulk_lost,
            )
        except zmq.ZMQError as error:
            log.debug("no bulk connection can be made: %s", error)

    def _bulk_lost(self, why: str) -> None:
        log.info("the bulk connection to %s is given up: %s", self.endpoint, why)
        self._pool.bulk_failed(self)

    @property
    def moved_at(self) -> float:
        """When bytes of a message last came in from the source, on either connection."""
        bulk_at = -inf if self._bulk is None else self._bulk.moved_at
        return max(self._line.moved_at, bulk_at)

    # -- what makes no sense --------------------------------------------------------------------

    def _excuse(self, channel: Channel) -> None:
        """We gave ``channel`` up: what is on its way there is no fault of the source's."""
        self.doubt_bulk(channel)
        self._stray_bytes_left = min(STRAY_BYTES_MAX, self._stray_bytes_left + channel.bytes_due)

    def doubt_bulk(self, channel: Channel) -> None:
        """``channel`` is given up. If pieces are due and nothing came on the bulk connection, there
        may be somebody on the way who lets signs of life through and nothing else."""
        if channel.pieces_due and self._bulk is not None and self._bulk.is_silent:
            self._pool.avoid_bulk(self.device)

    def _stray(self, size: int) -> None:
        """Something came that belongs to no open channel, or that nobody asked for there."""
        self._pool.counts["stray"] += 1
        self._bear(size)

    def _bear(self, size: int) -> None:
        """Put up with ``size`` bytes that make no sense, or with the source no more."""
        self._stray_bytes_left -= max(size, STRAY_BYTES_MIN)
        if self._stray_bytes_left < 0:
            self._pool.drop(self, "it sends what nobody asked for")

    def close(self) -> None:
        """Close the socket. Nobody is told."""
        for channel in self.channels.values():
            if channel.timer is not None:
                channel.timer.cancel()
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        if self._bulk is not None:
            self._bulk.close()
        self._watch.close()
        self._pump.close()
