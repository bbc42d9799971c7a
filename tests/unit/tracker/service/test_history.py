"""History of the load: rates, quantiles, and points that are kept."""

from __future__ import annotations

from typing import Any

import pytest

from common.messages.operator import LoadIs
from tracker.service import history
from tracker.service.history import History, quantile

BOUNDS = [0.001, 0.01, 0.1]


def load(uptime_s: float, ok: int = 0, **changed: Any) -> LoadIs:
    fields: dict[str, Any] = {
        "uptime_s": uptime_s,
        "commands": {"ok": ok, "refused": 0, "error": 0},
        "logins": {},
        "bounds_s": BOUNDS,
        "durations": [ok, ok, ok, ok],
        "commits": 0,
        "commits_s": 0.0,
        "commit_changes": 0,
        "queue": 0,
        "writable": True,
        "loop_lag_s": 0.0,
        "database_bytes": 1,
        "backup": None,
        "events": 0,
        "tickets": 0,
        "refusals": {},
        "devices_online": 0,
        "received_bytes_per_s": 0,
        "sent_bytes_per_s": 0,
    }
    return LoadIs(**{**fields, **changed})


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ([0, 0, 0, 0], [0, 0, 0, 0], None),
        ([5, 5, 5, 5], [5, 5, 5, 5], None),
        ([0, 0, 0, 0], [100, 100, 100, 100], 0.00099),
        ([50, 50, 50, 50], [50, 150, 150, 150], 0.00991),
        ([0, 0, 0, 0], [0, 0, 0, 10], 0.1),  # beyond the last bound
        ([0, 0, 0, 0], [98, 98, 100, 100], 0.055),
    ],
)
def test_a_quantile_is_that_of_the_values_between(
    before: list[int], now: list[int], found: float | None
) -> None:
    assert quantile(BOUNDS, before, now) == (None if found is None else pytest.approx(found))


def test_rates_are_of_the_last_points() -> None:
    kept = History()
    kept.add(load(0.0, 0), 0)
    assert kept.points().points == []
    kept.add(load(2.0, 10, commits=4, commits_s=0.2, refusals={"busy": 3}), 2_000)
    [point] = kept.points().points
    assert (point.commands_per_s, point.refused_per_s) == (5.0, 1.5)
    assert point.commit_s == pytest.approx(0.05)
    for at in range(2, 10):
        kept.add(load(2.0 * at, 10, commits=4, commits_s=0.2), 2_000 * at)
    last = kept.points().points[-1]
    assert (last.commands_per_s, last.p99_s, last.commit_s) == (0.0, None, None)
    assert last.number == 9


def test_points_are_bounded() -> None:
    kept = History()
    for at in range(history.POINTS_MAX + 5):
        kept.add(load(float(at)), at)
    assert len(kept.points().points) == history.POINTS_MAX
