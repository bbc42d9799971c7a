"""ZAP handler: admission of connections, asked by libzmq at every handshake (ZeroMQ RFC 27).

Owns: the one ZAP socket of a context, and counters of admitted and denied handshakes. A policy is a
function of the public key and the address; an exception in it fails that handshake alone. The key
that was proved becomes the connection's ``User-Id``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import Any

import zmq

from common import limits
from common.crypto.keys import new_pair
from common.errors import ConfigError
from common.ids import KEY_BYTES, DeviceKey
from common.net.pump import Frames, Pump
from common.net.sockets import TOKEN_USER, Connect, Private, Serve, make_socket

log = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"


class Admission(Enum):
    """Decision of a policy about a handshake."""

    ADMIT = b"200"
    RETRY = b"300"
    """Not now: the connection is dropped without a reason, and the client tries again."""
    DENY = b"400"
    """Never: the client is notified, and gives up."""


Policy = Callable[[DeviceKey, str], Admission]
TokenPolicy = Callable[[bytes], bytes | None]
"""Maps a one-time token to its owner's key; None for an unknown token."""


class ZapHandler:
    """ZAP handler for all domains of one context. Make it before the first socket is bound."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.counts: Counter[str] = Counter()
        self._policies: dict[str, Policy] = {}
        self._token_policies: dict[str, TokenPolicy] = {}
        socket = make_socket(context, zmq.ROUTER, Private(), message_bytes_max=4096)
        # Requests come from libzmq itself, and an answer to a connection that is gone may be lost.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        socket.bind(ENDPOINT)
        self._pump = Pump(socket, self._on_request)

    def guard(self, domain: str, policy: Policy) -> None:
        """Admit connections to ``domain`` by ``policy``."""
        self._policies[domain] = policy

    def guard_by_token(self, domain: str, policy: TokenPolicy) -> None:
        """Admit connections with a one-time token that ``policy`` knows, as its owner."""
        self._token_policies[domain] = policy

    def _on_request(self, frames: Frames) -> None:
        parts = [frame.bytes for frame in frames]
        if b"" not in parts:
            return
        split = parts.index(b"") + 1
        envelope, request = parts[:split], parts[split:]
        if len(request) < 6 or request[0] != _VERSION:
            return
        _, sequence, domain, address, _, mechanism, *credentials = request
        admission, key = self._decide(domain, address, mechanism, credentials)
        self.counts[admission.name.lower()] += 1
        user = key.hex().encode() if admission is Admission.ADMIT else b""
        text = b"OK" if user else b"not admitted"
        reply = [_VERSION, sequence, admission.value, text, user, b""]
        self._pump.send([*envelope, *reply])

    def _decide(
        self, domain: bytes, address: bytes, mechanism: bytes, credentials: list[bytes]
    ) -> tuple[Admission, bytes]:
        name = domain.decode("utf-8", "replace")
        try:
            match mechanism, credentials:
                case b"CURVE", [key] if len(key) == KEY_BYTES and name in self._policies:
                    where = address.decode("utf-8", "replace")
                    return self._policies[name](DeviceKey(key), where), key
                case b"PLAIN", [user, token] if user == TOKEN_USER and name in self._token_policies:
                    owner = self._token_policies[name](token)
                    if owner is not None:
                        return Admission.ADMIT, owner
        except Exception:
            log.exception("the admission of a connection failed")
            self.counts["failures"] += 1
            return Admission.RETRY, b""
        return Admission.DENY, b""

    def close(self) -> None:
        """Stop answering: no further connection is admitted."""
        self._pump.close()


async def self_check(context: zmq.Context[Any], zap: ZapHandler, timeout_s: float = 10.0) -> None:
    """Prove that a denied key cannot get in and an admitted one can; raises `ConfigError`.

    Why: a missing handler or an unenforced domain silently admits all clients. So a serving process
    runs this check before it binds its first real endpoint.
    """
    domain, denied, admitted = "self-check", new_pair(), new_pair()
    refused, arrived = asyncio.Event(), asyncio.Event()

    def policy(key: DeviceKey, _: str) -> Admission:
        if key == admitted.public:
            return Admission.ADMIT
        refused.set()
        return Admission.RETRY

    zap.guard(domain, policy)
    server_pair = new_pair()
    server = make_socket(
        context, zmq.ROUTER, Serve(server_pair, domain), message_bytes_max=limits.KIB
    )
    # Not at 127.0.0.1, which is not there before the network is: an abstract path of Linux.
    endpoint = f"ipc://@mini-torrent-{os.urandom(16).hex()}"
    server.bind(endpoint)
    came: set[DeviceKey | None] = set()

    def on_message(frames: Frames) -> None:
        name = frames[1].bytes
        came.add(denied.public if name == b"denied" else admitted.public)
        arrived.set()

    pump = Pump(server, on_message)
    clients = []
    try:
        # One after the other: when the admitted one is in, the denied one has had its chance.
        for pair, name, sign in (
            (denied, b"denied", refused),
            (admitted, b"admitted", arrived),
        ):
            client = make_socket(
                context,
                zmq.DEALER,
                Connect(pair, server_pair.public),
                message_bytes_max=limits.KIB,
            )
            clients.append(client)
            client.connect(endpoint)
            client.send(name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(sign.wait(), timeout_s)
    finally:
        for client in clients:
            client.close(linger=0)
        pump.close()
    if came != {admitted.public} or not refused.is_set():
        raise ConfigError(
            "the self-check of the admission failed: this process would not be safe to run",
            "report this with the versions that `doctor` prints",
        )
    zap.counts.clear()
