"""Removal from sorted lists, in place."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any, Protocol, TypeVar


class Comparable(Protocol):
    def __lt__(self, other: Any, /) -> bool: ...


Key = TypeVar("Key", bound=Comparable)


def remove_sorted(ordered: list[Key], key: Key) -> None:
    """Remove ``key``, which must be there, from a sorted list."""
    del ordered[bisect_left(ordered, key)]
