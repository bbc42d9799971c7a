"""Fellow trackers: what devices learn of them, and the spreading of devices over them."""

from __future__ import annotations

from random import Random

import pytest

from common.messages import events, tracker
from tests.support.tracker_harness import TrackerHarness
from tracker.core.fellows import UNDERWAY_S, Fellows
from tracker.core.outbox import Outbox


def spread(counts: list[int], seed: int, move: bool = True) -> tuple[list[int], int]:
    """Run trackers with these numbers of devices; return the numbers in the end, and all moves."""
    rng, all_, moves = Random(seed), [Fellows() for _ in counts], 0
    shown = list(counts)
    for at in range(60):
        now = 1_000.0 + 2.0 * at
        for number, fellows in enumerate(all_):
            others = [count for other, count in enumerate(shown) if other != number]
            fellows.count(counts[number], others, now)
        shown = list(counts)  # others read the numbers of the time before
        for number, fellows in enumerate(all_):
            for _ in range(counts[number]):
                if not fellows.wants_fewer():
                    break
                fellows.sent_away(now)
                moves += 1
                if move:
                    counts[number] -= 1
                    counts[rng.choice([o for o in range(len(counts)) if o != number])] += 1
    return counts, moves


@pytest.mark.parametrize(
    "counts",
    [[4, 0], [3, 0], [5, 0, 0], [100, 0], [60, 60, 0], [10_000, 0], [5_000, 5_000, 0]],
    ids=str,
)
def test_devices_are_spread_evenly_with_few_moves(counts: list[int]) -> None:
    even, total = sum(counts) / len(counts), sum(counts)
    for seed in range(3):
        ended, moves = spread(list(counts), seed)
        assert sum(ended) == total
        assert max(ended) <= even * 1.2 + 1, ended
        assert moves <= total - max(counts) + total / 2 + 2, (ended, moves)


def test_even_numbers_and_a_lone_tracker_move_no_device() -> None:
    for counts in ([1, 0], [2, 1], [10, 9], [110, 100], [500], [0, 0]):
        assert spread(list(counts), 1) == (counts, 0)


def test_large_differences_take_a_while() -> None:
    fellows = Fellows()
    fellows.count(10_000, [0], 100.0)
    fellows.count(10_000, [0], 102.0)
    sent = 0
    while fellows.wants_fewer():
        fellows.sent_away(102.0)
        sent += 1
    assert 100 < sent < 1_000


def test_devices_that_were_sent_away_are_not_counted_twice() -> None:
    fellows = Fellows()
    fellows.count(4, [0], 100.0)
    for _ in range(2):
        assert fellows.wants_fewer()
        fellows.sent_away(100.0)
    fellows.count(4, [0], 101.0)  # they are on their way
    assert not fellows.wants_fewer()
    fellows.count(4, [0], 101.0 + UNDERWAY_S)  # they did not go
    assert fellows.wants_fewer()
    fellows.cut_off = True
    assert not fellows.wants_fewer()


def test_devices_learn_of_all_trackers_and_are_sent_away(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    fellows = harness.context.fellows
    assert alice.does(tracker.Hello()).trackers == []
    fellows.endpoints = tuple(f"tcp://192.0.2.{number}:5000" for number in range(30))
    assert alice.does(tracker.Hello()).trackers == list(fellows.endpoints[:16])
    announce = tracker.Announce("tcp://192.0.2.1:9")
    assert not alice.does(announce).elsewhere
    fellows.count(5, [0], harness.now_s)
    assert alice.does(announce).elsewhere


def test_the_beat_says_that_the_database_is_lost(harness: TrackerHarness) -> None:
    for cut_off in (False, True):
        body = Outbox().beat(harness.context.identity, harness.now, cut_off).body
        assert isinstance(body, events.Beat)
        assert body.cut_off is cut_off
