"""Request window of one source: the bound on its bytes in flight.

Owns: the bound (`Window`). Not here: the measurement of rates (see peer.swarm.rates) and the choice
of pieces (see picker).

The window opens like TCP's slow start: from two pieces, by every byte that arrives, until it holds
what the source gives in `horizon_s`, or a few pieces to choose from. A larger window only parks
requests at a busy source that another could answer sooner. A smaller one lets the pipe run dry
while a request travels.
"""

from __future__ import annotations

from peer.swarm.rates import Throughput

FLOOR_PIECES = 2
CHOICE_PIECES = 8
"""Requests that even a slow source may hold. Why: it sends rare pieces first, and cannot choose
among one or two."""


class Window(Throughput):
    """The window of one source. Sizes in bytes, rates in bytes a second."""

    __slots__ = ("_horizon_s", "_piece", "grown")

    def __init__(self, piece_length: int, horizon_s: float) -> None:
        super().__init__()
        self._piece = piece_length
        self._horizon_s = horizon_s
        self.grown = FLOOR_PIECES * piece_length
        """Size that slow start has reached."""

    def add(self, size: int, now: float) -> None:
        """Record a piece."""
        self.grown += size
        super().add(size, now)

    def current_rate(self, now: float) -> float:
        """Return the rate, lowered by silence. Only for a source with requests in flight."""
        return self.rate_at(now, self._piece)

    def limit(self, share: float) -> int:
        """Return the bytes that may be in flight: at most `share`, at least two pieces."""
        useful = max(self.rate * self._horizon_s, CHOICE_PIECES * self._piece)
        wanted = min(self.grown, useful, share)
        return max(int(wanted), FLOOR_PIECES * self._piece)

    def quantum(self, run_bytes: int) -> int:
        """Return the headroom that is worth a message: the bytes of 10 ms, within bounds.

        A fast source gets several pieces with one request, a slow one gets each at once. So does
        one that has given little yet: it may wait for the acknowledgement that comes with the
        request, to learn how fast it is. `run_bytes`: those that are requested together.
        """
        worth = min(int(self.rate * 0.010), 4 * self._piece, self.grown // 16)
        return max(worth, self._piece, min(run_bytes, self.grown // 2))

    def shrink(self) -> None:
        """Start again, after the source was busy, stalled or lost."""
        self.grown = FLOOR_PIECES * self._piece
        self.reset()
