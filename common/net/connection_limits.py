"""Memory limits of each connection, which ZeroMQ lacks.

Why: a high-water mark counts whole messages. An endless multipart message, endless subscriptions or
unread replies are kept in memory for as long as the connection lives. So this module polls the
kernel's counts of received and acknowledged bytes, several times a second when memory grows, and
closes connections beyond a limit. `common.net.monitor.SocketMonitor` reports the begin and end of
connections. Limits: sockets on ``ipc`` have no such counts; only the user who owns their files can
connect to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import zmq

from common import limits
from common.host.clock import monotonic

log = logging.getLogger(__name__)

TICK_S = 0.25
POLLED_PER_TICK = 200  # while memory does not grow, some connections are polled in rotation
GROWTH_BYTES = 16 * limits.MIB  # after that growth of memory all are polled
HEARTBEATS_PER_S = 20.0  # bytes a second on an idle connection
MOVES_BYTES = 512  # received bytes beyond heartbeats are part of a message
OTHER_DESCRIPTORS = 256  # files, sockets of our own and what libraries need
# Of Linux's struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received, two counts of segments and
# tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=120xQQ8xI")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection, and of all of them together.

    ``unfinished_bytes``: received bytes without a whole message; ``all_unfinished_bytes``: the same
    of all connections together, beyond ``free_bytes`` each. On sockets that receive no messages,
    such as publishing ones, they hold for the life of a connection. ``not_reading_s``: how long a
    connection may take none of its queued bytes.
    """

    unfinished_bytes: int
    all_unfinished_bytes: int | None = None
    free_bytes: int = 4 * limits.KIB
    not_reading_s: float = limits.NOT_READING_S


MESSAGES = ConnectionLimits(
    unfinished_bytes=limits.UNFINISHED_BYTES_MAX,
    all_unfinished_bytes=limits.UNFINISHED_BYTES_ALL_MAX,
    free_bytes=512 * limits.KIB,
)
SUBSCRIPTIONS = ConnectionLimits(
    unfinished_bytes=limits.SUBSCRIPTIONS_BYTES_MAX,
    all_unfinished_bytes=limits.SUBSCRIPTIONS_BYTES_ALL_MAX,
)


@dataclass(slots=True, eq=False)
class _Connection:
    fd: int
    inode: int
    address: str
    since: float
    base: int = 0
    """Bytes received when the last whole message was noticed."""
    base_at: float = 0.0
    received: int = 0
    moved: int = 0
    """Bytes received when it last moved."""
    moved_at: float = 0.0
    got_message: bool = False
    acked: int = -1
    acked_at: float = 0.0

    @property
    def is_there(self) -> bool:
        """Whether the descriptor still belongs to this connection."""
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def on_received(self, received: int, now: float) -> None:
        """Update the count of received bytes. The connection moves if they exceed heartbeats."""
        self.received = received
        if received - self.moved > MOVES_BYTES + HEARTBEATS_PER_S * (now - self.moved_at):
            self.moved, self.moved_at = received, now

    def unfinished_bytes(self, now: float) -> int:
        """Return the bytes received since the last whole message, less the heartbeats."""
        return round(self.received - self.base - HEARTBEATS_PER_S * (now - self.base_at))


class TrackedConnection:
    """Observer of a connecting socket: it finds its connection in a `ConnectionLimiter`."""

    def __init__(self, connections: ConnectionLimiter) -> None:
        self._connections = connections
        self._fd = -1

    def opened(self, fd: int) -> None:
        """Record a new connection."""
        self._fd = fd
        self._connections.opened(fd)

    def ended(self, fd: int) -> None:
        """Record its end."""
        self._fd = -1
        self._connections.ended(fd)

    @property
    def moved_at(self) -> float:
        """Time at which bytes of a message last came in, whole or not; minus infinity if never."""
        at = self._connections.moved_at(self._fd)
        return -inf if at is None else at


class ConnectionLimiter:
    """Limiter of the connections of one socket, or of several with the same limits."""

    def __init__(self, bounds: ConnectionLimits, *, count_max: int | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._bounds = bounds
        self._count_max = descriptors_for_connections() if count_max is None else count_max
        self._known: dict[int, _Connection] = {}
        self._by_address: dict[str, dict[int, _Connection]] = {}
        self._turn: list[_Connection] = []
        self._memory = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._known)

    # -- begin and end of connections -------------------------------------------------------------

    def opened(self, fd: int) -> None:
        """Record a new connection.

        When there are too many, the newest one of the address with most of them is closed, so that
        one address cannot take the places of others.
        """
        self.ended(fd)
        try:
            connection = _Connection(fd, os.fstat(fd).st_ino, _address(fd), monotonic())
        except OSError:
            return  # it is gone already
        connection.base_at = connection.moved_at = connection.since
        self._known[fd] = connection
        self._by_address.setdefault(connection.address, {})[fd] = connection
        if len(self._known) > self._count_max:
            most = max(self._by_address.values(), key=len)
            self._cut(next(reversed(most.values())), "too many")
        if self._timer is None:
            self._memory = memory_bytes()
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def ended(self, fd: int) -> None:
        """Record the end of a connection."""
        connection = self._known.pop(fd, None)
        if connection is None:
            return
        same = self._by_address[connection.address]
        del same[fd]
        if not same:
            del self._by_address[connection.address]

    def on_message(self, frame: zmq.Frame) -> None:
        """Record a whole message, of which ``frame`` is one frame."""
        self.on_message_from(int(frame.get(zmq.SRCFD)))

    def on_message_from(self, fd: int) -> None:
        """Record a whole message of the connection with descriptor ``fd``."""
        connection = self._known.get(fd)
        if connection is not None:
            connection.got_message = True

    def moved_at(self, fd: int) -> float | None:
        """Return when bytes of a message last came in on a connection; None if unknown."""
        connection = self._known.get(fd)
        return None if connection is None else connection.moved_at

    def close(self) -> None:
        """Stop polling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- polling ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        try:
            self._poll()
        finally:
            # Invariant: polling goes on after any error; without it connections have no limits.
            if self._known:
                self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _poll(self) -> None:
        now, memory = monotonic(), memory_bytes()
        grown = memory - self._memory >= GROWTH_BYTES
        if grown or memory < self._memory:
            self._memory = memory
        if grown or not self._turn:
            self._turn = list(self._known.values())
        count = len(self._turn) if grown else POLLED_PER_TICK
        some = self._turn[-count:]
        del self._turn[-count:]
        self._poll_each(some, now)
        if not self._turn and self._bounds.all_unfinished_bytes is not None:
            self._cut_the_largest(self._bounds.all_unfinished_bytes, now)

    def _poll_each(self, some: list[_Connection], now: float) -> None:
        bounds = self._bounds
        for connection in some:
            if self._known.get(connection.fd) is not connection:
                continue  # it ended since the rotation was made
            if not connection.is_there:
                self.ended(connection.fd)
                continue
            counts = self._query(connection, _tcp_info)
            if counts is None:
                continue
            acked, received, waiting = counts
            if acked != connection.acked or not waiting:
                connection.acked, connection.acked_at = acked, now
            connection.on_received(received, now)
            if now - connection.acked_at > bounds.not_reading_s:
                self._cut(connection, "not reading")
            elif connection.got_message:
                # Messages of a connection do not interleave: no unfinished one is older.
                connection.got_message = False
                connection.base, connection.base_at = received, now
            elif connection.unfinished_bytes(now) > bounds.unfinished_bytes:
                self._cut(connection, "over budget")

    def _cut_the_largest(self, most: int, now: float) -> None:
        over = {
            connection: extra
            for connection in self._known.values()
            if (extra := connection.unfinished_bytes(now) - self._bounds.free_bytes) > 0
        }
        total = sum(over.values())
        for connection in sorted(over, key=over.__getitem__, reverse=True):
            if total <= most:
                return
            total -= over[connection]
            self._cut(connection, "over budget")

    def _cut(self, connection: _Connection, why: str) -> None:
        def shut(one: socket.socket) -> None:
            one.shutdown(socket.SHUT_RDWR)

        self._query(connection, shut)
        self.ended(connection.fd)
        self.counts[why] += 1
        if self.counts[why] in (1, 10, 100) or self.counts[why] % 1000 == 0:
            log.warning("%d connections cut: %s (%s)", self.counts[why], why, connection.address)

    def _query(self, connection: _Connection, question: Callable[[socket.socket], Any]) -> Any:
        """Ask the kernel about a descriptor that is libzmq's, and stays so."""
        if not connection.is_there:
            return None
        try:
            borrowed = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=connection.fd)
        except OSError:
            return None  # libzmq closed it since, on a thread of its own
        try:
            return question(borrowed)
        except OSError:
            return None
        finally:
            borrowed.detach()


def _tcp_info(one: socket.socket) -> tuple[int, int, int] | None:
    """Return the bytes acknowledged by the other side, received from it, and not yet sent."""
    known = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(known) < _TCP_INFO.size:
        return None
    acked, received, waiting = _TCP_INFO.unpack(known)
    return acked, received, waiting


def _address(fd: int) -> str:
    borrowed = socket.socket(fileno=fd)
    try:
        name = borrowed.getpeername()
    finally:
        borrowed.detach()
    return str(name[0]) if isinstance(name, tuple) else ""


def memory_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not tell it."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
    return 0


def descriptors_for_connections() -> int:
    """Return the number of connections that leave enough descriptors for other uses."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.CONNECTIONS_MAX
    return max(32, min(limits.CONNECTIONS_MAX, (soft - OTHER_DESCRIPTORS) // 2))
