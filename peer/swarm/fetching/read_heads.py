"""Read heads: the pieces that the readers of an unfinished download need next.

Owns: the stretch of pieces under each head, and whose turn it is. Not here: the order of all other
pieces (see picker), and how far a reader looks ahead (see peer.reading.reader).

A head moves on when its reader does. Its pieces are requested from the first to the last, before
any other piece; several heads take turns, piece by piece, so that none waits for another one. A
request that is in flight already is not cancelled for a head.
"""

from __future__ import annotations

from collections.abc import Callable

from peer.swarm.fetching.events import HeadEvent, ReadHead
from peer.swarm.pieces import Bitfield, PieceState

_MISSING = int(PieceState.MISSING)


class ReadHeads:
    """The heads of one download. `states` is `Pieces.states`, read and never written."""

    def __init__(self, states: bytearray) -> None:
        self._states = states
        self._heads: dict[int, tuple[int, int]] = {}
        """First piece and end of the stretch of each head; the next turn is that of the first."""

    def __bool__(self) -> bool:
        return bool(self._heads)

    def apply(self, event: HeadEvent) -> bool:
        """Move a head, or forget it; return whether pieces under it are missing."""
        if not isinstance(event, ReadHead):
            self._heads.pop(event.reader, None)
            return False
        first = max(0, event.first)
        end = max(first, min(len(self._states), event.first + event.count))
        self._heads[event.reader] = (first, end)
        return self._find(first, end, lambda _: True) is not None

    def pick(self, have: Bitfield | None) -> int | None:
        """Return the next missing piece under a head that is in `have` (None: every piece)."""
        offered = (lambda _: True) if have is None else have.__contains__
        for reader, (first, end) in self._heads.items():
            index = self._find(first, end, offered)
            if index is not None:
                self._heads[reader] = self._heads.pop(reader)  # the others are first now
                return index
        return None

    def _find(self, first: int, end: int, offered: Callable[[int], bool]) -> int | None:
        index = self._states.find(_MISSING, first, end)
        while index >= 0 and not offered(index):
            index = self._states.find(_MISSING, index + 1, end)
        return index if index >= 0 else None
