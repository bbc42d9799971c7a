"""Cached answers: many readers cost the tracker one look.

Limits: an answer is at least `FRESH_S` old before the same question is asked again, and a question
is asked once at a time. So pages without number cost no more than one page. After a question that
took long the pause is longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

FRESH_S = 0.5
ANSWERS_MAX = 256  # further ones take the place of the oldest

A = TypeVar("A")


class Cached:
    """Answers by their question. ``clock``: monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._answers: dict[Hashable, tuple[float, Any]] = {}  # fresh until, answer
        self._asking: dict[Hashable, asyncio.Task[Any]] = {}

    async def get(
        self,
        question: Hashable,
        fetch: Callable[[], Awaitable[A]],
        fresh_s: float = FRESH_S,
        rest: float = 0.0,
    ) -> A:
        """Return the answer of ``fetch``, or one that is younger than ``fresh_s``.

        ``rest``: an answer stays fresh for at least that many times the time that it took. A reader
        that leaves does not cancel the work: others may wait for it.
        """
        found = self._answers.get(question)
        if found is not None and self._clock() < found[0]:
            answer: A = found[1]
            return answer
        task = self._asking.get(question)
        if task is None:
            task = asyncio.create_task(self._fetch(question, fetch, fresh_s, rest))
            self._asking[question] = task
        return await asyncio.shield(task)

    async def _fetch(
        self, question: Hashable, fetch: Callable[[], Awaitable[A]], fresh_s: float, rest: float
    ) -> A:
        began = self._clock()
        try:
            answer = await fetch()
            now = self._clock()
            self._answers.pop(question, None)
            # Why all of them: each text that is searched for is a question, asked once.
            for old in [each for each, (until, _) in self._answers.items() if until <= now]:
                del self._answers[old]
            while len(self._answers) >= ANSWERS_MAX:
                del self._answers[next(iter(self._answers))]
            self._answers[question] = (now + max(fresh_s, rest * (now - began)), answer)
            return answer
        finally:
            self._asking.pop(question, None)

    def clear(self) -> None:
        """Forget all answers: something has changed."""
        self._answers.clear()

    def close(self) -> None:
        """Give up the questions under way."""
        for task in self._asking.values():
            task.cancel()
