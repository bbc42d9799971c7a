"""The fetching end of a bulk connection (see ``peer.serving.bulk``).

Owns one DEALER that hears and says nothing but that it is there. What comes is opened and handed
on as if it had come on the connection to the source itself.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import zmq

from common import limits
from common.crypto.sealed_stream import Opener, proof
from common.errors import RemoteProtocolError
from common.messages import peer
from common.net.codec import SIGNATURE, Decoder, joined
from common.net.connection_limits import ConnectionLimiter, Line
from common.net.sockets import ConnectionEvent, Frames, Pump, TokenClient, make_socket, monitored

log = logging.getLogger(__name__)

_heads: Decoder[peer.Pieces] = Decoder(peer.Pieces)

ENDED_S = 1.0  # from its end to blaming it: the source itself may have ended
SILENT_S = 10.0  # nothing came there for so long
GIVE_UP_S = 5.0  # a port that nobody lets us reach: pieces come the other way


class BulkReceiver:
    """A bulk connection from a source.

    ``on_pieces`` is called with each message, ``on_lost`` when the connection was there and is no
    more, or brought what the source cannot have sent. One that never comes about is no loss.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        host: str,
        offer: peer.Bulk,
        *,
        connections: ConnectionLimiter,
        on_pieces: Callable[[peer.Pieces, memoryview], None],
        on_lost: Callable[[str], None],
    ) -> None:
        """Begin to connect. Raises `zmq.ZMQError`."""
        self._connections = connections
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
        self._line = Line(connections)
        self._watch = monitored(socket, self._on_link, self._line)
        self._pump = Pump(socket, self._on_message)
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()
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
                self._timer.cancel()
                name = bytes(self._pump.socket.getsockopt(zmq.ROUTING_ID))
                self._pump.send([SIGNATURE, proof(self._key, name)])
            case ConnectionEvent.DOWN | ConnectionEvent.FAILED if self._up:
                # A word lets nobody in twice. (RECONNECT_IVL of -1 is no way to say so: libzmq then
                # ends the process when this happens while descriptors are short.)
                self.close()
                self._timer = self._loop.call_later(ENDED_S, self._on_lost, "it ended")
            case _:
                pass  # pieces come the other way, and its time is soon over

    def _give_up(self) -> None:
        log.info("no way to the bulk port at %s: pieces come the slower way", self._endpoint)
        self.close()

    @property
    def is_silent(self) -> bool:
        """Whether it is up, and nothing has come for long."""
        return self._up and self._loop.time() - self._heard_at > SILENT_S

    @property
    def moved_at(self) -> float:
        """When bytes of a message last came in there."""
        return self._line.moved_at

    def _on_message(self, frames: Frames) -> None:
        self._connections.heard(frames[-1])
        self._heard_at = self._loop.time()
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
        """Close the socket. Nobody is told."""
        self._timer.cancel()
        self._watch.close()
        self._pump.close()
