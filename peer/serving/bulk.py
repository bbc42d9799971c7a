"""The serving end of bulk connections: a way out for pieces that goes past ZeroMQ's cipher.

CURVE costs more than all else that happens to a piece. So a device that has opened something here
may make a second connection, which ZeroMQ does not encrypt: what goes there is sealed with AES, for
which processors have instructions (docs/decisions/bulk-connections.md). Owns that ROUTER, the words
by which one gets in, each once, and the keys. Word and key are told over the encrypted connection
to somebody who has shown the right to fetch there, and end with it. Whether a bulk connection comes
about or not, every piece can go the other way too.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import zmq

from common import limits
from common.crypto.sealed_stream import (
    KEY_BYTES,
    ScratchBuffer,
    Sealer,
    aes_is_fast,
    new_key,
    proof,
)
from common.digests import Buffer
from common.errors import CannotListen
from common.messages import peer
from common.net import zap
from common.net.codec import SIGNATURE, cut, encode
from common.net.connection_limits import ConnectionLimiter
from common.net.sockets import (
    ConnectionEvent,
    Frames,
    Pump,
    Sent,
    SocketMonitor,
    TokenServer,
    bind,
    make_socket,
    user_id,
)
from peer.addresses import beside
from peer.swarm.serving.events import RequesterId

log = logging.getLogger(__name__)

DOMAIN = "bulk"
WORD_S = 30.0  # how long a word lets somebody in


@dataclass(slots=True)
class _BulkChannel:
    """The bulk connection of one requester, or the offer of it."""

    word: bytes
    key: bytes
    sealer: Sealer
    routing_id: bytes | None = None
    """Its name at our ROUTER, once it is there and has proved that it has the key."""

    @property
    def shown(self) -> bytes:
        """The word as it is shown."""
        return self.word.hex().encode()


class BulkSender:
    """Sends pieces on bulk connections to those who made one."""

    def __init__(
        self,
        context: zmq.Context[Any],
        port: int | None,
        *,
        guard: zap.ZapHandler,
        connections: ConnectionLimiter,
        on_link: Callable[[ConnectionEvent], None],
        send_queue: int,
    ) -> None:
        """Take bulk connections at ``port``, or any that is free (0), once `move` says where. Where
        there can be none, or shall be none (None), everything goes the other way."""
        self.port: int | None = None
        self._sent = 0
        self._lines: dict[RequesterId, _BulkChannel] = {}
        self._owners: dict[bytes, RequesterId] = {}  # of words, as they are shown, not used yet
        self._connections = connections
        self._room = ScratchBuffer()
        self._wanted_port = port
        self._bound = ""
        self._pump: Pump | None = None
        if port is None or not aes_is_fast():
            return
        guard.guard_by_token(DOMAIN, self._use)
        socket = make_socket(
            context,
            zmq.ROUTER,
            TokenServer(DOMAIN),
            message_bytes_max=limits.KNOCK_BYTES_MAX,
            send_queue=send_queue,
        )
        self._watch = SocketMonitor(socket, on_link, connections)
        self._pump = Pump(socket, self._on_message)

    def move(self, endpoint: str) -> None:
        """Listen beside ``endpoint``. Raises `CannotListen` when it cannot be at the port that was
        asked for."""
        if self._pump is None or not endpoint.startswith("tcp://"):
            return
        socket = self._pump.socket
        try:
            bound = bind(socket, beside(endpoint, self._wanted_port or 0))
        except CannotListen as error:
            if self._wanted_port:
                raise
            log.warning("pieces go the slower way: %s", error)
            bound = ""
        if self._bound:
            socket.unbind(self._bound)
        self._bound = bound
        self.port = int(bound.rpartition(":")[2]) if bound else None

    def close(self) -> None:
        """Close the socket."""
        if self._pump is not None:
            self._watch.close()
            self._pump.close()

    @property
    def state(self) -> str:
        """Where bulk connections are taken, in words."""
        if self.port is None:
            return "none are taken: by the settings, on ipc, or for want of AES in the processor"
        return f"port {self.port}; {self._sent} pieces went there"

    def offer(self, requester: RequesterId) -> peer.Bulk | None:
        """How ``requester`` gets a bulk connection; None if it was told before, or cannot."""
        if self.port is None or requester in self._lines:
            return None
        line = _BulkChannel(os.urandom(KEY_BYTES), key := new_key(), Sealer(key, self._room))
        self._lines[requester] = line
        self._owners[line.shown] = requester
        asyncio.get_running_loop().call_later(WORD_S, self._owners.pop, line.shown, None)
        return peer.Bulk(self.port, line.word, line.key)

    def forget(self, requester: RequesterId) -> None:
        """The requester's encrypted connection has ended, or we know nothing of it any more."""
        line = self._lines.pop(requester, None)
        if line is not None:
            self._owners.pop(line.shown, None)

    def _use(self, shown: bytes) -> bytes | None:
        """Whose word somebody shows, who comes in by it. It is of no use a second time."""
        return self._owners.pop(shown, None)

    def _on_message(self, frames: Frames) -> None:
        """Somebody who came in by a word proves to have the key. There is no other message."""
        self._connections.heard(frames[-1])
        owner, name = user_id(frames[-1]), frames[0].bytes
        line = None if owner is None else self._lines.get(RequesterId(owner))
        if line is None or len(name) != limits.ROUTING_ID_BYTES or len(frames) != 3:
            return
        # What proves nothing changes nothing: it may come by an older word, or be put in.
        proved = hmac.compare_digest(frames[2].bytes, proof(line.key, name))
        if proved and frames[1].bytes == SIGNATURE:
            line.routing_id = name

    def send(
        self, requester: RequesterId, run: peer.Pieces, data: Buffer, frame_bytes: int
    ) -> Sent | None:
        """Send adjacent pieces, in frames of that size. None when they have to go the other way."""
        line = self._lines.get(requester)
        if line is None or line.routing_id is None or line.sealer.spent or self._pump is None:
            return None
        number, head, sealed = line.sealer.seal(encode(run), data)
        frames = [line.routing_id, SIGNATURE, number, head, *cut(sealed, frame_bytes)]
        # Copied, as what was sealed has to be. What is only lent to ZeroMQ is given back by a
        # thread that wakes for each message, which costs more than copying what is in the cache.
        match sent := self._pump.send(frames):
            case Sent.GONE:
                line.routing_id = None
                return None
            case Sent.YES:
                line.sealer.sent(number)
                self._sent += run.count
        return sent
