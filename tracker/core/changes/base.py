"""Durable change: the base class, and the tag of each kind in the journal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T", bound="Change")
TAGS: dict[int, type[Change]] = {}
"""The kinds of changes that the journal keeps (see tracker.store.journal)."""
UNTAGGED: list[type[Change]] = []
"""Those that concern this process alone."""


class Change(ABC):
    """Value whose code notes in ``state.undo`` what it replaces, before it does so."""

    __slots__ = ()

    @abstractmethod
    def apply(self, state: Any) -> None:
        """Apply it to the mirror (see tracker.core.state).

        Raises `LocalProtocolError` or KeyError if it does not fit. Part of it may be applied then:
        take the batch back, or load the mirror again.
        """


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def change(tag: int | None = None) -> Callable[[type[T]], type[T]]:
    """Make a class a kind of change. Invariant: a ``tag`` is never used for another kind."""

    def make(kind: type[T]) -> type[T]:
        made = dataclass(frozen=True, slots=True)(kind)
        if tag is None:
            UNTAGGED.append(made)
        elif TAGS.setdefault(tag, made) is not made:
            raise AssertionError(f"two kinds of changes have the tag {tag}")
        return made

    return make
