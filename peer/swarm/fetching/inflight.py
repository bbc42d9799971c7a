"""In-flight requests of one download, by piece and by source.

Owns: the books of all requests, and the choice of a request that an idle source should steal from a
slower one. Not here: the decision to request or to steal (see requests).
"""

from __future__ import annotations

from collections.abc import Iterable

from peer.swarm.fetching.sources import Source
from peer.swarm.pieces import PieceLayout

_STEAL_SCAN_MAX = 64
"""Requests of one source that are examined for one steal. Bounds the time of a search."""
_GAIN = 1.5
_GAIN_S = 0.05
"""A request is stolen only if that is faster by this factor and this time. Why: estimates err, and
each move costs two messages."""


class InflightRequests:
    """Requests, by piece and by source. In the end game a piece may have several owners."""

    __slots__ = ("_layout", "_owners", "total_bytes")

    def __init__(self, layout: PieceLayout) -> None:
        self._layout = layout
        self._owners: dict[int, list[Source]] = {}
        self.total_bytes = 0
        """Of all requests. A piece with two owners counts twice, since both copies may arrive."""

    def __len__(self) -> int:
        """Return the number of pieces in flight."""
        return len(self._owners)

    def owners(self, index: int) -> list[Source]:
        """Return the sources that the piece is requested from, in the order of the requests."""
        return self._owners.get(index, [])

    def add(self, source: Source, index: int, now: float) -> None:
        """Record a request. The piece must not be in flight from the same source."""
        if not source.in_flight:
            source.window.start(now)
            source.silent_since = now
            if source.stall is None:
                source.last_progress_at = now
            else:
                source.stall.wait_from = now
        source.in_flight[index] = now
        source.promised.pop(index, None)
        size = self._layout.size_of(index)
        source.in_flight_bytes += size
        self.total_bytes += size
        owners = self._owners.get(index)
        if owners is None:
            self._owners[index] = [source]
        else:
            owners.append(source)

    def remove(self, source: Source, index: int) -> bool:
        """Remove a request; return True if the piece is no longer in flight from any source."""
        del source.in_flight[index]
        size = self._layout.size_of(index)
        source.in_flight_bytes -= size
        self.total_bytes -= size
        owners = self._owners[index]
        owners.remove(source)
        if owners:
            return False
        del self._owners[index]
        return True

    def steal_candidate(
        self, idle: Source, others: Iterable[Source], own_s: float, now: float
    ) -> tuple[int, Source] | None:
        """Return a request, and its owner, that `idle` would answer sooner, within `own_s`.

        The owner is the one with the longest wait. The request is the last of its queue, since the
        first may be on the way. Pieces with two working owners are left alone.
        """
        best: tuple[int, Source] | None = None
        best_wait_s = steal_threshold_s(own_s)
        for other in others:
            if other is idle or not other.in_flight:
                continue
            wait_s = expected_wait_s(other, 0, now)
            if wait_s <= best_wait_s:
                continue
            for examined, index in enumerate(reversed(other.in_flight)):
                if examined == _STEAL_SCAN_MAX:
                    break
                if idle.offers(index) and self._may_add_owner(idle, index, now):
                    best, best_wait_s = (index, other), wait_s
                    break
        return best

    def can_steal(self, index: int, idle: Source, own_s: float, now: float) -> Source | None:
        """Return the owner of the piece if `idle` would answer sooner, else None."""
        if not self._may_add_owner(idle, index, now):
            return None
        owner = self._owners[index][-1]
        return owner if expected_wait_s(owner, 0, now) > steal_threshold_s(own_s) else None

    def _may_add_owner(self, idle: Source, index: int, now: float) -> bool:
        """Return whether `idle` may be one more owner: it is none yet, and fewer than two work.

        Not if the piece is on its way from an owner: it would arrive twice.
        """
        owners = self._owners[index]
        if any(owner.promises(index, now) for owner in owners):
            return False
        if len(owners) == 1:
            return owners[0] is not idle
        return idle not in owners and sum(not owner.stalled for owner in owners) < 2

    def check_invariants(self, sources: Iterable[Source]) -> None:
        """Raise AssertionError if the books disagree. For tests."""
        size_of = self._layout.size_of
        total, owned = 0, 0
        for source in sources:
            assert source.in_flight_bytes == sum(size_of(i) for i in source.in_flight)
            total += source.in_flight_bytes
            owned += len(source.in_flight)
            for index in source.in_flight:
                assert self._owners[index].count(source) == 1
        assert self.total_bytes == total
        assert owned == sum(len(owners) for owners in self._owners.values())


def steal_threshold_s(own_s: float) -> float:
    """Return the wait above which a source that needs `own_s` for a request should steal it."""
    return own_s * _GAIN + _GAIN_S


def expected_wait_s(source: Source, more_bytes: int, now: float) -> float:
    """Return the seconds until a source has given all that is in flight, and `more_bytes`.

    Estimated from its rate and its silence. A source that has given nothing yet counts as fast.
    """
    queued = source.in_flight_bytes
    window = source.window
    rate = window.current_rate(now) if queued else window.rate
    return (queued + more_bytes) / rate if rate > 0.0 else 0.0
