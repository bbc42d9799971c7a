"""Fair queue: round-robin across keys, first in, first out within a key.

Owns: the order. Not here: the choice of keys (see tracker.service.command_loop).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """Queues by key, served in rotation."""

    def __init__(self) -> None:
        self._queues: OrderedDict[Hashable, deque[T]] = OrderedDict()  # none of them is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, key: Hashable, item: T) -> None:
        """Append ``item`` to the queue of ``key``. A key that was empty comes after all others."""
        self._queues.setdefault(key, deque()).append(item)
        self._count += 1

    def take(self) -> T:
        """Remove and return the next item. Raise `KeyError` if there is none."""
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
