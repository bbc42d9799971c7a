"""Fair, bounded queue for password hashing: least recently served address first, then user.

Owns: the order, the number of places each lane may hold, and eviction from a full queue. Not here:
threads (see ``tracker.service.passwords``) and budgets (see ``tracker.core.throttle``).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
SERVED_KEPT = 1_000  # addresses and lanes whose last turn is remembered


class NoPlace(Exception):
    """The lane holds all places that it may have, or the queue is full of others' turns."""


class HashingTurns(Generic[T]):
    """Items in lanes, lanes at addresses. A lane is a user, as far as one account is concerned.

    Limits: ``each_max`` places a lane, waiting and at work together; ``waiting_max`` wait in all.
    """

    def __init__(self, waiting_max: int, each_max: int) -> None:
        self._waiting_max = waiting_max
        self._each_max = each_max
        self._addresses: OrderedDict[str, OrderedDict[Hashable, deque[T]]] = OrderedDict()
        self._waiting_at: Counter[str] = Counter()
        self._places: Counter[Hashable] = Counter()  # of each lane, waiting and at work
        self._turn = 0
        self._last_turns: OrderedDict[Hashable, int] = OrderedDict()  # of addresses and lanes

    def __len__(self) -> int:
        return self._waiting_at.total()

    def add(self, address: str, lane: Hashable, item: T) -> T | None:
        """Append ``item``. Return the one that had to give way to it, if any; raise `NoPlace`."""
        if self._places[lane] >= self._each_max:
            raise NoPlace
        evicted = self._make_way(address, lane) if len(self) >= self._waiting_max else None
        self._addresses.setdefault(address, OrderedDict()).setdefault(lane, deque()).append(item)
        self._waiting_at[address] += 1
        self._places[lane] += 1
        return evicted

    def take(self) -> tuple[Hashable, T]:
        """Return the next item and its lane, whose place stays taken until `done`.

        Raises `KeyError` if nothing waits.
        """
        if not self._addresses:
            raise KeyError("nothing waits")
        address = min(self._addresses, key=self._last_turn)
        lane = min(self._addresses[address], key=self._last_turn)
        item = self._remove(address, lane, newest=False)
        self._turn += 1
        for served in (address, lane):
            self._last_turns[served] = self._turn
            self._last_turns.move_to_end(served)
        while len(self._last_turns) > SERVED_KEPT:
            self._last_turns.popitem(last=False)
        return lane, item

    def _last_turn(self, key: Hashable) -> int:
        return self._last_turns.get(key, 0)

    def done(self, lane: Hashable) -> None:
        """Free a place of ``lane``."""
        self._places[lane] -= 1
        if not self._places[lane]:
            del self._places[lane]

    def _make_way(self, address: str, lane: Hashable) -> T:
        """Evict the newest item of the address with most of them, or of the newcomer's own.

        Invariant: an eviction leaves its loser at least as many places as the newcomer gets.
        """
        greediest = max(self._waiting_at, key=lambda other: self._waiting_at[other])
        if self._waiting_at[greediest] <= self._waiting_at[address] + 1:
            greediest = address
        lanes = self._addresses.get(greediest, OrderedDict())
        longest = max(lanes, key=lambda other: len(lanes[other]), default=None)
        own = len(lanes.get(lane, ()))
        if longest is None or (greediest == address and len(lanes[longest]) <= own + 1):
            raise NoPlace
        item = self._remove(greediest, longest, newest=True)
        self.done(longest)
        return item

    def _remove(self, address: str, lane: Hashable, *, newest: bool) -> T:
        lanes = self._addresses[address]
        item = lanes[lane].pop() if newest else lanes[lane].popleft()
        self._waiting_at[address] -= 1
        if not lanes[lane]:
            del lanes[lane]
        if not lanes:
            del self._addresses[address], self._waiting_at[address]
        return item
