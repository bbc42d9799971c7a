"""Load of a tracker: what devices announce, and cannot break."""

from __future__ import annotations

import msgspec

from common import limits
from common.ids import UserId
from tracker.core.presence import Lease, rates_of


def leases(count: int, rates: tuple[int, int]) -> list[Lease]:
    return [Lease(UserId("alice"), "tcp://192.0.2.1:9", 0.0, {}, rates=rates) for _ in range(count)]


def test_rates_are_summed() -> None:
    assert rates_of([*leases(2, (5, 1)), *leases(1, (10, 0))]) == (20, 2)
    assert rates_of([]) == (0, 0)


def test_h175_absurd_rates_of_many_devices_fit_into_an_answer() -> None:
    found = rates_of(leases(2_049, (limits.COUNT_MAX, limits.COUNT_MAX)))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(found), type=tuple[int, int]) == found
    assert max(found) <= limits.COUNT_MAX
