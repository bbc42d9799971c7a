"""`common.net.connection_limits` over plain TCP: who is cut, and who is not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from common.limits import KIB
from common.net.connection_limits import ConnectionLimiter, ConnectionLimits, _Connection
from tests.support.waiting import PATIENCE_S


class Pair:
    """A connection from ``source``: our end of it, and theirs."""

    def __init__(self, listener: socket.socket, source: str = "127.0.0.1") -> None:
        self.theirs = socket.socket()
        self.theirs.bind((source, 0))
        self.theirs.settimeout(PATIENCE_S)
        self.theirs.connect(listener.getsockname())
        self.ours = listener.accept()[0]
        self.ours.setblocking(False)

    def is_cut(self) -> bool:
        return self.theirs.fileno() < 0 or not _is_open(self.theirs)


def _is_open(one: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        try:
            one.setblocking(False)
            while one.recv(65536):
                pass
        except ConnectionError:
            pass
        return False
    return True


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until something is so."""
    so, loop = asyncio.Event(), asyncio.get_running_loop()

    def look() -> None:
        if condition():
            so.set()
        else:
            loop.call_later(0.01, look)

    look()
    await asyncio.wait_for(so.wait(), PATIENCE_S)


async def test_h04_the_newest_of_the_address_that_has_most_is_cut(listener: socket.socket) -> None:
    connections = ConnectionLimiter(ConnectionLimits(1 << 20), count_max=4)
    crowd = [Pair(listener) for _ in range(3)]
    lonely = [Pair(listener, "127.0.0.2"), Pair(listener, "127.0.0.3")]
    for pair in (*crowd, *lonely):
        connections.opened(pair.ours.fileno())
    assert [pair.is_cut() for pair in crowd] == [False, False, True]
    assert [pair.is_cut() for pair in lonely] == [False, False]
    assert len(connections) == 4
    connections.close()


async def test_a_connection_that_ends_while_it_is_looked_at_ends_no_looking(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """libzmq closes descriptors on a thread of its own, at any moment."""
    monkeypatch.setattr(_Connection, "is_there", True)
    connections = ConnectionLimiter(ConnectionLimits(64 * KIB))
    ended, greedy = Pair(listener), Pair(listener)
    for pair in (ended, greedy):
        connections.opened(pair.ours.fileno())
    ended.ours.close()
    greedy.theirs.sendall(bytes(1 << 20))
    await until(lambda: connections.counts["over budget"] > 0)
    connections.close()


async def test_h36_a_connection_that_reads_nothing_is_closed(listener: socket.socket) -> None:
    connections = ConnectionLimiter(ConnectionLimits(1 << 20, not_reading_s=0.5))
    deaf, reader, quiet = Pair(listener), Pair(listener), Pair(listener)
    for pair in (deaf, reader, quiet):
        connections.opened(pair.ours.fileno())
    reader.theirs.setblocking(False)

    def feed() -> bool:
        for pair in (deaf, reader):
            with contextlib.suppress(BlockingIOError, OSError):
                while pair.ours.send(bytes(64 * KIB)):
                    pass
        with contextlib.suppress(BlockingIOError):
            while reader.theirs.recv(1 << 20):
                pass
        return connections.counts["not reading"] > 0

    await until(feed)
    assert connections.counts == {"not reading": 1}
    assert not reader.is_cut()
    assert not quiet.is_cut()
    with pytest.raises(OSError):
        deaf.ours.send(b"x")
    connections.close()


async def test_h13_all_together_are_bounded_and_the_largest_is_closed_first(
    listener: socket.socket,
) -> None:
    bounds = ConnectionLimits(64 * KIB, all_unfinished_bytes=40 * KIB, free_bytes=KIB)
    connections = ConnectionLimiter(bounds)
    pairs = [Pair(listener) for _ in range(4)]
    for pair, size in zip(pairs, (0, 10 * KIB, 20 * KIB, 30 * KIB), strict=True):
        connections.opened(pair.ours.fileno())
        pair.theirs.sendall(bytes(size))
    await until(lambda: connections.counts["over budget"])
    assert [pair.is_cut() for pair in pairs] == [False, False, False, True]
    connections.close()


async def test_a_number_that_belongs_to_something_else_by_now_is_left_alone(
    listener: socket.socket,
) -> None:
    connections = ConnectionLimiter(ConnectionLimits(1))
    before = Pair(listener)
    number = before.ours.fileno()
    connections.opened(number)
    other = Pair(listener)  # takes the number, and does not matter here
    os.dup2(other.ours.fileno(), number)
    other.theirs.sendall(bytes(1000))
    other.ours.send(bytes(1000))
    await until(lambda: not len(connections))
    assert connections.counts == {}
    assert not other.is_cut()
    connections.close()


def test_h13_signs_of_life_are_no_subscriptions() -> None:
    idle_for_a_week = _Connection(fd=0, inode=0, address="", since=0.0, received=9_900_000)
    assert idle_for_a_week.unfinished_bytes(7 * 86_400.0) < 0
    assert idle_for_a_week.unfinished_bytes(0.0) == 9_900_000
