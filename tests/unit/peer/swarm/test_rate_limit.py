"""Token buckets by an injected clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import UserId
from peer.swarm.rate_limit import RateLimit, Rates, TokenBucket

ANN, BOB = UserId("ann"), UserId("bob")


def test_whoever_finds_credit_may_take_more_and_all_wait_for_the_debt() -> None:
    bucket = TokenBucket(100.0)
    assert bucket.ready_at(0.0) == 0.0
    bucket.take(125, 0.0)  # a burst of 25, and a debt of 100
    assert bucket.ready_at(0.0) == pytest.approx(1.0, abs=1e-3)
    assert bucket.ready_at(0.5) == pytest.approx(1.0, abs=1e-3)
    assert bucket.ready_at(1.1) == 1.1


def test_what_is_given_back_can_be_taken_again() -> None:
    bucket = TokenBucket(100.0)
    bucket.take(125, 0.0)
    bucket.give_back(125)
    assert bucket.ready_at(0.0) == 0.0


@given(
    st.floats(1.0, 1e9),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.0, 10.0)), max_size=50),
)
def test_no_more_flows_than_the_rate_and_one_burst(
    rate: float, wishes: list[tuple[int, float]]
) -> None:
    bucket, now, last, taken = TokenBucket(rate), 0.0, 0, 0
    for size, pause in wishes:
        now = max(now + pause, bucket.ready_at(now + pause))
        bucket.take(size, now)
        taken += size
        last = size
        assert taken - last <= rate * (now + 0.25) + 1.0


def test_a_limit_holds_for_all_and_for_each_user() -> None:
    limit = RateLimit(Rates(everything=1000.0, each_user=100.0))
    limit.take(ANN, 75, 0.0)
    assert limit.user_ready_at(ANN, 0.0) == pytest.approx(0.5, abs=1e-3)
    assert limit.user_ready_at(BOB, 0.0) == 0.0
    assert limit.ready_at(0.0) == 0.0
    limit.take(BOB, 675, 0.0)
    assert limit.ready_at(0.0) == pytest.approx(0.5, abs=1e-3)
    limit.give_back(BOB, 675)
    assert limit.ready_at(0.0) == 0.0
    assert not limit.unlimited


def test_limits_change_in_mid_traffic() -> None:
    limit = RateLimit()
    assert limit.unlimited
    limit.take(ANN, 10**9, 0.0)
    limit.set(Rates(each_user=10.0))
    assert not limit.unlimited
    limit.take(ANN, 10, 0.0)
    assert limit.user_ready_at(ANN, 0.0) > 0.0
    limit.set(Rates())
    assert limit.user_ready_at(ANN, 0.0) == 0.0


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limit of 0"):
        TokenBucket(0.0)
