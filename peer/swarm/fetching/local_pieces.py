"""Pieces that need not be fetched: those of zeros, and copies of pieces that are held.

Owns which of them are made when. Of pieces with one digest the first is fetched, and the others
wait for it; where no source offers that one, another of them takes its place.

Invariant: of a group none of which is held, one at least is not set aside.
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
_LOOK_S = 5.0
"""How often it is looked whether what others wait for is offered at all."""
_LOOK_GROUPS = 2_000
"""Groups looked at in one step, for about a millisecond; the next ones follow soon."""
_LOOK_SOON_S = 0.25


class Alike(NamedTuple):
    """What the digests tell before anything is fetched: the pieces of zeros, and the groups of
    other pieces with one digest and length."""

    zeros: tuple[int, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


class Local:
    """The books of one download."""

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
        self._quiet_until = -inf
        self._look_at = -inf
        self._looked = 0  # groups, of the round
        for index in alike.zeros:
            self._zeros[index] = 1
            if pieces.states[index] == _MISSING:
                self._set_ready(index)
        for group in alike.groups:
            first = next((i for i in group if pieces.states[i] == _HELD), group[0])
            for index in group:
                if index != first and pieces.states[index] == _MISSING:
                    pieces.mark_stalled(index)
            self._follow(first)

    def held(self, index: int) -> None:
        """The piece is held from now on: those like it are copied."""
        self._follow(index)

    def lost(self, index: int) -> bool:
        """A piece that was held is missing; whether it need not be fetched again."""
        if self._zeros[index] or self._like(index) is not None:
            self._set_ready(index)
            return True
        return False

    def made(self, index: int) -> bool:
        """The piece of a `Make` is held; False if none was being made."""
        if not self._end(index):
            return False
        self._pieces.made(index)
        self._follow(index)
        return True

    def not_made(self, index: int, now: float) -> bool:
        """The piece of a `Make` could not be made; False if none was being made."""
        if not self._end(index):
            return False
        self._ready.appendleft(index)
        self._waits[index] = 1
        self._quiet_until = now + self._pause_s
        return True

    def due_at(self) -> float | None:
        """When `step` has something to do without any event."""
        if self._ready and not self._making:
            return self._quiet_until
        return self._look_at if self._groups else None

    def step(self, now: float) -> None:
        """Have made what is due."""
        if now >= self._look_at and self._groups:
            self._look()
            self._look_at = now + (_LOOK_SOON_S if self._looked else _LOOK_S)
        if now < self._quiet_until:
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

    def _look(self) -> None:
        """Let what is offered be fetched where nobody offers what it waits for."""
        states, offers = self._pieces.states, self._picker.offers
        some = self._groups[self._looked : self._looked + _LOOK_GROUPS]
        self._looked += len(some)
        if self._looked >= len(self._groups):
            self._looked = 0
        for group in some:
            fetched = [index for index in group if states[index] != _LOCAL]
            if len(fetched) != 1 or states[fetched[0]] != _MISSING or offers(fetched[0]):
                continue
            other = next((i for i in group if states[i] == _LOCAL and offers(i)), None)
            if other is not None and not self._waits[other] and other not in self._making:
                self._recall(other)
                self._pieces.mark_stalled(fetched[0])

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
            self._pieces.mark_stalled(index)
        if not self._waits[index] and index not in self._making:
            self._waits[index] = 1
            self._ready.append(index)

    def _wait_or_fetch(self, index: int) -> None:
        states = self._pieces.states
        if all(states[other] == _LOCAL for other in self._group_of[index]):
            self._recall(index)

    def _recall(self, index: int) -> None:
        self._pieces.recall(index)
        self._picker.put_back((index,))

    def _end(self, index: int) -> bool:
        if index not in self._making:
            return False
        del self._making[index]
        self._making_bytes -= self._pieces.layout.size_of(index)
        return True

    def check_invariants(self, states: Iterable[int]) -> None:
        """Raise AssertionError when something contradicts. For tests: O(pieces)."""
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
