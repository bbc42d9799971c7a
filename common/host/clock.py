"""Clocks: monotonic time that counts sleep, and an estimate of the tracker's wall clock.

Pure modules get ``now`` as an argument. Shells read the time here: a monotonic clock for leases,
tickets and timers (a jump of the wall clock harms nothing, and sleep is counted), and the tracker's
wall clock, as estimated from its replies, for all dates.
"""

from __future__ import annotations

import time
from collections.abc import Callable


def _clock() -> int:
    """The clock that counts the time in which the machine sleeps, where the system has it.

    Why: a laptop that slept for an hour has no lease, its connections are gone, and its tickets
    have expired. CLOCK_MONOTONIC stands still meanwhile.
    """
    counting = getattr(time, "CLOCK_BOOTTIME", None)
    if counting is not None:
        try:
            time.clock_gettime(counting)
        except OSError:
            return time.CLOCK_MONOTONIC
        return int(counting)
    return time.CLOCK_MONOTONIC


_CLOCK = _clock()


def monotonic() -> float:
    """Seconds on a clock that is never set, and counts sleep. Its zero means nothing.

    asyncio's timers run on another one, which does not count sleep: a time of this clock is never
    given to the loop, only a difference of two.
    """
    return time.clock_gettime(_CLOCK)


def wall_ms() -> int:
    """This machine's wall clock: milliseconds since 1970."""
    return time.time_ns() // 1_000_000


SET_MS = 1_000.0  # no clock drifts by so much between two looks at it


class TrackerTime:
    """Estimate of the tracker's wall clock.

    A peer's own wall clock may be a day off or jump; tickets are judged by the tracker's time. Each
    answer that carries the tracker's time gives an estimate that is too early by at most the round
    trip; the estimate with the shortest round trip of the last few is kept, and runs on by the
    monotonic clock. When two of them cannot both be true, the tracker's clock was set.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._offset_ms: float | None = None
        self._round_trip_s = float("inf")

    @property
    def known(self) -> bool:
        """Whether the tracker has sent its time yet."""
        return self._offset_ms is not None

    def learn(self, tracker_ms: int, sent_at: float, received_at: float) -> None:
        """Update the estimate from the reply to a request that was sent at ``sent_at``."""
        round_trip = max(0.0, received_at - sent_at)
        offset_ms = tracker_ms - (sent_at + received_at) / 2 * 1000.0
        # An old, precise estimate ages slowly, so that a drifting clock is followed in the end.
        precise = round_trip <= self._round_trip_s * 1.5
        if self._offset_ms is None or precise or self._was_set(offset_ms, round_trip):
            self._offset_ms = offset_ms
            self._round_trip_s = round_trip
        else:
            self._round_trip_s *= 1.1

    def _was_set(self, offset_ms: float, round_trip_s: float) -> bool:
        assert self._offset_ms is not None
        uncertain_ms = (round_trip_s + self._round_trip_s) * 500.0
        return abs(offset_ms - self._offset_ms) > uncertain_ms + SET_MS

    def now_ms(self) -> int:
        """Milliseconds since 1970 at the tracker; this machine's clock until it is known."""
        if self._offset_ms is None:
            return wall_ms()
        return round(self._offset_ms + self._clock() * 1000.0)
