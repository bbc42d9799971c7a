"""Request window of a source, and measured rates."""

from __future__ import annotations

import pytest

from peer.swarm.fetching.window import Window
from peer.swarm.rates import RateMeter, Throughput

KIB, MIB = 1024, 1024 * 1024
PIECE = 512 * KIB
ALL = float(64 * MIB)


def fed(rate: float, seconds: float, delay_s: float = 0.001) -> Window:
    """A window after `seconds` of pieces at `rate`."""
    window = Window(PIECE, horizon_s=2.0)
    window.start(0.0)
    for number in range(1, int(rate * seconds / PIECE) + 1):
        window.add(PIECE, delay_s + number * PIECE / rate)
    return window


def test_a_window_begins_with_two_pieces() -> None:
    assert Window(PIECE, 2.0).limit(ALL) == 2 * PIECE


def test_a_window_opens_by_received_bytes_up_to_the_horizon() -> None:
    window = Window(PIECE, 2.0)
    window.start(0.0)
    limits = []
    for number in range(1, 60):
        window.add(PIECE, number * 0.05)  # ten megabytes a second
        limits.append(window.limit(ALL))
    assert limits[:3] == [3 * PIECE, 4 * PIECE, 5 * PIECE]
    assert limits[-1] == pytest.approx(2.0 * PIECE / 0.05, rel=0.02)


def test_a_gigabyte_a_second_opens_it_within_a_tenth_of_a_second() -> None:
    assert fed(1e9, 0.1).limit(ALL) == ALL


def test_a_slow_source_keeps_some_pieces_to_choose_from() -> None:
    assert fed(1e6 / 8, 300.0).limit(ALL) == 8 * PIECE
    assert fed(1e6 / 8, 300.0).limit(3.0 * PIECE) == 3 * PIECE


@pytest.mark.parametrize("rate", [0.1e6, 1e6, 10e6])
def test_pieces_that_come_in_pairs_do_not_look_like_a_fast_source(rate: float) -> None:
    """Two pieces that share a slow link arrive together."""
    throughput, now = Throughput(0.5), 0.0
    throughput.start(now)
    for _ in range(40):
        now += 2 * PIECE / rate
        throughput.add(PIECE, now)
        now += 0.011
        throughput.add(PIECE, now)
        assert throughput.rate < 2 * rate
    assert throughput.rate > rate / 2


def test_a_window_stays_within_its_share() -> None:
    assert fed(1e9, 0.2).limit(8.0 * MIB) == 8 * MIB


def test_a_window_starts_again_after_a_stall() -> None:
    window = fed(1e9, 0.2)
    window.shrink()
    assert window.limit(ALL) == 2 * PIECE


def test_requests_are_gathered_for_a_fast_source_only() -> None:
    assert fed(1e9, 0.1).quantum(0) == 4 * PIECE
    assert fed(1e7, 1.0).quantum(0) == PIECE


def test_a_run_is_worth_waiting_for_once_a_window_holds_two() -> None:
    assert fed(1e7, 1.0).quantum(6 * PIECE) == 6 * PIECE
    assert Window(PIECE, 2.0).quantum(6 * PIECE) == PIECE


def test_silence_counts_against_the_rate() -> None:
    window = fed(1e7, 2.0)
    last = 0.001 + int(1e7 * 2.0 / PIECE) * PIECE / 1e7
    assert window.current_rate(last) == pytest.approx(1e7, rel=0.01)
    assert window.current_rate(last + 10.0) == pytest.approx(PIECE / 10.0)


def test_idle_time_does_not_count() -> None:
    rate = Throughput()
    rate.start(0.0)
    rate.add(1000, 0.1)
    rate.start(50.0)
    rate.add(1000, 50.1)
    assert rate.rate == pytest.approx(10_000)


def test_busy_times_shorter_than_a_sample_are_measured_together() -> None:
    rate, now = Throughput(0.5), 0.0
    rate.start(now)
    rate.add(100, 0.1)
    for step in range(20):
        now = 1.0 + step
        rate.start(now)
        rate.add(1000, now + 0.004)
    assert rate.rate == pytest.approx((100 + 1000 * 18) / (0.1 + 0.004 * 18))
    rate.start(now + 1.0)
    assert rate.rate_at(now + 1.0, 0) <= 2000 / 0.008


def test_a_burst_in_one_instant_is_measured_with_what_follows() -> None:
    rate = Throughput()
    rate.start(0.0)
    rate.add(1000, 0.1)
    for _ in range(9):
        rate.add(1000, 0.1)
    rate.add(1000, 0.2)
    assert rate.rate == pytest.approx((1000 / 0.1 * 0.1 + 10_000 / 0.1 * 0.1) / 0.2)


def test_the_meter_shows_the_rate_of_the_last_seconds() -> None:
    meter = RateMeter()
    assert meter.rate(5.0) == 0.0
    for step in range(1, 1001):
        meter.add(1000, step * 0.01)
    assert meter.rate(10.0) == pytest.approx(100_000, rel=0.02)
    assert meter.rate(20.0) < 1_000
