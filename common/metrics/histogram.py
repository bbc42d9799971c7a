"""Histogram: a count of durations in buckets, cheap enough for each command."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate


class Histogram:
    """Histogram of a metric. ``bounds``: the upper bounds of the buckets, ascending; one without a
    bound is added."""

    __slots__ = ("_counts", "bounds", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self._counts)

    def cumulated(self) -> list[int]:
        """Values up to each bound, and at last all."""
        return list(accumulate(self._counts))
