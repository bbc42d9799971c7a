"""Readers of an unfinished download, in a whole swarm in virtual time.

Each plays its stretch at a rate, and looks some pieces ahead.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from peer.swarm.fetching import events as ev
from peer.swarm.fetching.picker import Order
from peer.swarm.fetching.settings import DownloadSettings
from tests.simulation.peer import SimPeer
from tests.simulation.swarm import KIB, MBIT, MIB, Scenario, Swarm

PIECE = 512 * KIB
AHEAD = 16
SCENARIO = Scenario(leechers=3, seeders=2, size=128 * MIB, piece_length=PIECE, up=80 * MBIT)
SEEDS = range(2)


class Reader:
    """Reads `stretch` of `peer` from ``begin`` on, a piece every `pace_s` at best."""

    def __init__(
        self, number: int, peer: SimPeer, stretch: range, begin: float, pace_s: float
    ) -> None:
        self.number, self.peer, self.stretch, self.pace_s = number, peer, stretch, pace_s
        self.at = stretch.start
        self.waited_s = 0.0
        self.ended_at: float | None = None
        peer.clock.at(begin, self.turn)

    def turn(self) -> None:
        clock, download = self.peer.clock, self.peer.download
        assert download is not None
        if self.at in download.pieces.held:
            self.at += 1
        else:
            self.waited_s += self.pace_s
        if self.at == self.stretch.stop:
            self.stop()
            return
        end = min(self.stretch.stop, self.at + AHEAD)
        self.peer.fetch(ev.ReadHead(self.number, self.at, end - self.at))
        clock.at(clock.now + self.pace_s, self.turn)

    def stop(self) -> None:
        self.ended_at = self.peer.clock.now
        self.peer.fetch(ev.ReadHeadGone(self.number))


def swarm(order: Order, seed: int) -> Swarm:
    print(f"seed {seed}")
    made = Swarm(
        replace(SCENARIO, download=DownloadSettings(order=order)), seed, checked=order is Order.READ
    )
    made.start_all()
    return made


@pytest.mark.parametrize("seed", SEEDS)
def test_two_readers_far_apart_both_play(seed: int) -> None:
    """Neither waits for longer than the requests that were in flight before."""
    made = swarm(Order.RAREST, seed)
    peer = made.leechers[0]
    readers = [
        Reader(1, peer, range(12), 0.3, 0.2),
        Reader(2, peer, range(200, 212), 0.3, 0.2),
    ]
    result = made.run()
    assert result.unfinished == 0
    for reader in readers:
        assert reader.ended_at is not None
        print(f"reader {reader.number} waited {reader.waited_s:.2f} s")
        assert reader.waited_s < 1.5 * DownloadSettings().horizon_s


@pytest.mark.parametrize("seed", SEEDS)
def test_a_reader_that_stops_leaves_the_order_as_it_was(seed: int) -> None:
    made = swarm(Order.RAREST, seed)
    reader = Reader(1, made.leechers[0], range(100, 256), 0.1, 0.05)
    made.clock.at(1.0, reader.stop)
    result = made.run()
    assert result.unfinished == 0
    assert result.duplicate_bytes <= 0.05 * 3 * SCENARIO.size


@pytest.mark.parametrize("seed", SEEDS)
def test_in_the_order_read_nothing_else_is_fetched(seed: int) -> None:
    made = swarm(Order.READ, seed)
    peer, idle = made.leechers[:2]
    reader = Reader(1, peer, range(50, 90), 0.1, 0.02)
    made.run(until_s=60.0)
    assert reader.ended_at is not None
    assert peer.download is not None
    assert idle.download is not None
    assert set(peer.download.pieces.held) == set(range(50, 90))
    assert idle.download.pieces.held.count == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_the_end_of_a_file_comes_with_its_beginning(seed: int) -> None:
    """Two heads of one reader, as it opens a file: its last pieces, and those ahead of it."""
    made = swarm(Order.READ, seed)
    peer, count = made.leechers[0], SCENARIO.size // PIECE
    tail, ahead = range(count - 2, count), range(64)
    held_before_the_end: list[int] = []

    def look() -> None:
        assert peer.download is not None
        held = peer.download.pieces.held
        if all(piece in held for piece in tail):
            held_before_the_end.append(held.count)
        else:
            made.clock.at(made.clock.now + 0.005, look)

    def open_file() -> None:
        peer.fetch(ev.ReadHead(2, tail.start, len(tail)))
        peer.fetch(ev.ReadHead(1, ahead.start, len(ahead)))
        look()

    made.clock.at(0.1, open_file)
    made.run(until_s=60.0)
    print(f"{held_before_the_end} pieces were held when the end was")
    assert held_before_the_end[0] < len(ahead) // 2
    assert peer.download is not None
    assert set(peer.download.pieces.held) == {*tail, *ahead}
