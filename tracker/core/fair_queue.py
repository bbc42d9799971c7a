"""Whose turn it is: one thing of each in turn, however much any of them brings.

Owns the order alone. What waits, and who counts as one, is the caller's to say
(``tracker.service.command_loop``).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Queues that are taken from in turn. What is in one of them keeps its order."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()  # none of them is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Hashable, item: T) -> None:
        """``item`` is the last in ``key``; a key that was empty has its turn after all others."""
        self._queues.setdefault(key, deque()).append(item)
        self._count += 1

    def take(self) -> T:
        """The next one. Raises `KeyError` when there is none."""
        key, items = next(iter(self._queues.items()), (None, None))
        if items is None:
            raise KeyError("nothing waits")
        item = items.popleft()
        self._count -= 1
        if items:
            self._queues.move_to_end(key)
        else:
            del self._queues[key]
        return item
