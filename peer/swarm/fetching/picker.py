"""Which missing piece to ask of a source next.

Owns how often each piece is offered and, for each source, the missing pieces that it could give in
order of preference. Whether a source may be asked at all is for `window` and `sources` to say.

The order of `Order.RAREST` is BitTorrent's (B. Cohen, "Incentives build robustness in
BitTorrent", 2003): a few random first pieces, then the piece that the fewest offer, equals at
random. Pieces that were asked for once and came back come before all others, so that started work
is finished first.

Preference is one number a piece, ``availability * count + rank``; every source has a heap of these.
The number only grows while availability does, so a heap is corrected lazily, at the top, when it
is used: an event costs O(log pieces), never O(pieces). Only when a source leaves (availability
falls) or the order changes are heaps built anew, each at its next use.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from enum import Enum, unique
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Generic, TypeVar

from peer.swarm.pieces import Bitfield, PieceState

if TYPE_CHECKING:
    from random import Random

_MISSING = int(PieceState.MISSING)
RANDOM_FIRST_PIECES = 4
_PROBES = 8

Key = TypeVar("Key", bound=Hashable)


@unique
class Order(Enum):
    """What is fetched first."""

    RAREST = "rarest"
    """What the fewest sources have: best for the swarm."""
    SEQUENTIAL = "sequential"
    """From the beginning: to look into the file while it comes."""
    RANDOM = "random"
    """Any: the original's rule."""


class _Offer:
    """What one source has, and a heap of what is missing of it. All seeders share one."""

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
        self._rng = rng
        self._order = order
        self._count = len(states)
        self._availability = [0] * self._count
        """How many sources with a part of the content offer the piece; seeders are not counted."""
        self._everything = _Offer(None)
        self._offers: dict[Key, _Offer] = {}
        self._random_left = RANDOM_FIRST_PIECES if order is Order.RAREST else 0
        self._returned: set[int] = set()
        self._rank: Sequence[int] = range(self._count)
        self._at_rank: Sequence[int] = self._rank
        self._shuffled = False
        if order is Order.RANDOM:
            self._shuffle()

    # -- what the sources have --------------------------------------------------------------------

    def add_source(self, key: Key, have: Bitfield | None) -> None:
        """A source with a bitfield, which the picker writes into, or (None) with everything."""
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
        """The source is not asked any longer."""
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
        """The source has got a piece; False when it was known to have it."""
        offer = self._offers[key]
        if offer.have is None or not offer.have.add(index):
            return False
        self._availability[index] += 1
        if not offer.stale and self._states[index] == _MISSING:
            heappush(offer.heap, self._preference(index))
        return True

    def have_not(self, key: Key, index: int) -> None:
        """The source has not got a piece that it offered. It must not be one with everything."""
        offer = self._offers[key]
        if offer.have is not None and offer.have.discard(index):
            self._availability[index] -= 1

    def availability(self, index: int) -> int:
        """How many of the sources with a part of the content offer the piece."""
        return self._availability[index]

    def offers(self, index: int) -> bool:
        """Whether any source that may be asked has the piece."""
        if self._availability[index]:
            return True
        return any(offer is self._everything for offer in self._offers.values())

    # -- choosing ---------------------------------------------------------------------------------

    def enable_random_ties(self) -> None:
        """Take equals at random from here on: others fetch as well, and diversity is worth much.

        Without other leechers the pieces come in their order on disk, which lets both ends read,
        digest and write sequentially.
        """
        if self._order is Order.RAREST and not self._shuffled:
            self._shuffle()

    def pick(self, key: Key) -> int | None:
        """A missing piece that the source has, or None. The caller is expected to reserve it."""
        offer = self._offers[key]
        have, states = offer.have, self._states
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

    def unpick(self, key: Key, index: int) -> None:
        """The piece that was just picked for the source is not asked of it after all."""
        heappush(self._offers[key].heap, self._preference(index))

    def put_back(self, indexes: Iterable[int]) -> None:
        """Pieces are missing again, after having been reserved: they go first from here on."""
        for index in indexes:
            self._returned.add(index)
            preference = self._preference(index)
            heappush(self._everything.heap, preference)
            for offer in self._offers.values():
                if offer.have is not None and not offer.stale and index in offer.have:
                    heappush(offer.heap, preference)

    def fetched(self, index: int) -> None:
        """The piece is held: it loses its precedence, should it be forgotten later."""
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
        for place, index in enumerate(at_rank):
            rank[index] = place
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
