"""Bulk receiver: the fetching end of a bulk connection (see ``peer.serving.bulk``).

Owns: one DEALER that sends its proof and nothing else, and the opening of sealed pieces. They are
handed on as if they had arrived on the encrypted connection to the source.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq

from common import limits
from common.crypto.sealed_stream import Opener, proof
from common.errors import RemoteProtocolError
from common.messages import peer
from common.net.codec import SIGNATURE, Decoder, joined
from common.net.connection_limits import ConnectionLimiter, TrackedConnection
from common.net.monitor import ConnectionEvent, monitored
from common.net.pump import Frames, Pump
from common.net.sockets import TokenClient, make_socket

log = logging.getLogger(__name__)

_heads: Decoder[peer.Pieces] = Decoder(peer.Pieces)

ENDED_S = 1.0  # from the end of the connection to the report: the source itself may have ended
SILENT_S = 10.0  # without a message, the connection counts as silent
GIVE_UP_S = 5.0  # for a port that cannot be reached: pieces use the encrypted connection


class BulkReceiver:
    """A bulk connection from a source.

    ``on_pieces`` is called with each message. ``on_lost`` is called with the reason when the
    connection was up and ended, or brought a message that the source cannot have sent. A connection
    that is never made is no loss.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        host: str,
        offer: peer.Bulk,
        *,
        limiter: ConnectionLimiter,
        counts: Counter[str],
        on_pieces: Callable[[peer.Pieces, memoryview], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """Start to connect. Raises `zmq.ZMQError`."""
        self._limiter = limiter
        self._counts = counts
        self._on_pieces = on_pieces
        self._on_lost = on_lost
        self._key = offer.key
        self._opener = Opener(offer.key)
        self._up = False
        socket = make_socket(
            context,
            zmq.DEALER,
            TokenClient(offer.word.hex().encode()),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self._line = TrackedConnection(limiter)
        self._monitor = monitored(socket, self._on_link, self._line)
        self._pump = Pump(socket, self._on_message)
        self._loop = asyncio.get_running_loop()
        self._received_at = self._loop.time()
        self._timer = self._loop.call_later(GIVE_UP_S, self._give_up)
        self._endpoint = f"tcp://{host}:{offer.port}"
        try:
            socket.connect(self._endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def _on_link(self, link: ConnectionEvent) -> None:
        match link:
            case ConnectionEvent.UP:
                self._up = True
                self._counts["bulk up"] += 1
                self._timer.cancel()
                name = bytes(self._pump.socket.getsockopt(zmq.ROUTING_ID))
                self._pump.send([SIGNATURE, proof(self._key, name)])
            case ConnectionEvent.DOWN | ConnectionEvent.FAILED if self._up:
                # A one-time token is valid once: libzmq must not connect again. (RECONNECT_IVL of
                # -1 does not help: libzmq then aborts the process if descriptors are short.)
                self.close()
                self._timer = self._loop.call_later(ENDED_S, self._on_lost, "it ended")
            case _:
                pass  # pieces use the encrypted connection, and `_give_up` comes soon

    def _give_up(self) -> None:
        self._counts["bulk unreachable"] += 1
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

    def _on_message(self, frames: Frames) -> None:
        self._limiter.on_message(frames[-1])
        self._received_at = self._loop.time()
        try:
            if len(frames) < 4 or frames[0].bytes != SIGNATURE:
                raise RemoteProtocolError("a message of another form")
            sealed = joined(frames[3:])
            head, data = self._opener.open(frames[1].bytes, frames[2].buffer, sealed)
            pieces = _heads.decode(head)
        except RemoteProtocolError as error:
            self._on_lost(error.message)
            return
        self._on_pieces(pieces, memoryview(data))

    def close(self) -> None:
        """Close the socket, without callbacks."""
        self._timer.cancel()
        self._monitor.close()
        self._pump.close()
