"""Pieces that need not be fetched: zeros, copies of held pieces, and pieces of local files.

Owns: the choice and the time of each piece to be made. Of pieces with one digest the first is
fetched, and the others wait for it. If no source offers that one, another of them takes its place.
The driver looks for some pieces in local files (see peer.files.reuse_plan); a piece that it does
not find there is fetched.

Invariant: of a group of equal pieces of which none is held, at least one is to be fetched (not
LOCAL), about to be made, or looked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import Make, SourceId
from peer.swarm.fetching.picker import Picker
from peer.swarm.pieces import Pieces, PieceState

_MISSING = int(PieceState.MISSING)
_HELD = int(PieceState.HELD)
_LOCAL = int(PieceState.LOCAL)
_UNWANTED = int(PieceState.UNWANTED)
_RESCAN_S = 5.0
"""Interval of the search for groups whose fetched piece no source offers."""
_RESCAN_PIECES = 5_000
"""Groups and pieces examined in one step, for some milliseconds; the next ones follow soon."""
_RESCAN_SOON_S = 0.25


class Alike(NamedTuple):
    """Knowledge from the digests: the pieces of zeros, and the groups of other equal pieces.

    Pieces of one group have one digest and one length.
    """

    zeros: tuple[int, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()


@dataclass(slots=True)
class _Group:
    """Equal pieces.

    Why candidates: a group may be the whole content, and a search of it for each of its pieces
    would take hours.
    """

    pieces: tuple[int, ...]
    copies: list[int]
    """Every held piece, the latest last, and pieces that were held before."""
    fetched: int
    """A piece that was not LOCAL when last looked at."""


def _wanted_of(group: tuple[int, ...], pieces: Pieces) -> tuple[int, ...]:
    if pieces.counts[_UNWANTED]:
        return tuple(index for index in group if pieces.states[index] != _UNWANTED)
    return group


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
        planned_reuse: Iterable[int] = (),
    ) -> None:
        self._pieces = pieces
        self._picker = picker
        self._out = out
        self._bytes_max = bytes_max
        self._pause_s = pause_s
        self._zeros = bytearray(pieces.layout.count)  # by piece: 1 for one of zeros
        groups = (_wanted_of(group, pieces) for group in alike.groups)
        self._groups = [_Group(group, [], group[0]) for group in groups if len(group) > 1]
        self._group_of = {index: group for group in self._groups for index in group.pieces}
        self._ready: deque[int] = deque()
        self._waits = bytearray(pieces.layout.count)  # by piece: 1 for those in `_ready`
        self.planned_reuse: set[int] = set()
        """Pieces that the driver looks for in local files; of a group at most its first one."""
        self._making: dict[int, None] = {}
        self._making_bytes = 0
        self._suspended_until = -inf
        self._rescan_at = -inf
        self._rescan_from = 0  # groups of this round, …
        self._rescan_place = 0  # … and pieces of the next group
        for index in alike.zeros:
            self._zeros[index] = 1
            if pieces.states[index] == _MISSING:
                self._set_ready(index)
        for group in self._groups:
            # The first one is last, and is copied.
            group.copies = [i for i in reversed(group.pieces) if pieces.states[i] == _HELD]
            if group.copies:
                self._follow(group)
            else:
                for index in group.pieces[1:]:
                    pieces.mark_local(index)
        for index in planned_reuse:
            if pieces.states[index] == _MISSING:
                pieces.mark_local(index)
                self.planned_reuse.add(index)

    def held(self, index: int) -> None:
        """Copy the pieces that equal a newly held one."""
        group = self._group_of.get(index)
        if group is None:
            return
        known = self._copy_in(group)
        group.copies.append(index)
        if len(group.copies) > 2 * len(group.pieces):
            states = self._pieces.states
            group.copies = [i for i in group.pieces if states[i] == _HELD]
        if known is None or known == index:
            self._follow(group)  # otherwise the others follow the known one already

    def lost(self, index: int) -> bool:
        """Return whether a piece that was held and is missing can be made again."""
        if self._zeros[index] or self._like(index) is not None:
            self._set_ready(index)
            return True
        return False

    def made(self, index: int) -> bool:
        """Record that a made or found piece is held. Return False if it was neither."""
        if index in self.planned_reuse:
            self.planned_reuse.discard(index)
        elif not self._end(index):
            return False
        self._pieces.made(index)
        self.held(index)
        return True

    def not_made(self, index: int, now: float) -> bool:
        """Retry a piece later that could not be made. Return False if it was not being made."""
        if not self._end(index):
            return False
        self._ready.appendleft(index)
        self._waits[index] = 1
        self._suspended_until = now + self._pause_s
        return True

    def not_found(self, index: int) -> bool:
        """Fetch a piece that no local file gave. Return False if it was not looked for."""
        if index not in self.planned_reuse:
            return False
        self.planned_reuse.discard(index)
        if self._like(index) is None:
            self._recall(index)
        else:
            self._set_ready(index)
        return True

    def due_at(self) -> float | None:
        """Return the time at which `step` has work without any event."""
        if self._ready and not self._making:
            return self._suspended_until
        return self._rescan_at if self._groups else None

    def step(self, now: float) -> None:
        """Emit `Make` for the pieces that are due."""
        if now >= self._rescan_at and self._groups:
            self._rescan_at = now + (_RESCAN_SOON_S if self._rescan() else _RESCAN_S)
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

    def _rescan(self) -> bool:
        """Fetch an offered piece of a group whose fetched piece no source offers.

        Returns whether a part of the groups is left for the next step.
        """
        left = _RESCAN_PIECES
        while left > 0:
            if self._rescan_from >= len(self._groups):
                self._rescan_from = 0
                return False
            group, place = self._groups[self._rescan_from], self._rescan_place
            left -= 1
            fetched = self._unoffered_in(group)
            if fetched is not None:
                part = group.pieces[place : place + left]
                left -= len(part)
                self._rescan_place = place + len(part)
                if not self._fetch_instead(group, fetched, part) and left <= 0:
                    return True
            self._rescan_place = 0
            self._rescan_from += 1
        return True

    def _unoffered_in(self, group: _Group) -> int | None:
        """Return the piece to be fetched of a group if no source offers it."""
        if self._copy_in(group) is not None:
            return None
        fetched = self._fetched_in(group)
        if fetched is None or self._pieces.states[fetched] != _MISSING:
            return None
        return None if self._picker.offers(fetched) else fetched

    def _fetch_instead(self, group: _Group, fetched: int, part: tuple[int, ...]) -> bool:
        """Fetch an offered piece of ``part`` instead of ``fetched``. Return False without one."""
        states, offers = self._pieces.states, self._picker.offers
        for index in part:
            if states[index] == _LOCAL:
                at_hand = self._waits[index] or index in self._making or index in self.planned_reuse
                if offers(index) and not at_hand:
                    self._recall(index)
                    self._pieces.mark_local(fetched)
                    group.fetched = index
                    return True
            elif states[index] != _MISSING or offers(index):
                group.fetched = index  # that one is fetched as well
                return True
        return False

    def _copy_in(self, group: _Group) -> int | None:
        """Return a held piece of a group. O(1), taken over all calls."""
        states, copies = self._pieces.states, group.copies
        while copies and states[copies[-1]] != _HELD:
            copies.pop()
        return copies[-1] if copies else None

    def _fetched_in(self, group: _Group) -> int | None:
        """Return a piece of a group that is not LOCAL."""
        states = self._pieces.states
        if states[group.fetched] == _LOCAL:
            found = next((index for index in group.pieces if states[index] != _LOCAL), None)
            if found is None:
                return None
            group.fetched = found
        return group.fetched

    def _like(self, index: int) -> int | None:
        group = self._group_of.get(index)
        return None if group is None else self._copy_in(group)

    def _follow(self, group: _Group) -> None:
        states = self._pieces.states
        for other in group.pieces:
            if states[other] in (_MISSING, _LOCAL):
                self._set_ready(other)

    def _set_ready(self, index: int) -> None:
        if index in self.planned_reuse:
            return
        if self._pieces.states[index] == _MISSING:
            self._pieces.mark_local(index)
        if not self._waits[index] and index not in self._making:
            self._waits[index] = 1
            self._ready.append(index)

    def _wait_or_fetch(self, index: int) -> None:
        group = self._group_of[index]
        if self._fetched_in(group) is None and group.pieces[0] not in self.planned_reuse:
            self._recall(index)
            group.fetched = index

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
        assert not self.planned_reuse & (known | self._making.keys())
        known |= self._making.keys() | self.planned_reuse
        assert known <= local
        assert {index for index in local if self._zeros[index]} <= known
        size_of = self._pieces.layout.size_of
        assert self._making_bytes == sum(map(size_of, self._making))
        for group in self._groups:
            assert any(index not in local or index in known for index in group.pieces)
            held = {index for index in group.pieces if self._pieces.states[index] == _HELD}
            assert held <= set(group.copies)
            assert not held or local.intersection(group.pieces) <= known
