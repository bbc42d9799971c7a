"""Piece layout, bitfield and piece states."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peer.swarm.pieces import Bitfield, PieceLayout, Pieces, PieceState


@pytest.mark.parametrize(
    ("size", "sizes"),
    [(0, []), (1, [1]), (10, [10]), (9, [9]), (11, [10, 1]), (20, [10, 10])],
)
def test_layout_cuts_the_last_piece_short(size: int, sizes: list[int]) -> None:
    layout = PieceLayout(size, 10)
    assert [layout.size_of(i) for i in range(layout.count)] == sizes


@pytest.mark.parametrize(
    ("index", "run_bytes", "run"),
    [
        (5, 40, range(4, 8)),
        (4, 49, range(4, 8)),
        (9, 40, range(8, 10)),
        (5, 0, range(5, 6)),
        (5, 9, range(5, 6)),
        (5, 999, range(10)),
    ],
)
def test_layout_divides_a_content_into_runs_from_its_start(
    index: int, run_bytes: int, run: range
) -> None:
    assert PieceLayout(95, 10).run_of(index, run_bytes) == run


@pytest.mark.parametrize(("size", "length"), [(-1, 10), (1, 0), (1, -5)])
def test_layout_refuses_nonsense(size: int, length: int) -> None:
    with pytest.raises(ValueError, match="no layout"):
        PieceLayout(size, length)


def test_bitfield_travels_with_the_first_piece_in_the_highest_bit() -> None:
    field = Bitfield(20, [0, 3, 19])
    assert field.to_bytes() == bytes([0b10010000, 0, 0b00010000])
    assert Bitfield.from_bytes(field.to_bytes(), 20) == field


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", 1),
        (b"\x80\x00", 8),
        (b"\x01", 7),  # a spare bit
        (b"\xff", 0),
        (b"\x80", -1),
    ],
)
def test_bitfield_of_wrong_length_or_with_spare_bits_is_refused(data: bytes, length: int) -> None:
    with pytest.raises(ValueError, match="bitfield"):
        Bitfield.from_bytes(data, length)


def test_bitfield_lists_missing_pieces() -> None:
    field = Bitfield(8, [0, 1, 4, 7])
    assert list(field) == [0, 1, 4, 7]
    assert list(field.missing()) == [2, 3, 5, 6]
    assert Bitfield.full(3).complete()
    assert Bitfield(0).complete()
    assert 8 not in field
    assert -1 not in field
    with pytest.raises(IndexError):
        field.add(8)
    with pytest.raises(IndexError):
        field.discard(-1)


@given(st.integers(0, 200).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n)))))
def test_bitfield_is_a_set(case: tuple[int, set[int]]) -> None:
    length, indexes = case
    indexes = {i for i in indexes if i < length}
    field = Bitfield(length, indexes)
    assert set(field) == indexes
    assert set(field.missing()) == set(range(length)) - indexes
    assert field.count == len(indexes)
    again = Bitfield.from_bytes(field.to_bytes(), length)
    assert again == field
    assert again.count == field.count


@given(st.binary(max_size=20), st.integers(0, 170))
def test_an_accepted_bitfield_encodes_to_the_same_bytes(data: bytes, length: int) -> None:
    try:
        field = Bitfield.from_bytes(data, length)
    except ValueError:
        return
    assert field.to_bytes() == data


def test_pieces_go_through_their_states() -> None:
    pieces = Pieces(PieceLayout(25, 10), Bitfield(3, [1]))
    assert [pieces.state(i).name for i in range(3)] == ["MISSING", "HELD", "MISSING"]
    pieces.reserve(2)
    pieces.arrived(2)
    assert pieces.verifying_bytes == 5
    pieces.mark_verified(2)
    assert (pieces.held_bytes, pieces.verifying_bytes, pieces.missing_count) == (15, 0, 1)
    pieces.reserve(0)
    pieces.release(0)
    pieces.arrived(0)  # a cancelled request that was answered all the same
    pieces.mark_verified(0)
    assert pieces.complete()
    pieces.forget(1)
    assert not pieces.complete()
    pieces.check_invariants()


@pytest.mark.parametrize("step", ["reserve", "release", "arrived", "mark_verified"])
def test_a_held_piece_takes_no_step_but_to_be_forgotten(step: str) -> None:
    pieces = Pieces(PieceLayout(10, 10), Bitfield.full(1))
    with pytest.raises(ValueError, match="piece 0 is HELD"):
        getattr(pieces, step)(0)
    assert pieces.state(0) is PieceState.HELD


def test_a_selection_is_complete_without_the_other_pieces() -> None:
    pieces = Pieces(PieceLayout(35, 10), Bitfield(4, [1]), wanted=[0, 3])
    assert [pieces.state(i).name for i in range(4)] == ["MISSING", "HELD", "UNWANTED", "MISSING"]
    assert (pieces.wanted_bytes, pieces.missing_count) == (25, 2)
    for index in (0, 3):
        pieces.reserve(index)
        pieces.arrived(index)
        pieces.mark_verified(index)
    assert pieces.complete()
    assert pieces.held_bytes == pieces.wanted_bytes
    pieces.forget(1)  # a held piece outside the selection is fetched again
    assert not pieces.complete()
    pieces.check_invariants()
    assert Pieces(PieceLayout(35, 10), wanted=[]).complete()
