"""Measured rates: `Throughput`, by which the machines decide, and `RateMeter`, for display."""

from __future__ import annotations

from collections import deque

_SAMPLE_S = 0.010
_SMOOTHING_S = 1.0
_GAPS = 4.0
"""A rate is smoothed over at least this many samples."""
MERGED_S = 0.2
"""Arrivals this close together are one burst: gaps within it tell nothing about the rate."""
WINDOW_S = 5.0
"""The rate is measured over at least this many seconds …"""
BURSTS = 6
"""… and this many gaps between bursts, where a piece takes seconds."""
SILENT_GAPS, SILENT_S = 3.0, 4.0
"""After this many usual gaps and this many seconds without a byte the rate is 0."""


class Throughput:
    """Rate of a flow that is busy at times, in bytes a second; idle time does not count."""

    __slots__ = (
        "_arrived",
        "_busy_s",
        "_gap_s",
        "_last",
        "_mark",
        "_smoothing_s",
        "_warm_s",
        "rate",
    )

    def __init__(self, smoothing_s: float = _SMOOTHING_S) -> None:
        self._smoothing_s = smoothing_s
        self._mark = 0.0
        """Start of the busy time, or of the sample if that is later."""
        self._last = 0.0
        """Time of the last arrival."""
        self._busy_s = 0.0
        """Busy time of the sample before the mark."""
        self._arrived = 0
        """Bytes of the sample."""
        self._warm_s = 0.0
        self._gap_s = 0.0
        """Time between samples, smoothed."""
        self.rate = 0.0
        """Smoothed over `smoothing_s` of busy time; 0 before the first sample."""

    def start(self, now: float) -> None:
        """Start a busy time.

        The sample continues: a flow that pauses more often than samples end has a rate too.
        """
        self._busy_s += max(0.0, self._last - self._mark)
        self._mark = now

    def add(self, size: int, now: float) -> None:
        """Record bytes that arrived."""
        self._arrived += size
        self._last = now
        elapsed = self._busy_s + now - self._mark
        if elapsed < _SAMPLE_S and self.rate:
            return
        elapsed = max(elapsed, 1e-4)
        sample = self._arrived / elapsed
        # A young estimate is the plain mean since the start; an old one forgets. Where a piece
        # takes seconds, two that arrive together prove nothing: several gaps have to pass.
        self._gap_s += (elapsed - self._gap_s) / 8.0
        horizon_s = max(self._smoothing_s, _GAPS * self._gap_s)
        self._warm_s = min(self._warm_s + elapsed, horizon_s)
        self.rate += (sample - self.rate) * min(1.0, elapsed / self._warm_s)
        self._mark = now
        self._busy_s = 0.0
        self._arrived = 0

    def rate_at(self, now: float, expected: int) -> float:
        """Return the rate, lowered by silence: at best `expected` bytes arrive right now."""
        silent_s = self._busy_s + now - self._mark
        if silent_s <= 0.0:
            return self.rate
        ceiling = (self._arrived + expected) / silent_s
        return min(self.rate, ceiling) if self.rate else ceiling

    def reset(self) -> None:
        """Forget the measurements."""
        self.rate = 0.0
        self._warm_s = 0.0


class RateMeter:
    """Rate over the last bursts of arrivals, in bytes a second; it falls when nothing arrives.

    Pieces arrive whole, so the rate is measured from burst to burst: the bytes after the first one,
    over the time since then. That is exact for a steady flow with pieces of any length.
    """

    __slots__ = ("_burst_began", "_bursts", "_last", "_total")

    def __init__(self) -> None:
        self._bursts: deque[tuple[float, int]] = deque()
        """End of each burst, and all bytes up to then."""
        self._burst_began = -MERGED_S
        self._last = 0.0
        self._total = 0

    def start(self, now: float) -> None:
        """Record a first request: the time until its bytes arrive counts."""
        if not self._bursts:
            self._bursts = deque([(now, self._total)])
            self._burst_began = now - MERGED_S
            self._last = now

    def add(self, size: int, now: float) -> None:
        """Record bytes that arrived."""
        bursts = self._bursts
        if bursts and self._is_silent(now):
            # Bursts before a silence tell nothing about the rate now. With few gaps known yet, this
            # silence may be a usual gap.
            bursts = self._bursts = deque([bursts[-1]] if len(bursts) <= BURSTS else [])
        self._total += size
        self._last = now
        if bursts and now - self._burst_began < MERGED_S:
            bursts[-1] = (now, self._total)
            return
        self._burst_began = now
        bursts.append((now, self._total))
        while len(bursts) > BURSTS + 1 and now - bursts[1][0] >= WINDOW_S:
            bursts.popleft()

    def rate(self, now: float) -> float:
        """Return bytes a second; 0 before the first arrival and after a silence."""
        if not self._total or not self._bursts or self._is_silent(now):
            return 0.0
        began, before = self._bursts[0]
        ended, total = self._bursts[-1]
        if now - self._burst_began < MERGED_S and len(self._bursts) > 2:
            ended, total = self._bursts[-2]  # the last burst may not have ended
        # A gap longer than usual counts by the part beyond the usual length.
        ended = max(ended, now - self._gap() - MERGED_S)
        return (total - before) / max(ended - began, MERGED_S)

    def _gap(self) -> float:
        if len(self._bursts) < 2:
            return 0.0
        return (self._bursts[-1][0] - self._bursts[0][0]) / (len(self._bursts) - 1)

    def _is_silent(self, now: float) -> bool:
        return now - self._last > max(SILENT_S, SILENT_GAPS * self._gap())
