"""Who may come in: the handler that libzmq asks about every handshake (ZeroMQ RFC 27).

Owns the one ZAP socket of a context and the counters of what it let in and turned away. A policy is
a function of the public key and the address; when it raises, that handshake fails and the next one
is asked about as if nothing had been. The key that was proved becomes the connection's ``User-Id``.
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
from common.net.sockets import WORD_USER, Connect, Frames, Private, Pump, Serve, make_socket

log = logging.getLogger(__name__)

ENDPOINT = "inproc://zeromq.zap.01"
_VERSION = b"1.0"


class Admission(Enum):
    """What a policy says of a key."""

    ADMIT = b"200"
    RETRY = b"300"
    """Not now: the connection is dropped without a word, and the client tries again."""
    DENY = b"400"
    """Never: the client is told, and gives up."""


Policy = Callable[[DeviceKey, str], Admission]
WordPolicy = Callable[[bytes], bytes | None]
"""Whose a word is; None if nobody's."""


class ZapHandler:
    """Answers for all domains of one context. Make it before the first socket is bound."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.counts: Counter[str] = Counter()
        self._policies: dict[str, Policy] = {}
        self._word_policies: dict[str, WordPolicy] = {}
        socket = make_socket(context, zmq.ROUTER, Private(), message_bytes_max=4096)
        # Requests come from libzmq itself, and an answer to a connection that is gone may be lost.
        socket.setsockopt(zmq.ROUTER_MANDATORY, 0)
        socket.bind(ENDPOINT)
        self._pump = Pump(socket, self._on_request)

    def guard(self, domain: str, policy: Policy) -> None:
        """Let ``policy`` decide who comes into ``domain``."""
        self._policies[domain] = policy

    def guard_by_token(self, domain: str, policy: WordPolicy) -> None:
        """Let in who shows a word that ``policy`` knows, as the one whose it is."""
        self._word_policies[domain] = policy

    def _on_request(self, frames: Frames) -> None:
        parts = [frame.bytes for frame in frames]
        if b"" not in parts:
            return
        split = parts.index(b"") + 1
        envelope, request = parts[:split], parts[split:]
        if len(request) < 6 or request[0] != _VERSION:
            return
        _, sequence, domain, address, _, mechanism, *credentials = request
        admission, who = self._decide(domain, address, mechanism, credentials)
        self.counts[admission.name.lower()] += 1
        user = who.hex().encode() if admission is Admission.ADMIT else b""
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
                case b"PLAIN", [user, word] if user == WORD_USER and name in self._word_policies:
                    owner = self._word_policies[name](word)
                    if owner is not None:
                        return Admission.ADMIT, owner
        except Exception:
            log.exception("the admission of a connection failed")
            self.counts["failures"] += 1
            return Admission.RETRY, b""
        return Admission.DENY, b""

    def close(self) -> None:
        """Stop answering: from here on nobody new comes in."""
        self._pump.close()


async def self_check(context: zmq.Context[Any], zap: ZapHandler, timeout_s: float = 10.0) -> None:
    """Prove that a denied key cannot get in and an admitted one can; raises `ConfigError`.

    A handler that is missing or a domain that is not enforced lets everyone in without a word, so a
    process that serves makes sure before it binds its first real endpoint.
    """
    domain, denied, admitted = "self-check", new_pair(), new_pair()
    knocked, arrived = asyncio.Event(), asyncio.Event()

    def policy(key: DeviceKey, _: str) -> Admission:
        if key == admitted.public:
            return Admission.ADMIT
        knocked.set()
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
            (denied, b"denied", knocked),
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
    if came != {admitted.public} or not knocked.is_set():
        raise ConfigError(
            "the self-check of the admission failed: this process would not be safe to run",
            "report this with the versions that `doctor` prints",
        )
    zap.counts.clear()
