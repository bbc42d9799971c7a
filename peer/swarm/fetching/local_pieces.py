"""Pieces that need not be fetched: pieces of zeros, and copies of held pieces.

Owns: the choice and the time of each piece to be made. Of pieces with one digest the first is
fetched, and the others wait for it. If no source offers that one, another of them takes its place.

Invariant: of a group of equal pieces of which none is held, at least one is to be fetched (not
LOCAL) or about to be made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import Make, SourceId
from peer.swarm.fetching.picker import Picker
from peer.swarm.pieces import Pieces, PieceState

_MISSING = int(PieceState.MISSING)
_HELD = int(PieceState.HELD)
_LOCAL = int(PieceState.LOCAL)
_RESCAN_S = 5.0
"""Interval of the search for groups whose fetched piece no source offers."""
_RESCAN_GROUPS = 2_000
"""Groups examined in one step, for about a millisecond; the next ones follow soon."""
_RESCAN_SOON_S = 0.25


class Alike(NamedTuple):
    """Knowledge from the digests: the pieces of zeros, and the groups of other equal pieces.

    Pieces of one group have one digest and one length.
    """

    zeros: tuple[int, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


class LocalPieces:
    """Local pieces of one download: those that wait, and those that are being made."""

    def __init__(
        self,
        pieces: Pieces,
        picker: Picker[SourceId],
        out: EffectBuffer,
        alike: Alike,
        bytes_max: int,
        pause_s: float,
    ) -> None:
        self._pieces = pieces
        self._picker = picker
        self._out = out
        self._bytes_max = bytes_max
        self._pause_s = pause_s
        self._zeros = bytearray(pieces.layout.count)  # by piece: 1 for one of zeros
        self._groups = alike.groups
        self._group_of = {index: group for group in alike.groups for index in group}
        self._ready: deque[int] = deque()
        self._waits = bytearray(pieces.layout.count)  # by piece: 1 for those in `_ready`
        self._making: dict[int, None] = {}
        self._making_bytes = 0
        self._suspended_until = -inf
        self._rescan_at = -inf
        self._rescan_from = 0  # groups of this round
        for index in alike.zeros:
            self._zeros[index] = 1
            if pieces.states[index] == _MISSING:
                self._set_ready(index)
        for group in alike.groups:
            first = next((i for i in group if pieces.states[i] == _HELD), group[0])
            for index in group:
                if index != first and pieces.states[index] == _MISSING:
                    pieces.mark_local(index)
            self._follow(first)

    def held(self, index: int) -> None:
        """Copy the pieces that equal a newly held one."""
        self._follow(index)

    def lost(self, index: int) -> bool:
        """Return whether a piece that was held and is missing can be made again."""
        if self._zeros[index] or self._like(index) is not None:
            self._set_ready(index)
            return True
        return False

    def made(self, index: int) -> bool:
        """Record that a made piece is held. Return False if it was not being made."""
        if not self._end(index):
            return False
        self._pieces.made(index)
        self._follow(index)
        return True

    def not_made(self, index: int, now: float) -> bool:
        """Retry a piece later that could not be made. Return False if it was not being made."""
        if not self._end(index):
            return False
        self._ready.appendleft(index)
        self._waits[index] = 1
        self._suspended_until = now + self._pause_s
        return True

    def due_at(self) -> float | None:
        """Return the time at which `step` has work without any event."""
        if self._ready and not self._making:
            return self._suspended_until
        return self._rescan_at if self._groups else None

    def step(self, now: float) -> None:
        """Emit `Make` for the pieces that are due."""
        if now >= self._rescan_at and self._groups:
            self._rescan()
            self._rescan_at = now + (_RESCAN_SOON_S if self._rescan_from else _RESCAN_S)
        if now < self._suspended_until:
            return
        while self._ready:
            index = self._ready[0]
            size = self._pieces.layout.size_of(index)
            if self._making and self._making_bytes + size > self._bytes_max:
                return
            self._ready.popleft()
            self._waits[index] = 0
            like = None if self._zeros[index] else self._like(index)
            if like is None and not self._zeros[index]:
                self._wait_or_fetch(index)
                continue
            self._making[index] = None
            self._making_bytes += size
            self._out.put(Make(index, like))

    # -- inside -----------------------------------------------------------------------------------

    def _rescan(self) -> None:
        """Fetch an offered piece of a group whose fetched piece no source offers."""
        states, offers = self._pieces.states, self._picker.offers
        batch = self._groups[self._rescan_from : self._rescan_from + _RESCAN_GROUPS]
        self._rescan_from += len(batch)
        if self._rescan_from >= len(self._groups):
            self._rescan_from = 0
        for group in batch:
            fetched = [index for index in group if states[index] != _LOCAL]
            if len(fetched) != 1 or states[fetched[0]] != _MISSING or offers(fetched[0]):
                continue
            other = next((i for i in group if states[i] == _LOCAL and offers(i)), None)
            if other is not None and not self._waits[other] and other not in self._making:
                self._recall(other)
                self._pieces.mark_local(fetched[0])

    def _like(self, index: int) -> int | None:
        states = self._pieces.states
        group = self._group_of.get(index, ())
        return next((other for other in group if states[other] == _HELD), None)

    def _follow(self, index: int) -> None:
        states = self._pieces.states
        if states[index] != _HELD:
            return
        for other in self._group_of.get(index, ()):
            if states[other] in (_MISSING, _LOCAL):
                self._set_ready(other)

    def _set_ready(self, index: int) -> None:
        if self._pieces.states[index] == _MISSING:
            self._pieces.mark_local(index)
        if not self._waits[index] and index not in self._making:
            self._waits[index] = 1
            self._ready.append(index)

    def _wait_or_fetch(self, index: int) -> None:
        states = self._pieces.states
        if all(states[other] == _LOCAL for other in self._group_of[index]):
            self._recall(index)

    def _recall(self, index: int) -> None:
        self._pieces.recall(index)
        self._picker.requeue((index,))

    def _end(self, index: int) -> bool:
        if index not in self._making:
            return False
        del self._making[index]
        self._making_bytes -= self._pieces.layout.size_of(index)
        return True

    def check_invariants(self, states: Iterable[int]) -> None:
        """Raise AssertionError if the state contradicts itself. For tests: O(pieces)."""
        local = {index for index, state in enumerate(states) if state == _LOCAL}
        known = set(self._ready)
        assert len(known) == len(self._ready) == sum(self._waits)
        assert all(self._waits[index] for index in known)
        assert not known & self._making.keys()
        known |= self._making.keys()
        assert known <= local
        assert {index for index in local if self._zeros[index]} <= known
        size_of = self._pieces.layout.size_of
        assert self._making_bytes == sum(map(size_of, self._making))
        for group in self._groups:
            assert any(index not in local or index in known for index in group)
