"""Fair, bounded queue for password hashing: least recently served address first, then user.

Owns: the order, the number of places for each key, and eviction from a full queue. Not here:
threads (see tracker.service.passwords) and budgets (see tracker.core.throttle).
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
SERVED_KEPT = 1_000  # addresses and queues whose last turn is remembered


class QueueFull(Exception):
    """The key holds all its places, or the queue is full and no other key has more than it."""


class HashingQueue(Generic[T]):
    """Queues by key, keys by address. A key is a user, or all new accounts of an address.

    Limits: ``each_max`` places a key, waiting and running together; ``waiting_max`` wait in all.
    """

    def __init__(self, waiting_max: int, each_max: int) -> None:
        self._waiting_max = waiting_max
        self._each_max = each_max
        self._addresses: OrderedDict[str, OrderedDict[Hashable, deque[T]]] = OrderedDict()
        self._waiting_at: Counter[str] = Counter()
        self._places: Counter[Hashable] = Counter()  # of each key, waiting and running
        self._turn = 0
        self._last_turns: OrderedDict[Hashable, int] = OrderedDict()  # of addresses and keys

    def __len__(self) -> int:
        return self._waiting_at.total()

    def add(self, address: str, key: Hashable, item: T) -> T | None:
        """Append ``item``. Return the item that was evicted for it, if any; raise `QueueFull`."""
        if self._places[key] >= self._each_max:
            raise QueueFull
        evicted = self._evict_for(address, key) if len(self) >= self._waiting_max else None
        self._addresses.setdefault(address, OrderedDict()).setdefault(key, deque()).append(item)
        self._waiting_at[address] += 1
        self._places[key] += 1
        return evicted

    def take(self) -> tuple[Hashable, T]:
        """Return the next item and its key, whose place stays taken until `done`.

        Raises `KeyError` if nothing waits.
        """
        if not self._addresses:
            raise KeyError("nothing waits")
        address = min(self._addresses, key=self._last_turn)
        key = min(self._addresses[address], key=self._last_turn)
        item = self._remove(address, key, newest=False)
        self._turn += 1
        for served in (address, key):
            self._last_turns[served] = self._turn
            self._last_turns.move_to_end(served)
        while len(self._last_turns) > SERVED_KEPT:
            self._last_turns.popitem(last=False)
        return key, item

    def _last_turn(self, key: Hashable) -> int:
        return self._last_turns.get(key, 0)

    def done(self, key: Hashable) -> None:
        """Free a place of ``key``."""
        self._places[key] -= 1
        if not self._places[key]:
            del self._places[key]

    def _evict_for(self, address: str, key: Hashable) -> T:
        """Evict the newest item of the address with most of them, or of the newcomer's own.

        Invariant: an eviction leaves its loser at least as many places as the newcomer gets.
        """
        greediest = max(self._waiting_at, key=lambda other: self._waiting_at[other])
        if self._waiting_at[greediest] <= self._waiting_at[address] + 1:
            greediest = address
        queues = self._addresses.get(greediest, OrderedDict())
        longest = max(queues, key=lambda other: len(queues[other]), default=None)
        own = len(queues.get(key, ()))
        if longest is None or (greediest == address and len(queues[longest]) <= own + 1):
            raise QueueFull
        item = self._remove(greediest, longest, newest=True)
        self.done(longest)
        return item

    def _remove(self, address: str, key: Hashable, *, newest: bool) -> T:
        queues = self._addresses[address]
        item = queues[key].pop() if newest else queues[key].popleft()
        self._waiting_at[address] -= 1
        if not queues[key]:
            del queues[key]
        if not queues:
            del self._addresses[address], self._waiting_at[address]
        return item
