"""How fast something comes, for people to see.

Rates by which something is decided are measured in `window`.
"""

from __future__ import annotations

from math import exp

_SMOOTHING_S = 2.0


class RateMeter:
    """Bytes a second, smoothed exponentially; it falls when nothing comes."""

    __slots__ = ("_at", "_rate", "_since")

    def __init__(self) -> None:
        self._rate = 0.0
        self._at: float | None = None
        self._since = 0.0

    def add(self, size: int, now: float) -> None:
        if self._at is None:
            self._at = self._since = now
        self._rate = self._rate * exp((self._at - now) / _SMOOTHING_S) + size / _SMOOTHING_S
        self._at = now

    def rate(self, now: float) -> float:
        if self._at is None:
            return 0.0
        decayed = self._rate * exp((self._at - now) / _SMOOTHING_S)
        # A young meter has not filled its window yet: correct for the part that it has seen.
        seen = 1.0 - exp((self._since - now) / _SMOOTHING_S)
        return decayed / max(seen, 0.05)
