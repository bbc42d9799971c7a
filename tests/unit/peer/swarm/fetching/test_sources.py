"""Table of sources: ranking, backoff, stall timeouts."""

from __future__ import annotations

from random import Random

import pytest

from common.ids import DeviceKey, UserId
from peer.swarm.fetching.events import Verdict
from peer.swarm.fetching.sources import STRIKES_MAX, LatencyStats, Phase, Source, SourceTable, Stall
from peer.swarm.pieces import Bitfield

USER = UserId("ann")


def key(number: int) -> DeviceKey:
    return DeviceKey(bytes([number]) * 32)


def new_table(known_max: int = 50, used_max: int = 20) -> SourceTable:
    return SourceTable(Random(1), 10, 2.0, known_max, used_max)


def learnt(table: SourceTable, number: int, complete: bool = True) -> Source:
    source = table.learn(key(number), USER, complete)
    assert source is not None
    return source


def opened(table: SourceTable, number: int, have: Bitfield | None, rate: float) -> Source:
    """An open source that has given at this rate, with a request in flight."""
    source = learnt(table, number, have is None)
    table.opening(source, 0.0)
    table.opened(source, have, 0.0)
    source.window.start(0.0)
    source.window.add(int(rate * 100), 100.0)
    source.in_flight[0] = 100.0
    return source


def test_seeders_are_opened_before_leechers_and_failed_ones_last() -> None:
    table = new_table()
    failed, leecher, seeder = learnt(table, 1), learnt(table, 2, False), learnt(table, 3)
    failed.failures = 1
    order = []
    while (source := table.next_to_open(0.0)) is not None:
        table.opening(source, 0.0)
        order.append(source)
    assert order == [seeder, leecher, failed]
    table.check_invariants()


def test_the_only_complete_source_is_opened_before_one_that_never_failed() -> None:
    table = new_table()
    seeder, leecher = learnt(table, 1), learnt(table, 2, False)
    seeder.failures = 3
    assert table.best_spare(0.0) is seeder
    table.opening(learnt(table, 3), 0.0)
    assert table.best_spare(0.0) is leecher


def test_ties_are_opened_at_random() -> None:
    firsts = set()
    for seed in range(30):
        table = SourceTable(Random(seed), 10, 2.0, 50, 20)
        for number in range(5):
            learnt(table, number)
        first = table.next_to_open(0.0)
        assert first is not None
        firsts.add(first.id)
    assert len(firsts) == 5


def test_the_waits_of_a_failing_source_double_with_jitter() -> None:
    table = new_table()
    source = learnt(table, 1)
    waits = []
    for _ in range(9):
        table.opening(source, 0.0)
        table.closed(source, Verdict.UNREACHABLE, 0.0)
        waits.append(source.retry_at)
    assert 0.5 <= waits[0] <= 1.5
    assert 4.0 <= waits[3] <= 12.0
    assert all(30.0 <= wait <= 90.0 for wait in waits[6:])
    assert len(set(waits[6:])) == 3
    assert table.next_retry() == waits[-1]


def test_a_banned_source_is_never_opened_again() -> None:
    table = new_table()
    source = learnt(table, 1)
    table.opening(source, 0.0)
    table.closed(source, Verdict.WRONG, 0.0)
    table.unlist(source)
    assert not list(table)
    again = learnt(table, 1)
    assert again.phase is Phase.BANNED
    assert table.next_to_open(1e9) is None
    table.check_invariants()


def test_a_permanently_refused_source_causes_no_wakeup() -> None:
    table = new_table()
    learnt(table, 1).retry_at = float("inf")
    assert table.next_retry() is None


def test_invalid_messages_are_counted() -> None:
    table = new_table()
    source = learnt(table, 1)
    assert [table.strike(source) for _ in range(STRIKES_MAX)][-2:] == [False, True]


@pytest.mark.parametrize("fault", ["stalled", "slow", "idle"])
def test_the_worst_source_is_found(fault: str) -> None:
    table = new_table()
    have = Bitfield(4, [1])
    sources = [opened(table, n, have, 1000.0) for n in range(4)]
    assert table.worst(100.0, 10.0) is None
    bad = sources[2]
    match fault:
        case "stalled":
            bad.stall = Stall(since=50.0, wait_from=50.0, trial_at=60.0)
        case "slow":
            bad.window.reset()
            bad.window.start(0.0)
            bad.window.add(20, 100.0)
        case _:
            bad.in_flight.clear()
    worst = table.worst(100.001, 10.0)
    assert worst is not None
    assert worst[0] is bad
    assert worst[1] is (Verdict.USELESS if fault == "idle" else Verdict.SLOW)


def test_a_young_source_and_the_only_seeder_are_not_judged() -> None:
    table = new_table()
    seeder = opened(table, 1, None, 1000.0)
    for number in range(2, 5):
        opened(table, number, Bitfield(4, [1]), 1000.0)
    seeder.stall = Stall(since=50.0, wait_from=50.0, trial_at=60.0)
    assert table.worst(100.0, 10.0) is None
    opened(table, 6, None, 1000.0)
    worst = table.worst(100.0, 10.0)
    assert worst is not None
    assert worst[0] is seeder
    seeder.phase_since = 95.0
    assert table.worst(100.0, 10.0) is None


def test_the_stall_timeout_is_learnt_within_bounds() -> None:
    latency = LatencyStats()
    assert latency.stall_timeout_s() == 15.0
    for _ in range(100):
        latency.add(0.01, 0.01)
    assert latency.stall_timeout_s() == 1.0
    for number in range(200):
        latency.add(0.01, 1.5 + 0.2 * (number % 2))
    assert 1.6 < latency.stall_timeout_s() < 3.0
    for _ in range(100):
        latency.add(0.01, 60.0)
    assert latency.stall_timeout_s() == 4.0


def test_the_stall_timeout_follows_long_gaps_of_all_sources() -> None:
    latency = LatencyStats()
    latency.add(20.0, 20.0)
    assert latency.stall_timeout_s() >= 60.0
    for number in range(200):
        latency.add(20.0 + number % 5, None)
    assert 24.0 < latency.stall_timeout_s() < 35.0


def test_one_gap_out_of_all_proportion_is_capped() -> None:
    """A source that gives a piece every minute does not delay the detection of dead ones."""
    latency = LatencyStats()
    for _ in range(100):
        latency.add(0.01, 0.02)
    latency.add(60.0, 60.0)
    assert latency.stall_timeout_s() <= 4.0


def test_an_endless_gap_does_not_set_the_stall_timeout() -> None:
    latency = LatencyStats()
    latency.add(600.0, 600.0)
    assert latency.stall_timeout_s() <= 60.0
    for _ in range(20):
        latency.add(3600.0, None)
    assert latency.stall_timeout_s() <= 120.0


def test_h62_a_source_of_another_user_finds_place() -> None:
    """The devices of one member fill the table, and none of them has failed yet."""
    table = SourceTable(Random(1), 10, 2.0, 50, 20)
    for number in range(50):
        assert table.learn(DeviceKey(bytes([number]) * 32), UserId("eve"), True) is not None
    assert table.learn(DeviceKey(b"e" * 31 + b"!"), UserId("eve"), True) is None
    honest = table.learn(DeviceKey(b"h" * 32), UserId("hal"), True)
    assert honest is not None
    first = table.next_to_open(0.0)
    assert first is not None
    table.opening(first, 0.0)
    second = table.next_to_open(0.0)
    assert second is not None
    assert {first.user, second.user} == {"eve", "hal"}
    table.check_invariants()


def test_h62_the_failure_count_outlives_another_list() -> None:
    table = new_table()
    source = learnt(table, 1)
    table.opening(source, 0.0)
    table.closed(source, Verdict.UNREACHABLE, 0.0)
    assert source.retry_at > 0.0
    assert learnt(table, 1) is source
    assert (source.retry_at, source.failures) == (0.0, 1)
