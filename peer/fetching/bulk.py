"""Bulk receiver: the fetching end of a bulk connection (see ``peer.serving.bulk``).

Owns: one DEALER that sends its proof and nothing else, and the opening of sealed pieces. They are
handed on as if they had arrived on the encrypted connection to the source.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import zmq

from common import limits
from common.crypto.sealed_stream import Opener, proof
from common.errors import RemoteProtocolError
from common.messages import peer
from common.net.codec import SIGNATURE, Decoder, joined
from common.net.connection_limits import TrackedConnection
from common.net.monitor import ConnectionEvent, monitored
from common.net.pump import Frames, Pump
from common.net.sockets import TokenClient, make_socket
from peer.fetching.connection_config import ConnectionConfig
from peer.native.fetcher import StoredRun, Target

log = logging.getLogger(__name__)

_heads: Decoder[peer.Pieces] = Decoder(peer.Pieces)

ENDED_S = 1.0  # from the end of the connection to the report: the source itself may have ended
SILENT_S = 10.0  # without a message, the connection counts as silent
REACH_S = 5.0  # for a port that cannot be reached: pieces use the encrypted connection


@dataclass(frozen=True, slots=True)
class BulkSource:
    """The source of a bulk connection, and the callbacks for it.

    ``on_pieces`` is called with each message, ``on_stored`` instead with pieces that are stored
    already, and their channel. ``on_lost`` is called with the reason when the connection was up and
    ended, or brought a message that the source cannot have sent. A connection that is never made is
    no loss.
    """

    host: str
    offer: peer.Bulk
    on_pieces: Callable[[peer.Pieces, memoryview], None]
    on_stored: Callable[[int, list[StoredRun]], None]
    on_lost: Callable[[str], None]


class BulkReceiver:
    """A bulk connection from a source. Python receives and opens its messages."""

    def __init__(self, config: ConnectionConfig, source: BulkSource) -> None:
        """Start to connect. Raises `zmq.ZMQError`."""
        self._config = config
        self._source = source
        self._up = False
        self._socket = socket = make_socket(
            config.context,
            zmq.DEALER,
            TokenClient(source.offer.word.hex().encode()),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self._line = TrackedConnection(config.limiter)
        self._monitor = monitored(socket, self._on_link, self._line)
        self._listen(socket)
        self._loop = asyncio.get_running_loop()
        self._received_at = self._loop.time()
        self._timer = self._loop.call_later(REACH_S, self._time_out)
        self._endpoint = f"tcp://{source.host}:{source.offer.port}"
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def _listen(self, socket: zmq.Socket[Any]) -> None:
        """Receive from the socket."""
        self._opener = Opener(self._source.offer.key, by_aegis=self._source.offer.aegis)
        self._pump = Pump(socket, self._on_message)

    def _on_up(self, proof: list[bytes]) -> None:
        """The connection is up: send the proof of its key."""
        self._pump.send(proof)

    def expect(self, channel: int, target: Target | None, pieces: Sequence[int]) -> None:
        """Have requested pieces of a channel stored in ``target``, if that is possible here."""

    def forget(self, channel: int, pieces: Sequence[int]) -> None:
        """Have cancelled pieces of a channel handed on, if they arrive."""

    def close_channel(self, channel: int) -> None:
        """Have all pieces of a channel handed on, if they arrive."""

    def _on_link(self, link: ConnectionEvent) -> None:
        match link:
            case ConnectionEvent.UP:
                self._up = True
                self._config.counts["bulk up"] += 1
                self._timer.cancel()
                name = bytes(self._socket.getsockopt(zmq.ROUTING_ID))
                self._on_up([SIGNATURE, proof(self._source.offer.key, name)])
            case ConnectionEvent.DOWN | ConnectionEvent.FAILED if self._up:
                # A one-time token is valid once: libzmq must not connect again. (RECONNECT_IVL of
                # -1 does not help: libzmq then aborts the process if descriptors are short.)
                self.close()
                on_lost = self._source.on_lost
                self._timer = self._loop.call_later(ENDED_S, on_lost, "it ended")
            case _:
                pass  # pieces use the encrypted connection, and `_time_out` comes soon

    def _time_out(self) -> None:
        self._config.counts["bulk unreachable"] += 1
        log.info("bulk port %s unreachable: pieces use the encrypted connection", self._endpoint)
        self.close()

    @property
    def is_silent(self) -> bool:
        """Whether it is up, and no message arrived for `SILENT_S`."""
        return self._up and self._loop.time() - self._received_at > SILENT_S

    @property
    def moved_at(self) -> float:
        """Time at which bytes of a message last arrived."""
        return self._line.moved_at

    def _on_received(self, source_fd: int) -> None:
        self._config.limiter.on_message_from(source_fd)
        self._received_at = self._loop.time()

    def _on_message(self, frames: Frames) -> None:
        self._on_received(int(frames[-1].get(zmq.SRCFD)))
        try:
            if len(frames) < 4 or frames[0].bytes != SIGNATURE:
                raise RemoteProtocolError("a message of another form")
            sealed = joined(frames[3:])
            head, data = self._opener.open(frames[1].bytes, frames[2].buffer, sealed)
        except RemoteProtocolError as error:
            self._source.on_lost(error.message)
            return
        self._on_opened(head, memoryview(data))

    def _on_opened(self, head: bytes, data: memoryview) -> None:
        """Hand on an opened message, whose head is still to be judged."""
        try:
            pieces = _heads.decode(head)
        except RemoteProtocolError as error:
            self._source.on_lost(error.message)
            return
        self._source.on_pieces(pieces, data)

    def close(self) -> None:
        """Close the socket, without callbacks."""
        self._timer.cancel()
        self._close_socket()

    def _close_socket(self) -> None:
        self._monitor.close()
        self._pump.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._socket.closed
