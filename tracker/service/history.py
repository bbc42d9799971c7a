"""History of the load: a point every `EVERY_S`, made from the counts of the tracker.

It begins with the tracker, so that a page that is opened later shows what was before.

Owns: rates and quantiles from the differences of counts. Not here: the counts (see
tracker.service.load).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable

from common.host.clock import wall_ms
from common.messages.operator import HistoryIs, LoadIs, Point

log = logging.getLogger(__name__)

EVERY_S = 5.0
POINTS_MAX = 720  # an hour, of 0.5 KiB each
SPAN = 2  # points over which rates are taken: one point alone has few commands
QUANTILE = 0.99


class History:
    """Points of one run of the tracker."""

    def __init__(self) -> None:
        self._run = secrets.token_hex(4)
        self._loads: deque[LoadIs] = deque(maxlen=SPAN + 1)
        self._points: deque[Point] = deque(maxlen=POINTS_MAX)
        self._count = 0

    async def record(self, load: Callable[[], LoadIs]) -> None:
        """Add a point every `EVERY_S`, until cancelled."""
        while True:
            try:
                self.add(load(), wall_ms())
            except Exception:
                log.exception("the load could not be recorded")
            await asyncio.sleep(EVERY_S)

    def add(self, load: LoadIs, time_ms: int) -> None:
        """Add a point."""
        self._loads.append(load)
        before = self._loads[0]
        if before is load:
            return  # there is nothing yet to compare it with
        seconds = load.uptime_s - before.uptime_s
        commits = load.commits - before.commits
        self._count += 1
        self._points.append(
            Point(
                number=self._count,
                time_ms=time_ms,
                commands_per_s=_rate(_all(load) - _all(before), seconds),
                refused_per_s=_rate(_refused(load) - _refused(before), seconds),
                p99_s=quantile(load.bounds_s, before.durations, load.durations),
                commit_s=(load.commits_s - before.commits_s) / commits if commits else None,
                queue=load.queue,
                loop_lag_s=load.loop_lag_s,
                database_bytes=load.database_bytes,
                devices_online=load.devices_online,
                received_bytes_per_s=load.received_bytes_per_s,
                sent_bytes_per_s=load.sent_bytes_per_s,
            )
        )

    def points(self) -> HistoryIs:
        """Return all points, oldest first."""
        return HistoryIs(self._run, EVERY_S, list(self._points))


def quantile(
    bounds_s: list[float], before: list[int], now: list[int], share: float = QUANTILE
) -> float | None:
    """Return the time below which ``share`` of the values between two counts are.

    ``before``, ``now``: values up to each bound, and all; within a bucket they count as evenly
    spread, and beyond the last bound as that one. None without values.
    """
    counted = [later - earlier for earlier, later in zip(before, now, strict=True)]
    if not counted or counted[-1] <= 0:
        return None
    wanted, lower, below = share * counted[-1], 0.0, 0
    for bound, up_to in zip(bounds_s, counted, strict=False):
        if up_to >= wanted:
            return lower + (bound - lower) * (wanted - below) / (up_to - below)
        lower, below = bound, up_to
    return lower


def _all(load: LoadIs) -> int:
    return sum(load.commands.values())


def _refused(load: LoadIs) -> int:
    return sum(load.refusals.values())


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
