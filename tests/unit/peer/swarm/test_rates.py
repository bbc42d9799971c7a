"""Displayed rate, for scripted arrivals at many rates and piece lengths."""

from __future__ import annotations

import random

import pytest

from peer.swarm.rates import RateMeter

KIB = 1024
RATES = [16 * KIB, 64 * KIB, 128 * KIB, 500 * KIB, 3 * KIB * KIB, 300 * KIB * KIB]
PIECES = [16 * KIB, 512 * KIB, 2 * KIB * KIB, 4 * KIB * KIB]


def measured(
    arrivals: list[tuple[float, int]], since: float, until: float, step: float = 0.37
) -> list[float]:
    """The rates that are displayed at regular times."""
    meter, seen, looks = RateMeter(), list[float](), since
    meter.start(0.0)
    for at, size in [*arrivals, (until, 0)]:
        while looks < at:
            seen.append(meter.rate(looks))
            looks += step
        if size:
            meter.add(size, at)
    return seen


def steady(rate: float, piece: int, seconds: float) -> list[tuple[float, int]]:
    gap = piece / rate
    return [(gap * number, piece) for number in range(1, int(seconds / gap) + 1)]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("rate", RATES)
def test_a_steady_rate_is_measured_within_a_quarter_after_a_minute(rate: int, piece: int) -> None:
    gap = piece / rate
    since = max(60.0, 2 * gap)  # before anything came, nothing can be told
    arrivals = steady(rate, piece, since + 8 * gap + (5 if gap > 0.01 else 1))
    seen = measured(arrivals, since, arrivals[-1][0])
    assert seen
    assert all(abs(shown - rate) <= rate / 4 for shown in seen), (min(seen), max(seen), rate)


@pytest.mark.parametrize("sources", [2, 5, 20])
@pytest.mark.parametrize("piece", PIECES[1:])
def test_pieces_that_come_together_are_no_higher_rate(sources: int, piece: int) -> None:
    """Several sources that started together each give a piece at nearly the same time."""
    rate = 128 * KIB * sources
    gap = piece / (rate / sources)
    arrivals = [
        (gap * number + 0.01 * source, piece)
        for number in range(1, int(400 / gap))
        for source in range(sources)
    ]
    seen = measured(arrivals, max(60.0, 2 * gap), 390.0)
    assert all(abs(shown - rate) <= rate / 4 for shown in seen), (min(seen), max(seen), rate)


@pytest.mark.parametrize("piece", PIECES[:3])
def test_a_wavering_rate_is_measured_within_a_quarter(piece: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    rate, now, arrivals = 128 * KIB, 0.0, []
    while now < 400.0:
        now += piece / rate * rng.uniform(0.8, 1.2)
        arrivals.append((now, piece))
    seen = measured(arrivals, 60.0, 390.0)
    assert all(abs(shown - rate) <= rate / 4 for shown in seen), (min(seen), max(seen), rate)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("rate", RATES)
def test_a_rate_falls_to_nothing_when_nothing_comes(rate: int, piece: int) -> None:
    arrivals = steady(rate, piece, max(20.0, 4 * piece / rate))[:20_000]
    last, gap = arrivals[-1][0], piece / rate
    meter = RateMeter()
    for at, size in arrivals:
        meter.add(size, at)
    shown = [meter.rate(last + passed) for passed in (0.0, 2 * gap, 3 * gap, 4 * gap + 4.1)]
    assert shown == sorted(shown, reverse=True)
    assert shown[-1] == 0.0


def test_a_new_rate_shows_soon() -> None:
    """A change of the rate shows within seconds if pieces arrive quickly."""
    arrivals = steady(1000 * KIB, 16 * KIB, 60.0)
    arrivals += [(60.0 + at, size) for at, size in steady(100 * KIB, 16 * KIB, 60.0)]
    seen = measured(arrivals, 70.0, 119.0)
    assert all(abs(shown - 100 * KIB) <= 25 * KIB for shown in seen)


def test_a_limit_that_lets_a_piece_through_now_and_then_is_the_rate() -> None:
    """Each piece is requested when the limit allows it, and arrives at once."""
    arrivals = [(16.0 * number + 0.1, 2 * KIB * KIB) for number in range(20)]
    seen = measured(arrivals, 60.0, 300.0)
    assert all(abs(shown - 128 * KIB) <= 32 * KIB for shown in seen), (min(seen), max(seen))


def test_the_rate_after_a_silence_is_measured_anew() -> None:
    arrivals = steady(1000 * KIB, 16 * KIB, 30.0)
    arrivals += [(330.0 + at, size) for at, size in steady(200 * KIB, 16 * KIB, 30.0)]
    meter = RateMeter()
    for at, size in arrivals:
        meter.add(size, at)
    assert abs(meter.rate(360.0) - 200 * KIB) <= 20 * KIB


def test_the_meter_keeps_few_bursts() -> None:
    meter = RateMeter()
    for number in range(100_000):
        meter.add(KIB, number * 0.001)
    assert len(meter._bursts) < 64
