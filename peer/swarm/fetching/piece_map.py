"""Piece map: a download's pieces for display, gathered into a bounded number of cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from peer.swarm.fetching.progress import SourceProgress
from peer.swarm.fetching.sources import Phase
from peer.swarm.pieces import PieceState

CELLS_MAX = 400  # cells of a map: more than a strip on a screen has columns to tell apart


class Cell(NamedTuple):
    """Adjacent pieces: the parts of them (0 to 1) that are held and in flight, and their sources.

    ``sources``: number of open sources of the piece that fewest have, of the first and the last
    piece. Limits: a rarer piece in between is not seen; all of them would cost too much.
    """

    held: float
    in_flight: float
    sources: int


def piece_map(states: bytearray, sources: Sequence[SourceProgress]) -> list[Cell]:
    """Return the cells, in order. ``states``: one `PieceState` a piece."""
    count = len(states)
    cells = min(count, CELLS_MAX)
    made = []
    for at in range(cells):
        begin, end = at * count // cells, (at + 1) * count // cells
        part = states[begin:end]
        held = part.count(PieceState.HELD)
        moving = part.count(PieceState.IN_FLIGHT) + part.count(PieceState.VERIFYING)
        fewest = min(_sources_of(index, sources) for index in {begin, end - 1})
        made.append(Cell(held / len(part), moving / len(part), fewest))
    return made


def _sources_of(index: int, sources: Sequence[SourceProgress]) -> int:
    return sum(
        source.phase is Phase.OPEN and (source.have is None or index in source.have)
        for source in sources
    )
