"""Piece layout, bitfields, and the state of every piece of a download.

Owns: `PieceLayout` (the cut of a content), `Bitfield` (a set of pieces, as it travels) and `Pieces`
(the state of each piece of one download). Not here: the choice of source (see fetching.requests).

    missing ──reserve──▶ in flight ──arrived──▶ verifying ──mark_verified──▶ held
       ▲                     │                      │                         │
       └──────release────────┴───────release────────┴─────────forget─────────┘

Pieces that need not be fetched take another way: missing ──mark_local──▶ local ──made──▶ held.
A download of a selection begins with all other pieces unwanted, and they stay so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum, unique

_FROM_BITS = bytes.maketrans(b"01", b"\x00\x01")
_TO_BITS = bytes.maketrans(b"\x00\x01", b"01")


@dataclass(frozen=True, slots=True)
class PieceLayout:
    """Cut of `size` bytes into pieces of `piece_length` bytes, the last one shorter."""

    size: int
    piece_length: int

    def __post_init__(self) -> None:
        if self.piece_length <= 0 or self.size < 0:
            raise ValueError(f"no layout of {self.size} bytes in pieces of {self.piece_length}")

    @property
    def count(self) -> int:
        """Number of pieces: 0 for an empty content."""
        return -(-self.size // self.piece_length)

    def size_of(self, index: int) -> int:
        """Return the bytes of one piece. `index` must be in range."""
        left = self.size - index * self.piece_length
        return left if left < self.piece_length else self.piece_length

    def run_of(self, index: int, run_bytes: int) -> range:
        """Return the run of a piece: with it, all adjacent ones of a part of `run_bytes`.

        Contents are divided into runs from their start, so that all peers divide them equally.
        """
        pieces = max(1, run_bytes // self.piece_length)
        begin = index - index % pieces
        return range(begin, min(begin + pieces, self.count))


class Bitfield:
    """Set of pieces out of 0 … length-1.

    In memory one byte a piece, so that membership and scans run at the speed of ``bytearray``. On
    the wire one bit a piece: piece 0 is the highest bit of the first byte, spare bits are zero.
    """

    __slots__ = ("_cells", "_count")

    def __init__(self, length: int, pieces: Iterable[int] = ()) -> None:
        if length < 0:
            raise ValueError(f"a bitfield of {length} pieces")
        self._cells = bytearray(length)
        self._count = 0
        for index in pieces:
            self.add(index)

    @classmethod
    def full(cls, length: int) -> Bitfield:
        """Return the bitfield of a seeder."""
        field = cls(length)
        field._cells = bytearray(b"\x01") * length
        field._count = length
        return field

    @classmethod
    def from_bytes(cls, data: bytes, length: int) -> Bitfield:
        """Decode the wire form. Raises ValueError for a wrong length or a set spare bit."""
        expected = (length + 7) // 8
        if length < 0 or len(data) != expected:
            raise ValueError(f"{len(data)} bytes for a bitfield of {length} pieces")
        if not length:
            return cls(0)
        bits = format(int.from_bytes(data, "big"), f"0{expected * 8}b").encode("ascii")
        if b"1" in bits[length:]:
            raise ValueError(f"bitfield with spare bits set after piece {length - 1}")
        field = cls(0)
        field._cells = bytearray(bits[:length].translate(_FROM_BITS))
        field._count = field._cells.count(1)
        return field

    def to_bytes(self) -> bytes:
        """Encode the wire form."""
        length = len(self._cells)
        if not length:
            return b""
        size = (length + 7) // 8
        bits = self._cells.translate(_TO_BITS).ljust(size * 8, b"0")
        return int(bits, 2).to_bytes(size, "big")

    def copy(self) -> Bitfield:
        field = Bitfield(0)
        field._cells = bytearray(self._cells)
        field._count = self._count
        return field

    def __len__(self) -> int:
        """Return the number of pieces, in the set or not."""
        return len(self._cells)

    @property
    def count(self) -> int:
        """Number of pieces in the set."""
        return self._count

    def complete(self) -> bool:
        return self._count == len(self._cells)

    def __contains__(self, index: object) -> bool:
        return isinstance(index, int) and 0 <= index < len(self._cells) and bool(self._cells[index])

    def __iter__(self) -> Iterator[int]:
        """Iterate over the pieces in the set, ascending."""
        return self._scan(1)

    def missing(self) -> Iterator[int]:
        """Iterate over the pieces not in the set, ascending."""
        return self._scan(0)

    def _scan(self, value: int) -> Iterator[int]:
        find = self._cells.find
        index = find(value)
        while index >= 0:
            yield index
            index = find(value, index + 1)

    def add(self, index: int) -> bool:
        """Add a piece; return False if it was in the set. Raises IndexError if out of range."""
        if not 0 <= index < len(self._cells):
            raise IndexError(f"piece {index} of {len(self._cells)}")
        if self._cells[index]:
            return False
        self._cells[index] = 1
        self._count += 1
        return True

    def discard(self, index: int) -> bool:
        """Remove a piece; return False if it was not there. Raises IndexError if out of range."""
        if not 0 <= index < len(self._cells):
            raise IndexError(f"piece {index} of {len(self._cells)}")
        if not self._cells[index]:
            return False
        self._cells[index] = 0
        self._count -= 1
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Bitfield) and self._cells == other._cells

    __hash__ = None  # type: ignore[assignment]  # a mutable set

    def __repr__(self) -> str:
        shown = "".join("x" if cell else "-" for cell in self._cells[:64])
        more = "…" if len(self._cells) > 64 else ""
        return f"Bitfield({self._count}/{len(self._cells)} {shown}{more})"


@unique
class PieceState(IntEnum):
    """State of a piece; always exactly one of these."""

    MISSING = 0
    IN_FLIGHT = 1
    VERIFYING = 2
    HELD = 3
    LOCAL = 4
    """Not to be fetched: it is being made or copied here, or will be. See `local_pieces`."""
    UNWANTED = 5
    """Outside the selection. Neither fetched nor missing."""


_MISSING = int(PieceState.MISSING)
_IN_FLIGHT = int(PieceState.IN_FLIGHT)
_VERIFYING = int(PieceState.VERIFYING)
_HELD = int(PieceState.HELD)
_LOCAL = int(PieceState.LOCAL)
_UNWANTED = int(PieceState.UNWANTED)


class Pieces:
    """State of every piece of one content, with the sums that are needed all the time.

    ``wanted``: the pieces of a selection; None for all. Held ones are kept in any case.
    A transition raises ValueError if the piece is not in the state that it starts from: an error of
    the caller, never of a peer.
    """

    __slots__ = (
        *("counts", "held", "held_bytes", "layout", "states", "verifying_bytes", "wanted_bytes"),
    )

    def __init__(
        self,
        layout: PieceLayout,
        have: Bitfield | None = None,
        wanted: Iterable[int] | None = None,
    ) -> None:
        count = layout.count
        self.layout = layout
        self.held = Bitfield(count) if have is None else have.copy()
        if len(self.held) != count:
            raise ValueError(f"bitfield of {len(self.held)} pieces for a content of {count}")
        self.states = bytearray(count)
        """One PieceState a piece. Read by the picker, written only here."""
        self.wanted_bytes = layout.size
        """Bytes of all pieces that are held in the end."""
        if wanted is not None:
            self.states = bytearray([_UNWANTED]) * count
            for index in wanted:
                self.states[index] = _MISSING
        self.held_bytes = 0
        self.verifying_bytes = 0
        for index in self.held:
            self.states[index] = _HELD
            self.held_bytes += layout.size_of(index)
        if wanted is not None:
            self.wanted_bytes = sum(
                layout.size_of(index) for index in range(count) if self.states[index] != _UNWANTED
            )
        self.counts = [self.states.count(state) for state in PieceState]
        """Number of pieces in each state, by PieceState."""

    def state(self, index: int) -> PieceState:
        return PieceState(self.states[index])

    @property
    def missing_count(self) -> int:
        return self.counts[_MISSING]

    def complete(self) -> bool:
        """Whether every wanted piece is held."""
        return self.counts[_HELD] + self.counts[_UNWANTED] == len(self.states)

    def reserve(self, index: int) -> None:
        """missing → in flight: requested from a first source."""
        self._move(index, _MISSING, _IN_FLIGHT)

    def arrived(self, index: int) -> None:
        """in flight (or missing, if a cancelled request was answered) → verifying."""
        if self.states[index] == _MISSING:
            self._move(index, _MISSING, _VERIFYING)
        else:
            self._move(index, _IN_FLIGHT, _VERIFYING)
        self.verifying_bytes += self.layout.size_of(index)

    def release(self, index: int) -> None:
        """in flight or verifying → missing: no request is left, or the bytes were of no use."""
        if self.states[index] == _VERIFYING:
            self._move(index, _VERIFYING, _MISSING)
            self.verifying_bytes -= self.layout.size_of(index)
        else:
            self._move(index, _IN_FLIGHT, _MISSING)

    def mark_verified(self, index: int) -> None:
        """verifying → held."""
        self._move(index, _VERIFYING, _HELD)
        size = self.layout.size_of(index)
        self.verifying_bytes -= size
        self.held_bytes += size
        self.held.add(index)

    def mark_local(self, index: int) -> None:
        """missing → local: it need not be fetched."""
        self._move(index, _MISSING, _LOCAL)

    def recall(self, index: int) -> None:
        """local → missing: it must be fetched after all."""
        self._move(index, _LOCAL, _MISSING)

    def made(self, index: int) -> None:
        """local → held."""
        self._move(index, _LOCAL, _HELD)
        self.held_bytes += self.layout.size_of(index)
        self.held.add(index)

    def forget(self, index: int) -> None:
        """held → missing: the bytes on disk are damaged."""
        self._move(index, _HELD, _MISSING)
        self.held_bytes -= self.layout.size_of(index)
        self.held.discard(index)

    def _move(self, index: int, before: int, after: int) -> None:
        states = self.states
        if states[index] != before:
            was, wanted = PieceState(states[index]).name, PieceState(before).name
            raise ValueError(f"piece {index} is {was}, not {wanted}")
        states[index] = after
        counts = self.counts
        counts[before] -= 1
        counts[after] += 1

    def check_invariants(self) -> None:
        """Raise AssertionError if sums and states disagree. For tests: O(pieces)."""
        states, size_of = self.states, self.layout.size_of
        assert len(states) == self.layout.count == len(self.held)
        for state in PieceState:
            assert self.counts[state] == states.count(state), state.name
        in_state = {s: [i for i, x in enumerate(states) if x == s] for s in PieceState}
        assert in_state[PieceState.HELD] == list(self.held)
        assert self.held_bytes == sum(map(size_of, in_state[PieceState.HELD]))
        unwanted_bytes = sum(map(size_of, in_state[PieceState.UNWANTED]))
        assert self.wanted_bytes == self.layout.size - unwanted_bytes
        assert self.verifying_bytes == sum(map(size_of, in_state[PieceState.VERIFYING]))
