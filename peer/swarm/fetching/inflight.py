"""What is asked of whom.

Owns the books of all requests of one download, and finds work for a source that has none: a
request that waits at another source for longer than this one would need.
"""

from __future__ import annotations

from collections.abc import Iterable

from peer.swarm.fetching.sources import Source
from peer.swarm.pieces import PieceLayout

_LOOK_AT = 64
"""Requests of one source that are looked at for another: bounds the time of a search."""
_GAIN = 3.0
_GAIN_S = 0.1
"""A request moves only if that is sooner by this factor and this much: what is moved may be on its
way already, and come twice."""


class InflightRequests:
    """Requests, by piece and by source. A piece may be asked of several sources in the end game."""

    __slots__ = ("_layout", "_owners", "asked_bytes")

    def __init__(self, layout: PieceLayout) -> None:
        self._layout = layout
        self._owners: dict[int, list[Source]] = {}
        self.asked_bytes = 0
        """Of all requests; a piece asked twice counts twice, since both may come."""

    def __len__(self) -> int:
        """How many pieces are asked for."""
        return len(self._owners)

    def owners(self, index: int) -> list[Source]:
        """Who is asked for the piece; the first was first."""
        return self._owners.get(index, [])

    def add(self, source: Source, index: int, now: float) -> None:
        """The source is asked for a piece that it is not asked for yet."""
        if not source.asked:
            source.window.began(now)
            source.progress_at = source.quiet_since = now
            if not source.stalled:
                source.owes_since = now
        source.asked[index] = now
        size = self._layout.size_of(index)
        source.asked_bytes += size
        self.asked_bytes += size
        owners = self._owners.get(index)
        if owners is None:
            self._owners[index] = [source]
        else:
            owners.append(source)

    def remove(self, source: Source, index: int) -> bool:
        """The source is not asked any longer; True when nobody else is."""
        del source.asked[index]
        size = self._layout.size_of(index)
        source.asked_bytes -= size
        self.asked_bytes -= size
        owners = self._owners[index]
        owners.remove(source)
        if owners:
            return False
        del self._owners[index]
        return True

    def steal_candidate(
        self, idle: Source, others: Iterable[Source], own_s: float, now: float
    ) -> tuple[int, Source] | None:
        """A request of another source that `idle`, which needs `own_s` for it, would answer sooner.

        Of all such the one that has longest to wait; the last of its queue, since the first may be
        on its way. Pieces that two working sources are asked for are left alone.
        """
        best: tuple[int, Source] | None = None
        best_wait_s = worthwhile(own_s)
        for other in others:
            if other is idle or not other.asked:
                continue
            wait_s = expected_wait(other, 0, now)
            if wait_s <= best_wait_s:
                continue
            for looked_at, index in enumerate(reversed(other.asked)):
                if looked_at == _LOOK_AT:
                    break
                if idle.offers(index) and self._may_add_owner(idle, index):
                    best, best_wait_s = (index, other), wait_s
                    break
        return best

    def can_steal(self, index: int, idle: Source, own_s: float, now: float) -> Source | None:
        """Who is asked for the piece, if `idle` would answer sooner."""
        if not self._may_add_owner(idle, index):
            return None
        owner = self._owners[index][-1]
        return owner if expected_wait(owner, 0, now) > worthwhile(own_s) else None

    def _may_add_owner(self, idle: Source, index: int) -> bool:
        """Whether one more may be asked: not the same again, nor a third that works."""
        owners = self._owners[index]
        if len(owners) == 1:
            return owners[0] is not idle
        return idle not in owners and sum(not owner.stalled for owner in owners) < 2

    def check_invariants(self, sources: Iterable[Source]) -> None:
        """Raise AssertionError when the books do not agree. For tests."""
        size_of = self._layout.size_of
        total, owned = 0, 0
        for source in sources:
            assert source.asked_bytes == sum(size_of(i) for i in source.asked)
            total += source.asked_bytes
            owned += len(source.asked)
            for index in source.asked:
                assert self._owners[index].count(source) == 1
        assert self.asked_bytes == total
        assert owned == sum(len(owners) for owners in self._owners.values())


def worthwhile(own_s: float) -> float:
    """The wait from which on a request is better moved to a source that needs `own_s` for it."""
    return own_s * _GAIN + _GAIN_S


def expected_wait(source: Source, more_bytes: int, now: float) -> float:
    """Seconds until a source has given all that it is asked for, and `more_bytes`.

    By what it gave so far, and by its silence; a source that gave nothing yet is thought quick.
    """
    queued = source.asked_bytes
    window = source.window
    rate = window.current_rate(now) if queued else window.rate
    return (queued + more_bytes) / rate if rate > 0.0 else 0.0
