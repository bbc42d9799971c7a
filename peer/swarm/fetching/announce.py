"""When the pieces that were verified are made known to those who fetch from us.

Owns the batch and its deadline; the shell sends it to whom it concerns.
"""

from __future__ import annotations


class Announcements:
    """Gathers verified pieces: the first after a pause goes at once, others wait `batch_s`."""

    __slots__ = ("_batch_s", "_last", "_waiting")

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s
        self._waiting: list[int] = []
        self._last = float("-inf")

    def add(self, index: int) -> None:
        self._waiting.append(index)

    def withdraw(self, index: int) -> None:
        """The piece is held no longer."""
        if index in self._waiting:
            self._waiting.remove(index)

    def due_at(self) -> float | None:
        """When `take` will have something."""
        return self._last + self._batch_s if self._waiting else None

    def take(self, now: float, *, at_once: bool = False) -> tuple[int, ...]:
        """What is due."""
        if not self._waiting or not (at_once or now >= self._last + self._batch_s):
            return ()
        batch = tuple(self._waiting)
        self._waiting.clear()
        self._last = now
        return batch
