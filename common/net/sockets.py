"""ZeroMQ sockets: the one maker of sockets, with the options that keep them safe and bounded.

Owns: socket options, roles (CURVE, token, private), binding, and the sender of a message. Not here:
reading and sending (see ``common.net.pump``), connection events (see ``common.net.monitor``),
admission (see ``common.net.zap``).
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import zmq

from common import limits
from common.crypto.keys import KeyPair, to_z85
from common.errors import CannotListen, ConfigError, NoSuchAddress
from common.ids import DeviceKey

if TYPE_CHECKING:
    from common.net.pump import Frames

LIBZMQ_MIN = (4, 3, 5)
TOKEN_USER = b"word"
"""The user name that goes with a one-time token."""


def check_library() -> None:
    """Refuse to run on a libzmq that is too old or cannot encrypt. Raises `ConfigError`."""
    version = zmq.zmq_version_info()
    if version < LIBZMQ_MIN:
        raise ConfigError(
            f"libzmq {'.'.join(map(str, version))} is too old",
            "install a pyzmq that brings 4.3.5 or later",
        )
    if not zmq.has("curve"):
        raise ConfigError("this libzmq cannot encrypt", "install the pyzmq wheel from PyPI")


@dataclass(frozen=True, slots=True)
class Serve:
    """CURVE role of a socket that binds: our key pair, and the ZAP domain that guards it."""

    pair: KeyPair
    domain: str


@dataclass(frozen=True, slots=True)
class Connect:
    """CURVE role of a socket that connects: our key pair, and the expected key of the server."""

    pair: KeyPair
    server: DeviceKey


@dataclass(frozen=True, slots=True)
class TokenServer:
    """Role of a socket that binds and does not encrypt: its messages are sealed before.

    Clients show a one-time token, and the ZAP domain knows its owner.
    """

    domain: str


@dataclass(frozen=True, slots=True)
class TokenClient:
    """Role of a socket that connects to a `TokenServer`: its one-time token.

    The token has no zero bytes, and 255 bytes at most.
    """

    token: bytes


@dataclass(frozen=True, slots=True)
class Private:
    """Role without encryption: an ipc socket in a 0700 directory, or inproc."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of a socket's connections in ms, each 0 for none.

    ``handshake``: the longest handshake. ``heartbeat``: the pause between heartbeats that this side
    sends, ``timeout`` its wait for the other side's answer. ``ttl``: the other side takes this one
    for gone after that time without a heartbeat. ``keepalive``: the kernel asks silent connections.
    """

    handshake: int = limits.HANDSHAKE_IVL_MS
    heartbeat: int = limits.HEARTBEAT_IVL_MS
    timeout: int = limits.HEARTBEAT_TIMEOUT_MS
    ttl: int = limits.HEARTBEAT_TTL_MS
    keepalive: bool = False


BETWEEN_DEVICES = Timing()
AT_TRACKER = Timing(heartbeat=0, keepalive=True)
TO_TRACKER = Timing(
    limits.TRACKER_HANDSHAKE_IVL_MS,
    limits.TRACKER_HEARTBEAT_IVL_MS,
    ttl=limits.TRACKER_HEARTBEAT_TTL_MS,
)


Role = Serve | Connect | TokenServer | TokenClient | Private


def make_socket(
    context: zmq.Context[Any],
    kind: int,
    role: Role,
    *,
    message_bytes_max: int,
    send_queue: int = 1_000,
    receive_queue: int = 1_000,
    backlog: int = 512,
    timing: Timing = BETWEEN_DEVICES,
) -> zmq.Socket[Any]:
    """Return a new socket with all options of its role.

    ``send_queue`` and ``receive_queue`` are messages a connection (ZeroMQ's high-water marks).
    """
    # ZMQ_IMMEDIATE stays off. With it libzmq discards received messages when a connection ends, and
    # aborts the process if one was half read: a client that sends many frames and leaves could end
    # us. So a message may be queued for a connection that does not exist yet; senders expect that.
    socket: zmq.Socket[Any] = context.socket(kind)
    options: list[tuple[int, int]] = [
        (zmq.LINGER, 0),  # closing never waits: important messages are acknowledged by a message
        (zmq.MAXMSGSIZE, message_bytes_max),
        (zmq.SNDHWM, send_queue),
        (zmq.RCVHWM, receive_queue),
        (zmq.IPV6, 1),
        (zmq.BACKLOG, backlog),
        (zmq.HANDSHAKE_IVL, timing.handshake),
        (zmq.HEARTBEAT_IVL, timing.heartbeat),
        (zmq.HEARTBEAT_TIMEOUT, timing.timeout),
        (zmq.HEARTBEAT_TTL, timing.ttl),
        (zmq.RECONNECT_IVL, limits.RECONNECT_IVL_MS),
        (zmq.RECONNECT_IVL_MAX, limits.RECONNECT_IVL_MAX_MS),
    ]
    if timing.keepalive:
        options += [
            (zmq.TCP_KEEPALIVE, 1),
            (zmq.TCP_KEEPALIVE_IDLE, limits.KEEPALIVE_IDLE_S),
            (zmq.TCP_KEEPALIVE_INTVL, limits.KEEPALIVE_IVL_S),
            (zmq.TCP_KEEPALIVE_CNT, limits.KEEPALIVE_PROBES),
        ]
    if kind == zmq.ROUTER:
        # Without it a message to an absent connection vanishes unnoticed. A second connection under
        # a routing id in use is rejected, since handover stays off.
        options.append((zmq.ROUTER_MANDATORY, 1))
    for option, value in options:
        socket.setsockopt(option, value)
    match role:
        case Serve(pair, domain):
            _guard(socket, domain)
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public_z85)
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret_z85)
        case Connect(pair, server):
            if kind == zmq.DEALER:
                socket.setsockopt(zmq.ROUTING_ID, new_routing_id())
            socket.setsockopt(zmq.CURVE_SERVERKEY, to_z85(server))
            socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public_z85)
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret_z85)
        case TokenServer(domain):
            _guard(socket, domain)
            socket.setsockopt(zmq.PLAIN_SERVER, 1)
        case TokenClient(token):
            socket.setsockopt(zmq.ROUTING_ID, new_routing_id())
            socket.setsockopt(zmq.PLAIN_USERNAME, TOKEN_USER)
            socket.setsockopt(zmq.PLAIN_PASSWORD, token)
        case Private():
            pass
    return socket


def _guard(socket: zmq.Socket[Any], domain: str) -> None:
    if not domain:
        # libzmq admits all connections of an empty domain without asking the ZAP handler.
        raise ConfigError("a serving socket needs a ZAP domain")
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())


def new_routing_id() -> bytes:
    """Return an unguessable routing id for one connection at the other side's ROUTER.

    Why: the ids that a ROUTER assigns are predictable. An attacker who takes over an id at the
    moment at which its holder disconnects would get the messages on their way to that holder. So a
    serving side accepts unguessable ids alone. (Zero as the first byte is kept for the ROUTER's
    own.)
    """
    return b"\x01" + os.urandom(limits.ROUTING_ID_BYTES - 1)


_NO_ADDRESS = (zmq.EADDRNOTAVAIL, errno.ENODEV)  # the latter for an interface's name


def bind(socket: zmq.Socket[Any], endpoint: str) -> str:
    """Bind, and return the endpoint with the actual port. Raises `CannotListen`."""
    # An IPv4 address bound by an IPv6 socket would be shown as ::ffff:…; `*` takes both families.
    socket.setsockopt(zmq.IPV6, int(not re.match(r"tcp://[0-9.]+:", endpoint)))
    try:
        socket.bind(endpoint)
    except zmq.ZMQError as error:
        hint = None
        if error.errno == zmq.EADDRINUSE:
            hint = "another process uses it: stop that one, or choose another port"
        reason = os.strerror(error.errno or 0)
        kind = NoSuchAddress if error.errno in _NO_ADDRESS else CannotListen
        raise kind(f"cannot listen at {endpoint}: {reason}", hint) from error
    if endpoint.startswith("ipc://"):
        os.chmod(endpoint.removeprefix("ipc://"), 0o600)
        return endpoint
    bound: str = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    return bound


class Sender(NamedTuple):
    """Sender of a message to a ROUTER: routing id, and the device whose key was proved."""

    routing_id: bytes
    device: DeviceKey


def sender(frames: Frames) -> Sender | None:
    """Return the sender of a message to a ROUTER; None if the message must be ignored."""
    if len(frames) < 2 or len(frames[0]) != limits.ROUTING_ID_BYTES:
        return None
    device = user_id(frames[1])
    return None if device is None else Sender(frames[0].bytes, device)


def user_id(frame: zmq.Frame) -> DeviceKey | None:
    """Return the public key that the handshake proved for the sender of ``frame``.

    It comes from our ZAP handler; libzmq overrides the same name in a client's own metadata.
    """
    try:
        return DeviceKey(bytes.fromhex(str(frame.get("User-Id"))))
    except (zmq.ZMQError, ValueError):
        return None


def peer_address(frame: zmq.Frame) -> str:
    """Return the IP address that ``frame`` came from; empty on ipc.

    Source: on ipc libzmq reports ``localhost:UID:GID:PID``, where it reports anything.
    """
    try:
        found = str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""
    return "" if found.startswith("localhost:") else found.removeprefix("::ffff:")
