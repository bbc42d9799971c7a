"""How much may be asked of one source at a time, and how fast it gives.

Owns the measuring of a rate (`Throughput`) and the bound, in bytes, on what is asked of one source
(`Window`). What is asked is the download's to choose.

The window opens like TCP's slow start: from two pieces, by every byte that comes, until it holds
what the source gives in `horizon_s`, or a few pieces to choose from. A larger window only parks
requests at a busy source that another could answer sooner; a smaller one lets the pipe run dry
while a request travels.
"""

from __future__ import annotations

from peer.swarm.rates import Throughput

FLOOR_PIECES = 2
CHOICE_PIECES = 8
"""However slow a source is, it may have so many requests: it sends first what is rare, and has no
choice among one or two."""


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
