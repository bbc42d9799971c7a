"""What each connection may make a process hold: the bounds that ZeroMQ itself has not got.

A high-water mark counts whole messages. A message of frames without end, or a subscription after
the other, is kept in memory for as long as the connection lives, and nobody is asked; so are the
answers to somebody who asks and does not read. So the kernel's counts of what came in on each
connection, and what was taken off our hands, are looked at, several times a second when memory
grows, and whoever is beyond a bound is cut off. `common.net.sockets.SocketMonitor` tells of
connections that begin and end. Sockets on ``ipc`` have no such count; whoever reaches those is the
user of this machine whose files they are.
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
LOOKED_AT_PER_TICK = 200  # while memory does not grow, the connections are looked at by turns
GROWTH_BYTES = 16 * limits.MIB  # memory grew by that much: look at all of them
HEARTBEATS_PER_S = 20.0  # bytes that a connection costs while nobody says anything
MOVES_BYTES = 512  # what comes in beyond signs of life is a message on its way
OTHER_DESCRIPTORS = 256  # files, sockets of our own and what libraries need
# Of Linux's struct tcp_info: tcpi_bytes_acked, tcpi_bytes_received, two counts of segments and
# tcpi_notsent_bytes.
_TCP_INFO = struct.Struct("=120xQQ8xI")


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection may do, and all of them together.

    ``silent_bytes`` is what may come in without a whole message in it, ``all_silent_bytes`` the
    same of all together, beyond ``free_bytes`` each. On sockets on which no message ever comes
    out, as those that publish, that is what may come in a connection's life. ``deaf_s`` is for how
    long it may take nothing of what waits to be sent to it.
    """

    silent_bytes: int
    all_silent_bytes: int | None = None
    free_bytes: int = 4 * limits.KIB
    deaf_s: float = limits.DEAF_S


MESSAGES = ConnectionLimits(
    silent_bytes=limits.UNFINISHED_BYTES_MAX,
    all_silent_bytes=limits.UNFINISHED_BYTES_ALL_MAX,
    free_bytes=512 * limits.KIB,
)
SUBSCRIPTIONS = ConnectionLimits(
    silent_bytes=limits.SUBSCRIPTIONS_BYTES_MAX,
    all_silent_bytes=limits.SUBSCRIPTIONS_BYTES_ALL_MAX,
)


@dataclass(slots=True, eq=False)
class _Connection:
    fd: int
    inode: int
    address: str
    since: float
    base: int = 0
    """Bytes received when a whole message was last seen to have come."""
    base_at: float = 0.0
    received: int = 0
    moved: int = 0
    """Bytes received when it was last seen to move."""
    moved_at: float = 0.0
    heard: bool = False
    acked: int = -1
    acked_at: float = 0.0

    @property
    def is_there(self) -> bool:
        """Whether the descriptor is still what it was, and not something else by now."""
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False

    def came(self, received: int, now: float) -> None:
        """So many bytes came in by now: it moves if they are more than signs of life."""
        self.received = received
        if received - self.moved > MOVES_BYTES + HEARTBEATS_PER_S * (now - self.moved_at):
            self.moved, self.moved_at = received, now

    def silent_bytes(self, now: float) -> int:
        """What came since, less the signs of life."""
        return round(self.received - self.base - HEARTBEATS_PER_S * (now - self.base_at))


class Line:
    """The connection of one socket that connects: a `common.net.sockets.ConnectionObserver` that
    knows which of the `Connections` it is."""

    def __init__(self, connections: ConnectionLimiter) -> None:
        self._connections = connections
        self._fd = -1

    def opened(self, fd: int) -> None:
        """It began."""
        self._fd = fd
        self._connections.opened(fd)

    def ended(self, fd: int) -> None:
        """It ended."""
        self._fd = -1
        self._connections.ended(fd)

    @property
    def moved_at(self) -> float:
        """When bytes of a message last came in, whole or not; minus infinity if never."""
        at = self._connections.moved_at(self._fd)
        return -inf if at is None else at


class ConnectionLimiter:
    """The connections of one socket, or of several that have the same bounds."""

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

    # -- what becomes of connections --------------------------------------------------------------

    def opened(self, fd: int) -> None:
        """A connection began. When there are too many, the newest of the address that has most of
        them is cut, so that one address cannot take the place of others."""
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
        """A connection ended."""
        connection = self._known.pop(fd, None)
        if connection is None:
            return
        same = self._by_address[connection.address]
        del same[fd]
        if not same:
            del self._by_address[connection.address]

    def heard(self, frame: zmq.Frame) -> None:
        """A whole message came, of which ``frame`` is one."""
        connection = self._known.get(int(frame.get(zmq.SRCFD)))
        if connection is not None:
            connection.heard = True

    def moved_at(self, fd: int) -> float | None:
        """When bytes of a message last came in on a connection; None if that is not known."""
        connection = self._known.get(fd)
        return None if connection is None else connection.moved_at

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- looking ----------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._timer = None
        try:
            self._look()
        finally:
            # Whatever went wrong: who is not looked at any more is bound by nothing.
            if self._known:
                self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _look(self) -> None:
        now, memory = monotonic(), memory_bytes()
        grown = memory - self._memory >= GROWTH_BYTES
        if grown or memory < self._memory:
            self._memory = memory
        if grown or not self._turn:
            self._turn = list(self._known.values())
        count = len(self._turn) if grown else LOOKED_AT_PER_TICK
        some = self._turn[-count:]
        del self._turn[-count:]
        self._look_at(some, now)
        if not self._turn and self._bounds.all_silent_bytes is not None:
            self._cut_the_greediest(self._bounds.all_silent_bytes, now)

    def _look_at(self, some: list[_Connection], now: float) -> None:
        bounds = self._bounds
        for connection in some:
            if self._known.get(connection.fd) is not connection:
                continue  # it ended since the turns were dealt out
            if not connection.is_there:
                self.ended(connection.fd)
                continue
            told = self._ask(connection, _tcp_info)
            if told is None:
                continue
            acked, received, waiting = told
            if acked != connection.acked or not waiting:
                connection.acked, connection.acked_at = acked, now
            connection.came(received, now)
            if now - connection.acked_at > bounds.deaf_s:
                self._cut(connection, "deaf")
            elif connection.heard:
                # Messages of a connection do not mix: nothing unfinished is older than this.
                connection.heard = False
                connection.base, connection.base_at = received, now
            elif connection.silent_bytes(now) > bounds.silent_bytes:
                self._cut(connection, "greedy")

    def _cut_the_greediest(self, most: int, now: float) -> None:
        over = {
            connection: extra
            for connection in self._known.values()
            if (extra := connection.silent_bytes(now) - self._bounds.free_bytes) > 0
        }
        total = sum(over.values())
        for connection in sorted(over, key=over.__getitem__, reverse=True):
            if total <= most:
                return
            total -= over[connection]
            self._cut(connection, "greedy")

    def _cut(self, connection: _Connection, why: str) -> None:
        def shut(one: socket.socket) -> None:
            one.shutdown(socket.SHUT_RDWR)

        self._ask(connection, shut)
        self.ended(connection.fd)
        self.counts[why] += 1
        if self.counts[why] in (1, 10, 100) or self.counts[why] % 1000 == 0:
            log.warning("%d connections cut: %s (%s)", self.counts[why], why, connection.address)

    def _ask(self, connection: _Connection, question: Callable[[socket.socket], Any]) -> Any:
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
    """Bytes that the other side has acknowledged, that came from it, and that wait to be sent."""
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
    """Resident memory of this process; 0 where the system does not tell it so."""
    with contextlib.suppress(OSError, ValueError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
    return 0


def descriptors_for_connections() -> int:
    """How many connections leave descriptors for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.CONNECTIONS_MAX
    return max(32, min(limits.CONNECTIONS_MAX, (soft - OTHER_DESCRIPTORS) // 2))
