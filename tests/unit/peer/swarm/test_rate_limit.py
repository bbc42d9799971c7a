"""Rate limits with an injected clock."""

from __future__ import annotations

import pytest

from common.ids import UserId
from peer.swarm.rate_limit import RateLimit, Rates

ANN, BOB = UserId("ann"), UserId("bob")


def test_a_limit_holds_for_all_and_for_each_user() -> None:
    limit = RateLimit(Rates(everything=1000.0, each_user=100.0))
    limit.take(ANN, 75, 0.0)
    assert limit.user_ready_at(ANN, 0.0) == pytest.approx(0.5, abs=1e-3)
    assert limit.user_ready_at(BOB, 0.0) == 0.0
    assert limit.ready_at(0.0) == 0.0
    limit.take(BOB, 675, 0.0)
    assert limit.ready_at(0.0) == pytest.approx(0.5, abs=1e-3)
    assert not limit.unlimited


def test_no_limit_allows_all() -> None:
    limit = RateLimit()
    assert limit.unlimited
    limit.take(ANN, 10**9, 0.0)
    assert limit.user_ready_at(ANN, 0.0) == limit.ready_at(0.0) == 0.0


def test_a_limit_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rate of 0"):
        RateLimit(Rates(everything=0.0))
