"""Cached answers: the question is asked once for all readers."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.event_loop import in_event_loop
from tracker.http import cached
from tracker.http.cached import Cached


class Asked:
    """A question that answers its number, when ``gate`` is open."""

    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> int:
        self.count += 1
        await self.gate.wait()
        return self.count


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@in_event_loop
async def test_h165_readers_without_number_cost_one_look() -> None:
    clock, asked = Clock(), Asked()
    kept = Cached(clock)
    asked.gate.clear()
    readers = [asyncio.create_task(kept.get("load", asked)) for _ in range(1_000)]
    await asyncio.sleep(0)
    readers[0].cancel()  # one that hangs up takes nothing from the others
    asked.gate.set()
    assert await asyncio.gather(*readers[1:]) == [1] * 999
    clock.now_s = cached.FRESH_S / 2
    assert await kept.get("load", asked) == 1
    clock.now_s = cached.FRESH_S
    assert await kept.get("load", asked) == 2
    kept.clear()
    assert await kept.get("load", asked) == 3


@in_event_loop
async def test_a_long_survey_is_followed_by_a_longer_rest() -> None:
    clock, asked = Clock(), Asked()
    kept = Cached(clock)

    async def survey() -> int:
        clock.now_s += 10.0
        return await asked()

    assert await kept.get("users", survey, 1.0, rest=5.0) == 1
    clock.now_s = 59.0
    assert await kept.get("users", survey, 1.0, rest=5.0) == 1
    clock.now_s = 60.0
    assert await kept.get("users", survey, 1.0, rest=5.0) == 2


@in_event_loop
async def test_answers_that_are_no_longer_fresh_take_no_memory() -> None:
    clock, asked = Clock(), Asked()
    kept = Cached(clock)
    for text in "abc":
        await kept.get(text, asked)
    clock.now_s = cached.FRESH_S
    await kept.get("d", asked)
    assert list(kept._answers) == ["d"]


@in_event_loop
async def test_an_error_is_told_and_not_kept() -> None:
    kept, asked = Cached(Clock()), Asked()

    async def fails() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await kept.get("load", fails)
    assert await kept.get("load", asked) == 1


@in_event_loop
async def test_answers_are_bounded() -> None:
    kept, asked = Cached(Clock()), Asked()
    for number in range(cached.ANSWERS_MAX + 10):
        await kept.get(number, asked)
    assert len(kept._answers) == cached.ANSWERS_MAX
