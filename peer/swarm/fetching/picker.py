"""Piece picker: the next missing piece to request from a source.

Owns: the availability of each piece and, for each source, the missing pieces that it offers in
order of preference. Not here: whether a source may be sent a request (see requests).

`Order.RAREST` is BitTorrent's order (B. Cohen, "Incentives build robustness in BitTorrent", 2003):
a few random first pieces, then the piece that the fewest sources offer, ties at random. Requeued
pieces come before all others, so that started work is finished first. Pieces under a read head come
before these.

A piece's preference is one number, ``availability * count + rank``; every source has a heap of
these. The number only grows while availability does, so a heap is corrected lazily, at the top,
when it is used: an event costs O(log pieces), never O(pieces). Only if a source leaves
(availability falls) or the order changes are heaps rebuilt, each at its next use.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import Enum, unique
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

from peer.swarm.fetching.read_heads import ReadHeads
from peer.swarm.pieces import Bitfield, PieceState

if TYPE_CHECKING:
    from random import Random

_MISSING = int(PieceState.MISSING)
RANDOM_FIRST_PIECES = 4
_PROBES = 8

Key = TypeVar("Key", bound=Hashable)


@unique
class Order(Enum):
    """Order in which pieces are fetched."""

    RAREST = "rarest"
    """The piece that the fewest sources hold: best for the swarm."""
    SEQUENTIAL = "sequential"
    """From the start: to read the file while it is being fetched."""
    RANDOM = "random"
    """Random order: the rule of the original."""
    READ = "read"
    """Pieces under a read head, and no others: only a reader wants the content."""


class _Offer:
    """Pieces of one source, and a heap of the missing ones. All seeders share one offer."""

    __slots__ = ("have", "heap", "stale")

    def __init__(self, have: Bitfield | None) -> None:
        self.have = have
        self.heap: list[int] = []
        self.stale = True


class Picker(Generic[Key]):
    """Chooses pieces for sources, named by any hashable key.

    `states` is `Pieces.states`, read and never written.
    """

    def __init__(self, states: bytearray, rng: Random, order: Order = Order.RAREST) -> None:
        self._states = states
        self.heads = ReadHeads(states)
        self._rng = rng
        self._order = order
        self._count = len(states)
        self._availability = [0] * self._count
        """Number of sources that offer the piece; seeders are not counted."""
        self._everything = _Offer(None)
        self._offers: dict[Key, _Offer] = {}
        self._random_left = RANDOM_FIRST_PIECES if order is Order.RAREST else 0
        self._returned: set[int] = set()
        self._rank: Sequence[int] = range(self._count)
        self._at_rank: Sequence[int] = self._rank
        self._shuffled = False
        if order is Order.RANDOM:
            self._shuffle()

    # -- offers of the sources --------------------------------------------------------------------

    def add_source(self, key: Key, have: Bitfield | None) -> None:
        """Add a source with a bitfield, which the picker modifies, or (None) with every piece."""
        if key in self._offers:
            self.remove_source(key)
        if have is None:
            self._offers[key] = self._everything
            return
        availability = self._availability
        for index in have:
            availability[index] += 1
        self._offers[key] = _Offer(have)

    def remove_source(self, key: Key) -> None:
        """Remove a source."""
        offer = self._offers.pop(key, None)
        if offer is None or offer.have is None:
            return
        availability = self._availability
        for index in offer.have:
            availability[index] -= 1
        if offer.have.count and self._order is Order.RAREST:
            self._everything.stale = True
            for other in self._offers.values():
                other.stale = True

    def have_more(self, key: Key, index: int) -> bool:
        """Record that the source holds a piece; return False if that was known."""
        offer = self._offers[key]
        if offer.have is None or not offer.have.add(index):
            return False
        self._availability[index] += 1
        if not offer.stale and self._states[index] == _MISSING:
            heappush(offer.heap, self._preference(index))
        return True

    def has_not(self, key: Key, index: int) -> None:
        """Record that the source lacks a piece that it offered. It must have a bitfield."""
        offer = self._offers[key]
        if offer.have is not None and offer.have.discard(index):
            self._availability[index] -= 1

    def offers(self, index: int) -> bool:
        """Return whether any source, seeders included, offers the piece."""
        if self._availability[index]:
            return True
        return any(offer is self._everything for offer in self._offers.values())

    # -- choosing ---------------------------------------------------------------------------------

    def enable_random_ties(self) -> None:
        """Break ties at random from now on: others fetch as well, and diversity pays.

        Why not always: without other leechers the pieces come in their order on disk, and both ends
        read, digest and write sequentially.
        """
        if self._order is Order.RAREST and not self._shuffled:
            self._shuffle()

    def pick(self, key: Key) -> int | None:
        """Return a missing piece that the source offers, or None. The caller must reserve it."""
        offer = self._offers[key]
        have, states = offer.have, self._states
        if self.heads and (index := self.heads.pick(have)) is not None:
            return index
        if self._order is Order.READ:
            return None
        if self._random_left and self._shuffled:
            self._random_left -= 1
            for _ in range(_PROBES):
                index = int(self._rng.random() * self._count)
                if states[index] == _MISSING and (have is None or index in have):
                    return index
        if offer.stale:
            self._rebuild(offer)
        heap = offer.heap
        count, at_rank = self._count, self._at_rank
        while heap:
            found = heappop(heap)
            index = at_rank[found % count]
            if states[index] != _MISSING or (have is not None and index not in have):
                continue
            preference = self._preference(index)
            if preference > found:
                heappush(heap, preference)
                continue
            return index
        return None

    def pick_with(self, key: Key, run: range) -> list[int]:
        """Return all missing pieces of a run that the source offers, after one of them was picked.

        None for a reader, who wants the picked one first.
        """
        if self.heads or self._order in (Order.READ, Order.RANDOM):
            return []
        have, states = self._offers[key].have, self._states
        return [i for i in run if states[i] == _MISSING and (have is None or i in have)]

    def unpick(self, key: Key, index: int) -> None:
        """Put a piece back that was just picked for the source and is not requested from it."""
        heappush(self._offers[key].heap, self._preference(index))

    def requeue(self, indexes: Iterable[int]) -> None:
        """Put pieces back that were reserved and are missing again; they go first from now on."""
        for index in indexes:
            self._returned.add(index)
            preference = self._preference(index)
            heappush(self._everything.heap, preference)
            for offer in self._offers.values():
                if offer.have is not None and not offer.stale and index in offer.have:
                    heappush(offer.heap, preference)

    def fetched(self, index: int) -> None:
        """End the precedence of a requeued piece, which is held now."""
        self._returned.discard(index)

    # -- inside -----------------------------------------------------------------------------------

    def _preference(self, index: int) -> int:
        if index in self._returned:
            return self._rank[index] - self._count
        if self._order is Order.RAREST:
            return self._availability[index] * self._count + self._rank[index]
        return self._rank[index]

    def _shuffle(self) -> None:
        at_rank = list(range(self._count))
        self._rng.shuffle(at_rank)
        rank = [0] * self._count
        for position, index in enumerate(at_rank):
            rank[index] = position
        self._at_rank, self._rank = at_rank, rank
        self._shuffled = True
        self._everything.stale = True
        for offer in self._offers.values():
            offer.stale = True

    def _rebuild(self, offer: _Offer) -> None:
        states, preference = self._states, self._preference
        candidates = range(self._count) if offer.have is None else offer.have
        offer.heap = [preference(i) for i in candidates if states[i] == _MISSING]
        heapify(offer.heap)
        offer.stale = False
