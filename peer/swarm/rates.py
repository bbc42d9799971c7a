"""Measured rates: `Throughput`, by which the machines decide, and `RateMeter`, for display."""

from __future__ import annotations

from collections import deque

_SAMPLE_S = 0.010
_SMOOTHING_S = 1.0
_GAPS = 4.0
"""A rate is smoothed over so many samples at least."""
MERGED_S = 0.2
"""Arrivals so close together are one burst: the gap within one says nothing about the rate."""
WINDOW_S = 5.0
"""The rate is that of so many seconds at least, …"""
BURSTS = 6
"""… and of so many gaps between bursts, where a piece takes seconds."""
SILENT_GAPS, SILENT_S = 3.0, 4.0
"""After so many usual gaps, and so many seconds, without a byte the rate is 0."""


class Throughput:
    """Bytes a second of something that is busy from time to time; idle time does not count."""

    __slots__ = ("_arrived", "_gap_s", "_mark", "_smoothing_s", "_warm_s", "rate")

    def __init__(self, smoothing_s: float = _SMOOTHING_S) -> None:
        self._smoothing_s = smoothing_s
        self._mark = 0.0
        """Since when `_arrived` is counted: it was busy all the time since."""
        self._arrived = 0
        self._warm_s = 0.0
        self._gap_s = 0.0
        """Between samples, smoothed."""
        self.rate = 0.0
        """Smoothed over `smoothing_s` of busy time; 0 until something came."""

    def began(self, now: float) -> None:
        """It was idle and is busy from here on."""
        self._mark = now
        self._arrived = 0

    def arrived(self, size: int, now: float) -> None:
        """So many bytes came."""
        self._arrived += size
        elapsed = now - self._mark
        if elapsed < _SAMPLE_S and self.rate:
            return
        elapsed = max(elapsed, 1e-4)
        sample = self._arrived / elapsed
        # A young estimate is the plain mean since the beginning; an old one forgets.
        # Where a piece takes seconds, two that come together say nothing: some gaps have to pass.
        self._gap_s += (elapsed - self._gap_s) / 8.0
        horizon_s = max(self._smoothing_s, _GAPS * self._gap_s)
        self._warm_s = min(self._warm_s + elapsed, horizon_s)
        self.rate += (sample - self.rate) * min(1.0, elapsed / self._warm_s)
        self._mark = now
        self._arrived = 0

    def rate_at(self, now: float, expected: int) -> float:
        """The rate, less what the silence says: `expected` bytes at best would come just now."""
        silent_s = now - self._mark
        if silent_s <= 0.0:
            return self.rate
        ceiling = (self._arrived + expected) / silent_s
        return min(self.rate, ceiling) if self.rate else ceiling

    def reset(self) -> None:
        """Forget what was measured."""
        self.rate = 0.0
        self._warm_s = 0.0


class RateMeter:
    """Bytes a second over the last bursts of arrivals; it falls when nothing comes.

    Pieces come whole, so the rate is measured from burst to burst: what came after the first one,
    over the time since then. That is exact for a steady flow, whatever the length of its pieces.
    """

    __slots__ = ("_burst_began", "_bursts", "_last", "_total")

    def __init__(self) -> None:
        self._bursts: deque[tuple[float, int]] = deque()
        """When each burst ended, and the bytes in all up to then."""
        self._burst_began = -MERGED_S
        self._last = 0.0
        self._total = 0

    def began(self, now: float) -> None:
        """Bytes were asked for: the time to the first ones counts."""
        if not self._bursts:
            self._bursts = deque([(now, self._total)])
            self._burst_began = now - MERGED_S
            self._last = now

    def add(self, size: int, now: float) -> None:
        """So many bytes came."""
        bursts = self._bursts
        if bursts and self._is_silent(now):
            # What came before a silence says nothing of what comes now. Where few gaps are known
            # yet, this one may be the usual one.
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
        """Bytes a second; 0 before anything came and after a silence."""
        if not self._total or not self._bursts or self._is_silent(now):
            return 0.0
        began, before = self._bursts[0]
        ended, total = self._bursts[-1]
        if now - self._burst_began < MERGED_S and len(self._bursts) > 2:
            ended, total = self._bursts[-2]  # the last burst goes on perhaps
        # A gap that is longer than usual counts as far as it goes beyond the usual one.
        ended = max(ended, now - self._gap() - MERGED_S)
        return (total - before) / max(ended - began, MERGED_S)

    def _gap(self) -> float:
        if len(self._bursts) < 2:
            return 0.0
        return (self._bursts[-1][0] - self._bursts[0][0]) / (len(self._bursts) - 1)

    def _is_silent(self, now: float) -> bool:
        return now - self._last > max(SILENT_S, SILENT_GAPS * self._gap())
