"""Token buckets by an injected clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.token_bucket import KeyedTokenBuckets, Rate, TokenBucket


def test_a_bucket_with_tokens_lends_more_and_then_waits_for_the_debt() -> None:
    bucket = TokenBucket(100.0, 25.0)
    assert bucket.ready_at(0.0) == 0.0
    bucket.take(125, 0.0)  # a burst of 25, and a debt of 100
    assert bucket.ready_at(0.0) == pytest.approx(1.0, abs=1e-3)
    assert bucket.ready_at(0.5) == pytest.approx(1.0, abs=1e-3)
    assert bucket.ready_at(1.1) == 1.1


def test_returned_tokens_can_be_taken_again() -> None:
    bucket = TokenBucket(100.0, 25.0)
    bucket.take(125, 0.0)
    bucket.give_back(125)
    assert bucket.ready_at(0.0) == 0.0


@given(
    st.floats(1.0, 1e9),
    st.lists(st.tuples(st.integers(1, 10**6), st.floats(0.0, 10.0)), max_size=50),
)
def test_no_more_is_taken_than_the_rate_and_one_burst(
    rate: float, requests: list[tuple[int, float]]
) -> None:
    bucket, now, last, taken = TokenBucket(rate, rate / 4), 0.0, 0, 0
    for size, pause in requests:
        now = max(now + pause, bucket.ready_at(now + pause))
        bucket.take(size, now)
        taken += size
        last = size
        assert taken - last <= rate * (now + 0.25) + 1.0


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = KeyedTokenBuckets(Rate(burst=3, per_s=2))
    assert [buckets.take("k", 0.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.wait_s("k", 0.0) == 0.5
    assert buckets.take("k", 0.5)
    assert not buckets.take("k", 0.6)
    assert buckets.take("other", 0.6)


def test_a_clock_that_stands_still_or_a_full_bucket_gives_no_more() -> None:
    buckets = KeyedTokenBuckets(Rate(burst=2, per_s=1))
    assert [buckets.take("k", 1e6) for _ in range(3)] == [True, True, False]


def test_buckets_are_bounded_and_forget_the_one_unused_longest() -> None:
    buckets = KeyedTokenBuckets(Rate(burst=1, per_s=0.001), buckets_max=2)
    for key in ("a", "b", "c"):
        assert buckets.take(key, 0.0)
    assert buckets.take("a", 0.0)
    assert not buckets.take("c", 0.0)


def test_f28_a_clock_that_is_set_back_delays_no_tokens() -> None:
    buckets = KeyedTokenBuckets(Rate(burst=1, per_s=1))
    assert buckets.take("k", 1_000.0)
    assert not buckets.take("k", 10.0)
    assert buckets.wait_s("k", 10.5) == 0.5
    assert buckets.take("k", 11.0)


def test_an_empty_bucket_fills_after_the_clock_is_set_back() -> None:
    """A caller that takes only tokens that are left, as the budgets of the tracker do."""
    buckets = KeyedTokenBuckets(Rate(burst=1, per_s=1))
    assert buckets.take("k", 1_000.0)
    assert buckets.wait_s("k", 10.0) == 1.0
    assert buckets.wait_s("k", 10.5) == 0.5
    assert buckets.wait_s("k", 11.0) == 0.0
    assert buckets.take("k", 11.0)


def test_a_rate_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match=r"rate of 0\.0"):
        TokenBucket(0.0, 1.0)
