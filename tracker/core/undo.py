"""Undo log of the mirror: the old values of what a batch of changes replaces.

Owns: how a dictionary, a sorted list and an attribute get back their old values. Not here: which of
them a change replaces (see tracker.core.state); the code of each change notes that first.

Invariant: after `UndoLog.take_back` all that was noted is as it was at `UndoLog.begin`, and each
dictionary has its old order. While no batch is open a note costs one comparison.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from typing import Any, TypeVar

from tracker.core.sorted_lists import remove_sorted

K = TypeVar("K")
V = TypeVar("V")
_ABSENT: Any = object()


class UndoLog:
    """Notes of one batch at a time. Each method but the last three notes what is replaced next.

    Thread safety: none.
    """

    __slots__ = ("_notes", "_ordered", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._notes: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self._ordered: set[int] = set()  # by id: dictionaries whose order is noted; notes hold them

    def item(self, table: dict[K, V], key: K) -> None:
        """Note the value of ``key``, before an assignment or the removal of the last key."""
        if self.is_open:
            self._notes.append((_set_item, (table, key, table.get(key, _ABSENT))))

    def removal(self, table: dict[K, V], key: K, *, ordered: bool = True) -> None:
        """Note the value of ``key``, which is removed next, if it is there.

        ``ordered``: also its place; this costs a pass over the keys once in a batch.
        """
        if not self.is_open or key not in table:
            return
        if ordered and id(table) not in self._ordered and next(reversed(table)) != key:
            self._ordered.add(id(table))
            self._notes.append((_set_order, (table, list(table))))
        self._notes.append((_set_item, (table, key, table[key])))

    def clearing(self, table: dict[K, V]) -> None:
        """Note all of ``table``, which is emptied next."""
        if self.is_open:
            self._notes.append((_refill, (table, dict(table))))

    def field(self, owner: object, *names: str) -> None:
        """Note the values of attributes, but not the content of these values."""
        if self.is_open:
            for name in names:
                self._notes.append((setattr, (owner, name, getattr(owner, name))))

    def addition(self, ordered: list[Any], key: Any) -> None:
        """Note that ``key`` is inserted next into a sorted list."""
        if self.is_open:
            self._notes.append((remove_sorted, (ordered, key)))

    def subtraction(self, ordered: list[Any], key: Any) -> None:
        """Note that ``key`` is removed next from a sorted list."""
        if self.is_open:
            self._notes.append((insort, (ordered, key)))

    def step(self, back: Callable[..., Any], *arguments: Any) -> None:
        """Note a call that takes back what is done next."""
        if self.is_open:
            self._notes.append((back, arguments))

    def begin(self) -> None:
        """Open a batch."""
        if self.is_open:
            raise AssertionError("a batch is open")
        self.is_open = True

    def keep(self) -> None:
        """Close the batch; its changes stay."""
        self.is_open = False
        self._notes.clear()
        self._ordered.clear()

    def take_back(self) -> None:
        """Close the batch, and restore the state of its beginning. Cost: its changes."""
        self.is_open = False
        while self._notes:
            back, arguments = self._notes.pop()
            back(*arguments)
        self._ordered.clear()


def _set_item(table: dict[K, V], key: K, value: V) -> None:
    if value is _ABSENT:
        table.pop(key, None)
    else:
        table[key] = value


def _set_order(table: dict[K, V], keys: list[K]) -> None:
    _refill(table, {key: table[key] for key in keys})


def _refill(table: dict[K, V], items: dict[K, V]) -> None:
    table.clear()
    table.update(items)
