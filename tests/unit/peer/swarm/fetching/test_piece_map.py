"""Piece map: states of pieces gathered into cells."""

from __future__ import annotations

import pytest

from common.ids import DeviceKey, UserId
from peer.swarm.fetching.piece_map import CELLS_MAX, piece_map
from peer.swarm.fetching.progress import SourceProgress
from peer.swarm.fetching.sources import Phase
from peer.swarm.pieces import Bitfield, PieceState


def source(have: Bitfield | None, phase: Phase = Phase.OPEN) -> SourceProgress:
    return SourceProgress(
        source=DeviceKey(bytes(32)),
        user=UserId("anna"),
        phase=phase,
        complete=have is None,
        rate=0.0,
        pieces=0,
        bytes=0,
        in_flight=0,
        stalled=False,
        verdict=None,
        note="",
        have=have,
    )


def test_each_piece_of_a_small_content_has_a_cell() -> None:
    states = bytearray(
        [PieceState.HELD, PieceState.IN_FLIGHT, PieceState.VERIFYING, PieceState.MISSING]
    )
    sources = [source(None), source(Bitfield(4, [0, 3])), source(None, Phase.IDLE)]
    assert piece_map(states, sources) == [(1, 0, 2), (0, 1, 1), (0, 1, 1), (0, 0, 2)]


@pytest.mark.parametrize("count", [0, 1, CELLS_MAX, CELLS_MAX + 1, 65_536])
def test_the_number_of_cells_is_bounded_and_no_piece_is_left_out(count: int) -> None:
    states = bytearray([PieceState.HELD] * count)
    cells = piece_map(states, [])
    assert len(cells) == min(count, CELLS_MAX)
    assert all(cell == (1, 0, 0) for cell in cells)
