"""Bulk sender: the serving end of bulk connections, which carry pieces without CURVE.

Why: CURVE costs more CPU time than all other work on a piece. So a client with an open channel may
make a second connection that ZeroMQ does not encrypt. Pieces on it are sealed with AES, for which
processors have instructions (docs/decisions/bulk-connections.md).

Owns: that ROUTER, its one-time tokens and the keys. Token and key are sent over the encrypted
connection to a client that has shown its right to fetch, and end with that connection. Every piece
can use the encrypted connection too, if there is no bulk connection.
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
from common.net.monitor import ConnectionEvent, SocketMonitor
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import TokenServer, bind, make_socket, user_id
from peer.addresses import with_port
from peer.native.library import mover
from peer.native.sealer import CompiledSealer
from peer.swarm.serving.events import RequesterId

log = logging.getLogger(__name__)

DOMAIN = "bulk"
TOKEN_S = 30.0  # validity of a one-time token


@dataclass(slots=True)
class _BulkChannel:
    """The bulk connection of one client, or the offer of it."""

    token: bytes
    key: bytes
    sealer: Sealer | CompiledSealer
    routing_id: bytes | None = None
    """Its routing id, once it is connected and has proved that it has the key."""

    @property
    def shown_token(self) -> bytes:
        """The token in the form that a client shows."""
        return self.token.hex().encode()


class BulkSender:
    """Sends pieces on bulk connections to clients that made one."""

    def __init__(
        self,
        context: zmq.Context[Any],
        port: int | None,
        *,
        guard: zap.ZapHandler,
        limiter: ConnectionLimiter,
        on_link: Callable[[ConnectionEvent], None],
        send_queue: int,
    ) -> None:
        """Accept bulk connections at ``port``, or at any free port (0), after `move`.

        None means no bulk connections, as does a processor without AES.
        """
        self.port: int | None = None
        self._sent = 0
        self._channels: dict[RequesterId, _BulkChannel] = {}
        self._tokens: dict[bytes, RequesterId] = {}  # unused ones, in the form that is shown
        self._limiter = limiter
        self._scratch = ScratchBuffer()
        self._wanted_port = port
        self._bound = ""
        self._pump: Pump | None = None
        if port is None or not aes_is_fast():
            return
        guard.guard_by_token(DOMAIN, self._redeem)
        socket = make_socket(
            context,
            zmq.ROUTER,
            TokenServer(DOMAIN),
            message_bytes_max=limits.TOKEN_BYTES_MAX,
            send_queue=send_queue,
        )
        self._monitor = SocketMonitor(socket, on_link, limiter)
        self._pump = Pump(socket, self._on_message)

    def move(self, endpoint: str) -> None:
        """Listen at the host of ``endpoint``. Raises `CannotListen` if a given port is not free."""
        if self._pump is None or not endpoint.startswith("tcp://"):
            return
        socket = self._pump.socket
        try:
            bound = bind(socket, with_port(endpoint, self._wanted_port or 0))
        except CannotListen as error:
            if self._wanted_port:
                raise
            log.warning("no bulk connections, pieces use the encrypted connection: %s", error)
            bound = ""
        if self._bound:
            socket.unbind(self._bound)
        self._bound = bound
        self.port = int(bound.rpartition(":")[2]) if bound else None

    def close(self) -> None:
        """Close the socket."""
        if self._pump is not None:
            self._monitor.close()
            self._pump.close()

    @property
    def state(self) -> str:
        """State of bulk connections, as text."""
        if self.port is None:
            return (
                "none: turned off by the settings, not possible on ipc, or no AES in the processor"
            )
        return f"port {self.port}; {self._sent} pieces sent"

    def offer(self, requester: RequesterId, *, aegis: bool = False) -> peer.Bulk | None:
        """Return the offer for a client; None if it was offered one before, or cannot have one.

        ``aegis``: the client can open messages that are sealed with AEGIS-128L.
        """
        if self.port is None or requester in self._channels:
            return None
        sealer = self._new_sealer(key := new_key(), aegis)
        channel = _BulkChannel(os.urandom(KEY_BYTES), key, sealer)
        self._channels[requester] = channel
        token = channel.shown_token
        self._tokens[token] = requester
        asyncio.get_running_loop().call_later(TOKEN_S, self._tokens.pop, token, None)
        return peer.Bulk(self.port, channel.token, channel.key, sealer.by_aegis)

    def _new_sealer(self, key: bytes, aegis: bool) -> Sealer | CompiledSealer:
        found = mover() if aegis else None
        return Sealer(key, self._scratch) if found is None else CompiledSealer(found, key)

    def forget(self, requester: RequesterId) -> None:
        """Forget a client, whose encrypted connection has ended."""
        channel = self._channels.pop(requester, None)
        if channel is not None:
            self._tokens.pop(channel.shown_token, None)

    def _redeem(self, shown_token: bytes) -> bytes | None:
        """Return the client of a token that was shown, and invalidate the token."""
        return self._tokens.pop(shown_token, None)

    def _on_message(self, frames: Frames) -> None:
        """Check the proof of a client that was admitted by its token. No other message exists."""
        self._limiter.on_message(frames[-1])
        owner, name = user_id(frames[-1]), frames[0].bytes
        channel = None if owner is None else self._channels.get(RequesterId(owner))
        if channel is None or len(name) != limits.ROUTING_ID_BYTES or len(frames) != 3:
            return
        # A wrong proof has no effect: it may belong to an older token, or be injected.
        proved = hmac.compare_digest(frames[2].bytes, proof(channel.key, name))
        if proved and frames[1].bytes == SIGNATURE:
            channel.routing_id = name

    def send(
        self, requester: RequesterId, run: peer.Pieces, data: Buffer, frame_bytes: int
    ) -> Sent | None:
        """Send adjacent pieces in frames of that size; None if there is no bulk connection."""
        channel = self._channels.get(requester)
        if channel is None or channel.routing_id is None or self._pump is None:
            return None
        if channel.sealer.spent:
            return None
        sealer, to = channel.sealer, (self._pump, channel.routing_id)
        if isinstance(sealer, CompiledSealer):
            sent = sealer.send(*to, encode(run), data, frame_bytes)
        else:
            sent = _seal_and_send(*to, sealer, encode(run), data, frame_bytes)
        match sent:
            case Sent.GONE:
                channel.routing_id = None
                return None
            case Sent.YES:
                self._sent += run.count
        return sent


def _seal_and_send(
    pump: Pump, routing_id: bytes, sealer: Sealer, head: bytes, data: Buffer, frame_bytes: int
) -> Sent:
    number, sealed_head, sealed = sealer.seal(head, data)
    frames = [routing_id, SIGNATURE, number, sealed_head, *cut(sealed, frame_bytes)]
    # Copied, because the scratch buffer is reused. Why not lent to ZeroMQ: it returns a buffer by a
    # thread that wakes for each message, which costs more than copying cached bytes.
    sent = pump.send(frames)
    if sent is Sent.YES:
        sealer.sent(number)
    return sent
