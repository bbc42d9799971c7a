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
        self._lanes: OrderedDict[Hashable, deque[T]] = OrderedDict()  # none of them is empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, lane: Hashable, item: T) -> None:
        """``item`` is the last in ``lane``; a lane that was empty has its turn after all others."""
        self._lanes.setdefault(lane, deque()).append(item)
        self._count += 1

    def take(self) -> T:
        """The next one. Raises `KeyError` when there is none."""
        lane, items = next(iter(self._lanes.items()), (None, None))
        if items is None:
            raise KeyError("nothing waits")
        item = items.popleft()
        self._count -= 1
        if items:
            self._lanes.move_to_end(lane)
        else:
            del self._lanes[lane]
        return item
