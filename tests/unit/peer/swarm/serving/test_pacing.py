"""Pacer: the sure rate, and the time of the next piece, by values."""

from __future__ import annotations

from math import inf

import pytest

from peer.swarm.serving.pacing import Pacer

PIECE = 500
RATE = 1000.0  # so a piece takes 0.5 s


def paced(count: int, wait_s: float = 0.0, rate: float = RATE, start: float = 0.0) -> Pacer:
    """Return a pacer after pieces without a pause, each of which waits at its receiver's link."""
    pacer = Pacer()
    add(pacer, count, wait_s, rate, start)
    return pacer


def add(pacer: Pacer, count: int, wait_s: float, rate: float, start: float) -> None:
    for number in range(count):
        sent_at = start + number * PIECE / rate
        pacer.acknowledged(PIECE, sent_at, sent_at + PIECE / rate + wait_s)


def test_nothing_is_paced_before_the_first_acknowledgement() -> None:
    pacer = Pacer()
    pacer.sent(PIECE, 0.0)
    assert (pacer.rate, pacer.due_at(PIECE), pacer.takes_s(PIECE)) == (0.0, inf, inf)


def test_the_sure_rate_is_the_rate_of_the_link_if_pieces_arrive_at_once() -> None:
    pacer = paced(8)
    assert pacer.rate == pytest.approx(RATE)
    assert pacer.takes_s(PIECE) == pytest.approx(0.5)


@pytest.mark.parametrize("wait_s", [0.1, 1.0, 4.0])
def test_the_sure_rate_is_never_above_the_rate_of_the_link(wait_s: float) -> None:
    assert 0.75 * RATE < paced(60, wait_s).rate < RATE


def test_acknowledgements_that_arrive_together_raise_nothing() -> None:
    pacer = paced(8)
    for number in range(8, 16):
        pacer.acknowledged(PIECE, number * 0.5, 8.0 + 1e-3 * number)
    assert pacer.rate <= RATE * 1.001


def test_a_burst_of_a_shaper_counts_within_a_longer_time_only() -> None:
    pacer = paced(8)
    pacer.acknowledged(PIECE, 4.0, 4.01)
    assert pacer.rate < 1.4 * RATE


def test_the_sure_rate_fades_when_the_link_becomes_slower_and_rises_at_once() -> None:
    pacer = paced(8)
    add(pacer, 40, 0.0, RATE / 4, start=10.0)
    assert RATE / 4 <= pacer.rate < RATE / 2
    add(pacer, 8, 0.0, RATE, start=200.0)
    assert pacer.rate == pytest.approx(RATE)


def test_the_next_piece_is_due_shortly_before_the_last_one_has_left() -> None:
    pacer = paced(8)
    takes_s = PIECE / (RATE * 1.3)
    pacer.sent(PIECE, 10.0)
    assert pacer.due_at(PIECE) == pytest.approx(10.0 + takes_s / 2)
    pacer.sent(PIECE, 10.0)
    assert pacer.due_at(PIECE) == pytest.approx(10.0 + takes_s * 1.5)
    pacer.sent(PIECE, 20.0)
    assert pacer.due_at(PIECE) == pytest.approx(20.0 + takes_s / 2)
