"""How much may be asked of one source at a time, and how fast it gives.

Owns the measuring of a rate (`Throughput`) and the bound, in bytes, on what is asked of one source
(`Window`). What is asked is the download's to choose.

The window opens like TCP's slow start: from two pieces, by every byte that comes, until it holds
what the source gives in `horizon_s`, or a few pieces to choose from. A larger window only parks
requests at a busy source that another could answer sooner; a smaller one lets the pipe run dry
while a request travels.
"""

from __future__ import annotations

_SAMPLE_S = 0.010
_SMOOTHING_S = 1.0
_GAPS = 4.0
"""A rate is smoothed over so many samples at least."""
FLOOR_PIECES = 2
CHOICE_PIECES = 8
"""However slow a source is, it may have so many requests: it sends first what is rare, and has no
choice among one or two."""


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


class Window(Throughput):
    """The window of one source. Sizes in bytes, rates in bytes a second."""

    __slots__ = ("_horizon_s", "_piece", "grown")

    def __init__(self, piece_length: int, horizon_s: float) -> None:
        super().__init__()
        self._piece = piece_length
        self._horizon_s = horizon_s
        self.grown = FLOOR_PIECES * piece_length
        """How far slow start has come."""

    def arrived(self, size: int, now: float) -> None:
        """A piece came."""
        self.grown += size
        super().arrived(size, now)

    def current_rate(self, now: float) -> float:
        """The rate, less what silence says against it. Only for a source that is being asked."""
        return self.rate_at(now, self._piece)

    def limit(self, share: float) -> int:
        """Bytes that may be asked for at a time; at most `share`, at least two pieces."""
        useful = max(self.rate * self._horizon_s, CHOICE_PIECES * self._piece)
        wanted = min(self.grown, useful, share)
        return max(int(wanted), FLOOR_PIECES * self._piece)

    def quantum(self) -> int:
        """Bytes of room, or of credit, worth a message: ten milliseconds' worth, within bounds.

        A fast source is asked for several pieces in one message, a slow one at once; and so is one
        that has given little yet, since it may be waiting for credit to learn how fast it is.
        """
        worth = min(int(self.rate * 0.010), 4 * self._piece, self.grown // 16)
        return max(worth, self._piece)

    def shrink(self) -> None:
        """Begin again: the source was busy, stalled or lost."""
        self.grown = FLOOR_PIECES * self._piece
        self.reset()
