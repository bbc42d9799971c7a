"""Server socket: the ROUTER on which fetching devices connect, and bulk connections beside it.

Owns: the listening address, the encoding of messages, and the replies to malformed ones. Not here:
the answers to requests (see ``peer.serving.server``).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.digests import Buffer
from common.errors import CannotListen, RemoteProtocolError
from common.ids import DeviceKey
from common.messages import peer
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import zap
from common.net.codec import SIGNATURE, Decoder, VersionMismatch, cut, encode, pack
from common.net.connection_limits import MESSAGES, ConnectionLimiter
from common.net.monitor import ConnectionEvent, SocketMonitor
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import Serve, bind, make_socket, sender
from peer.serving.bulk import BulkSender
from peer.swarm.serving.events import RequesterId

log = logging.getLogger(__name__)

DOMAIN = "pieces"
# Pieces wait in the serving machine, where they can be cancelled, and not in the socket.
SEND_QUEUE = 64
_asks: Decoder[peer.ClientMessage] = Decoder(peer.ClientMessage, data_frames=0, request_ids=False)


class ServerSocket:
    """The ROUTER of the piece server.

    ``on_message`` is called with the connection, its device and the message.
    The message is None if it was malformed and is answered already.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        listen: str | None,
        *,
        guard: zap.ZapHandler,
        is_known: Callable[[DeviceKey], bool],
        on_message: Callable[[RequesterId, DeviceKey, peer.ClientMessage | None], None],
        counts: Counter[str],
        bulk_port: int | None,
    ) -> None:
        """Listen at ``listen``, or nowhere before `move`, and for bulk connections at ``bulk_port``
        (see `BulkSender`). Only devices that ``is_known`` accepts are admitted. Raises
        `CannotListen`.
        """
        self.endpoint = ""
        self._deliver = on_message
        self._counts = counts
        guard.guard(
            DOMAIN,
            lambda key, _: zap.Admission.ADMIT if is_known(key) else zap.Admission.RETRY,
        )
        socket = make_socket(
            context,
            zmq.ROUTER,
            Serve(pair, DOMAIN),
            message_bytes_max=limits.COMMAND_BYTES_MAX,
            send_queue=SEND_QUEUE,
        )
        self._limiter = ConnectionLimiter(MESSAGES)
        self._monitor = SocketMonitor(socket, self._on_link, self._limiter)
        self.bulk = BulkSender(
            context,
            bulk_port,
            guard=guard,
            limiter=self._limiter,
            on_link=self._on_link,
            send_queue=SEND_QUEUE,
        )
        self._pump = Pump(socket, self._on_message)
        try:
            if listen is not None:
                self.move(listen)
        except Exception:
            self.close()
            raise

    def move(self, listen: str) -> None:
        """Listen at ``listen`` instead of the former address; existing connections stay.

        Raises `CannotListen`, and keeps the former address then.
        """
        bound = bind(self._pump.socket, listen)
        try:
            self.bulk.move(bound)
        except CannotListen:
            self._pump.socket.unbind(bound)
            raise
        if self.endpoint:
            self._pump.socket.unbind(self.endpoint)
        self.endpoint = bound

    def close(self) -> None:
        """Close the sockets."""
        self._monitor.close()
        self._limiter.close()
        self._pump.close()
        self.bulk.close()

    def _on_link(self, link: ConnectionEvent) -> None:
        self._counts[f"link {link.value}"] += 1

    def _on_message(self, frames: Frames) -> None:
        self._limiter.on_message(frames[-1])
        source = sender(frames)
        if source is None:
            self._counts["unnamed"] += 1
            return
        requester = RequesterId(source.routing_id)
        self._deliver(requester, source.device, self._decode(requester, source.device, frames[1:]))

    def _decode(
        self, requester: RequesterId, device: DeviceKey, frames: Frames
    ) -> peer.ClientMessage | None:
        try:
            return _asks.unpack(frames).body
        except VersionMismatch as error:
            refusal = Refusal(Code.VERSION, error.message, error.hint)
            self._pump.send([requester, *pack(error.request_id, refusal)])
        except RemoteProtocolError as error:
            self._counts["malformed"] += 1
            log.debug("malformed message from %s: %s", device.hex()[:16], error)
            self.send(requester, Refusal(Code.MALFORMED, "malformed message"))
        return None

    def send(self, requester: RequesterId, answer: peer.Answer, data: Buffer | None = None) -> Sent:
        """Send a message."""
        return self._pump.send([requester, *pack(b"", answer, data)])

    def send_piece(
        self, requester: RequesterId, channel: int, index: int, data: memoryview, frame_bytes: int
    ) -> Sent:
        """Send one piece, in frames of ``frame_bytes``."""
        head = encode(peer.Piece(channel, index))
        frames = [requester, SIGNATURE, b"", head, *cut(data, frame_bytes)]
        return self._pump.send(frames, copy=False)
