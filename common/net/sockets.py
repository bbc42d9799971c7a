"""Sockets: every one of them is made here, with all that keeps it safe and bounded.

Owns the ZeroMQ context, the options, the curve roles, and `Pump`, which joins a socket to asyncio.
asyncio only wakes a pump; the pump drains its socket by hand, since that costs a fraction of a
future for each message. Who may come in is decided by ``common.net.zap``.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, Protocol

import zmq

from common import limits
from common.crypto.keys import KeyPair, to_z85
from common.errors import CannotListen, ConfigError, NoSuchAddress
from common.ids import DeviceKey

log = logging.getLogger(__name__)

LIBZMQ_MIN = (4, 3, 5)
WORD_USER = b"word"
"""The user name with which a word is shown."""


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
    """The curve role of a socket that binds: our pair, and the ZAP domain that guards it."""

    pair: KeyPair
    domain: str


@dataclass(frozen=True, slots=True)
class Connect:
    """The curve role of a socket that connects: our pair, and the key that must be there."""

    pair: KeyPair
    server: DeviceKey


@dataclass(frozen=True, slots=True)
class TokenServer:
    """A socket that binds and does not encrypt: what is sent there is sealed before. Whoever
    connects shows a word, and the ZAP domain knows whose it is."""

    domain: str


@dataclass(frozen=True, slots=True)
class TokenClient:
    """A socket that connects to one of `TokenServer`: the word that it shows there, without zeros,
    255 bytes at most."""

    word: bytes


@dataclass(frozen=True, slots=True)
class Private:
    """No encryption: an ipc socket that never leaves a 0700 directory, or inproc."""


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
) -> zmq.Socket[Any]:
    """The one maker of sockets.

    ``send_queue`` and ``receive_queue`` are messages a connection (ZeroMQ's high-water marks).
    """
    # ZMQ_IMMEDIATE stays off. With it libzmq throws away what was received when a connection ends,
    # and aborts the process if that was half read: whoever sends many frames and leaves could end
    # us. So a message may be queued for a connection that is not there yet; whoever sends knows.
    socket: zmq.Socket[Any] = context.socket(kind)
    options: list[tuple[int, int]] = [
        (zmq.LINGER, 0),  # closing never waits: what must arrive is acknowledged by a message
        (zmq.MAXMSGSIZE, message_bytes_max),
        (zmq.SNDHWM, send_queue),
        (zmq.RCVHWM, receive_queue),
        (zmq.IPV6, 1),
        (zmq.BACKLOG, backlog),
        (zmq.HANDSHAKE_IVL, limits.HANDSHAKE_IVL_MS),
        (zmq.HEARTBEAT_IVL, limits.HEARTBEAT_IVL_MS),
        (zmq.HEARTBEAT_TIMEOUT, limits.HEARTBEAT_TIMEOUT_MS),
        (zmq.HEARTBEAT_TTL, limits.HEARTBEAT_TTL_MS),
        (zmq.RECONNECT_IVL, limits.RECONNECT_IVL_MS),
        (zmq.RECONNECT_IVL_MAX, limits.RECONNECT_IVL_MAX_MS),
    ]
    if kind == zmq.ROUTER:
        # Without it a message to nobody vanishes unnoticed. A second connection under a routing id
        # in use is turned away, since handover stays off.
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
        case TokenClient(word):
            socket.setsockopt(zmq.ROUTING_ID, new_routing_id())
            socket.setsockopt(zmq.PLAIN_USERNAME, WORD_USER)
            socket.setsockopt(zmq.PLAIN_PASSWORD, word)
        case Private():
            pass
    return socket


def _guard(socket: zmq.Socket[Any], domain: str) -> None:
    if not domain:
        # libzmq asks nobody about connections of an empty domain: it lets everyone in.
        raise ConfigError("a serving socket needs a ZAP domain")
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain.encode())


def new_routing_id() -> bytes:
    """A name that nobody can guess for one connection at the other side's ROUTER.

    Those that a ROUTER gives by itself are predictable. Somebody who took over a name in the moment
    in which its holder is gone would be sent what was on its way to that holder, so a serving side
    listens to unguessable names alone. (Zero as the first byte is kept for the ROUTER's own.)
    """
    return b"\x01" + os.urandom(limits.ROUTING_ID_BYTES - 1)


_NO_ADDRESS = (zmq.EADDRNOTAVAIL, errno.ENODEV)  # the latter for an interface's name


def bind(socket: zmq.Socket[Any], endpoint: str) -> str:
    """Bind, and return the endpoint with the port that was taken. Raises `CannotListen`."""
    # An IPv4 address bound by an IPv6 socket would be told as ::ffff:…; `*` takes both families.
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


class Sent(Enum):
    """What became of a message handed to a socket."""

    YES = "yes"
    FULL = "full"
    """The connection's queue is full: try again later."""
    GONE = "gone"
    """The one that it was for is not connected."""


Frames = list[zmq.Frame]
_DONTWAIT = int(zmq.DONTWAIT)
_DONTWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)


class Pump:
    """A socket joined to the running event loop.

    ``on_message`` is called with the frames of each message, in order. It must not block. What it
    raises is logged, and the pump goes on: a bad message must not deafen a process.
    """

    BATCH = 64  # messages taken in a row before the others in the loop get their turn
    # One more than any message has that makes sense, and a routing id; the others are thrown away.
    FRAMES_KEPT = limits.HEAD_FRAMES + limits.DATA_FRAMES_MAX + 2

    def __init__(self, socket: zmq.Socket[Any], on_message: Callable[[Frames], None]) -> None:
        # The command line makes sockets but pumps none; without asyncio it starts a third faster.
        from asyncio import get_running_loop

        self.socket = socket
        self._on_message = on_message
        self._loop = get_running_loop()
        self._fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self._scheduled = False
        self._closed = False
        self._send_part = partial(zmq.backend.Socket.send, socket)
        self._loop.add_reader(self._fd, self._drain)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        # The descriptor only tells of the change from nothing to something, so the socket is read
        # until it says that it is empty; after a full batch the rest is taken in a later turn.
        for _ in range(self.BATCH):
            if self._closed:
                return
            try:
                frames = self._receive()
            except zmq.Again:
                return
            except zmq.ZMQError as error:
                if self._closed or error.errno in (zmq.ETERM, zmq.ENOTSOCK):
                    return
                raise
            try:
                self._on_message(frames)
            except Exception:
                log.exception("a message could not be handled")
        self._schedule()

    def _receive(self) -> Frames:
        # The same as recv_multipart, which asks the socket after each frame whether there is more
        # where the frame itself knows: a third of the cost of a small message.
        receive = self.socket.recv
        frame: Any = receive(_DONTWAIT, False)
        frames = [frame]
        while frame.more:
            frame = receive(_DONTWAIT, False)
            if len(frames) < self.FRAMES_KEPT:
                frames.append(frame)
        return frames

    def send(self, frames: Sequence[Any], *, copy: bool = True) -> Sent:
        """Hand a message over without waiting.

        With ``copy=False`` the last frame's buffer belongs to ZeroMQ until it is sent and must
        never be changed again.
        """
        if self._closed:
            return Sent.GONE
        try:
            # Only the first part can be turned away: what follows goes with it or not at all.
            send = self._send_part
            for part in frames[:-1]:
                send(part, _DONTWAIT_MORE)
            send(frames[-1], _DONTWAIT, copy)
            outcome = Sent.YES
        except zmq.Again:
            outcome = Sent.FULL
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM):
                raise
            outcome = Sent.GONE
        # Sending may have taken in the wake-up that was meant for the reader.
        if not self._scheduled and int(self.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            self._schedule()
        return outcome

    def close(self) -> None:
        """Leave the loop and close the socket. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self.socket.close(linger=0)


class ConnectionEvent(Enum):
    """What a socket's monitor tells of its connections."""

    UP = "up"
    """A handshake succeeded: keys on both sides are as they must be."""
    DOWN = "down"
    """An established connection ended."""
    FAILED = "failed"
    """Connected, but the handshake did not succeed: a wrong key, or no right to come in."""
    SILENT = "silent"
    """Connected, but no handshake came in time: the other side did not answer."""
    UNREACHABLE = "unreachable"
    """No connection could be made; it will be tried again."""
    ACCEPT_FAILED = "accept failed"
    """A connection could not be accepted: out of file descriptors."""


class ConnectionObserver(Protocol):
    """Who keeps account of a socket's connections by their descriptors:
    `common.net.connection_limits`.
    """

    def opened(self, fd: int) -> None:
        """A connection began; its handshake is still to come."""

    def ended(self, fd: int) -> None:
        """A connection ended, whether it was established or not."""


_LINK_OF_EVENT: dict[int, ConnectionEvent] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: ConnectionEvent.UP,
    zmq.EVENT_DISCONNECTED: ConnectionEvent.DOWN,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: ConnectionEvent.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: ConnectionEvent.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: ConnectionEvent.FAILED,
    zmq.EVENT_CONNECT_RETRIED: ConnectionEvent.UNREACHABLE,
    zmq.EVENT_ACCEPT_FAILED: ConnectionEvent.ACCEPT_FAILED,
}
_WATCHED = 0
for _event in _LINK_OF_EVENT:
    _WATCHED |= int(_event)
_OPENED = (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED)


class SocketMonitor:
    """Tells ``on_link`` what happens to the connections of a socket (libzmq's monitor), and
    ``ledger`` which descriptors they have."""

    def __init__(
        self,
        socket: zmq.Socket[Any],
        on_link: Callable[[ConnectionEvent], None],
        ledger: ConnectionObserver | None = None,
    ) -> None:
        from zmq.utils.monitor import parse_monitor_message  # brings asyncio: see `Pump`

        self._parse = parse_monitor_message
        self._watched = socket
        self._on_link = on_link
        self._ledger = ledger
        opened = 0 if ledger is None else int(_OPENED[0] | _OPENED[1])
        monitor = socket.get_monitor_socket(_WATCHED | opened)
        self._pump = Pump(monitor, self._on_frames)

    def _on_frames(self, frames: Frames) -> None:
        message = self._parse([frame.bytes for frame in frames])
        event = message["event"]
        if self._ledger is not None:
            if event in _OPENED:
                self._ledger.opened(int(message["value"]))
            elif event == zmq.EVENT_DISCONNECTED:
                self._ledger.ended(int(message["value"]))
        link = _LINK_OF_EVENT.get(event)
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and message["value"] == errno.EAGAIN:
            link = (
                ConnectionEvent.SILENT
            )  # the last read found nothing; one of a closed connection fails
        if link is not None:
            self._on_link(link)

    def close(self) -> None:
        """Stop watching; call it before the watched socket is closed."""
        with contextlib.suppress(zmq.ZMQError):
            self._watched.monitor(None, 0)
        # pyzmq remembers the monitor on the socket, and would close it a second time.
        self._watched._monitor_socket = None
        self._pump.close()


def monitored(
    socket: zmq.Socket[Any],
    on_link: Callable[[ConnectionEvent], None],
    ledger: ConnectionObserver | None = None,
) -> SocketMonitor:
    """A `Watch` of a socket that was just made, which is closed if it cannot be watched. Raises
    `zmq.ZMQError`."""
    try:
        return SocketMonitor(socket, on_link, ledger)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a message to a ROUTER: the connection's name, and the device that was proved."""

    routing_id: bytes
    device: DeviceKey


def sender(frames: Frames) -> Sender | None:
    """The sender of what a ROUTER received; None for one whom nobody should listen to."""
    if len(frames) < 2 or len(frames[0]) != limits.ROUTING_ID_BYTES:
        return None
    device = user_id(frames[1])
    return None if device is None else Sender(frames[0].bytes, device)


def user_id(frame: zmq.Frame) -> DeviceKey | None:
    """The public key that the handshake proved for the sender of ``frame``.

    It is what our ZAP handler answered; what a client writes into its own metadata under the same
    name is overruled by libzmq.
    """
    try:
        return DeviceKey(bytes.fromhex(str(frame.get("User-Id"))))
    except (zmq.ZMQError, ValueError):
        return None


def peer_address(frame: zmq.Frame) -> str:
    """The IP address that ``frame`` came from; empty on ipc."""
    try:
        return str(frame.get("Peer-Address")).removeprefix("::ffff:")
    except zmq.ZMQError:
        return ""
