"""What is asked of whom.

Owns the books of all requests of one download, and finds work for a source that has none: a
request that waits at another source for longer than this one would need.
"""

from __future__ import annotations

from collections.abc import Iterable

from peer.swarm.pieces import Layout
from peer.swarm.sources import Source

_LOOK_AT = 64
"""Requests of one source that are looked at for another: bounds the time of a search."""
_GAIN = 1.5
_GAIN_S = 0.05
"""A request moves only if that is sooner by half and by this much: or it would wander."""


class Flights:
    """Requests, by piece and by source. A piece may be asked of several sources in the end game."""

    __slots__ = ("_layout", "_owners", "asked_bytes")

    def __init__(self, layout: Layout) -> None:
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
            source.progress_at = now
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

    def relief(
        self, idle: Source, others: Iterable[Source], own_s: float, now: float
    ) -> tuple[int, Source] | None:
        """A request of another source that `idle`, which needs `own_s` for it, would answer sooner.

        Of all such the one that has longest to wait; the last of its queue, since the first may be
        on its way. Pieces that are asked of two already are left alone.
        """
        best: tuple[int, Source] | None = None
        best_wait_s = own_s * _GAIN + _GAIN_S
        for other in others:
            if other is idle or not other.asked:
                continue
            wait_s = expected_wait(other, other.asked_bytes, now)
            if wait_s <= best_wait_s:
                continue
            for looked_at, index in enumerate(reversed(other.asked)):
                if looked_at == _LOOK_AT:
                    break
                if idle.offers(index) and len(self._owners[index]) == 1:
                    best, best_wait_s = (index, other), wait_s
                    break
        return best

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


def expected_wait(source: Source, queued_bytes: int, now: float) -> float:
    """Seconds until a source has given `queued_bytes`, by what it gave and by its silence."""
    rate = source.window.current_rate(now) if source.asked else source.window.rate
    return queued_bytes / rate if rate > 0.0 else 0.0
