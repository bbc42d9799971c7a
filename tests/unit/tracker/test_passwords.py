"""The queue for hashing: which password is next, and what each attempt costs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from common.errors import Refused
from common.ids import DeviceKey, UserId
from common.messages.refusals import Code
from tracker import guessing, passwords
from tracker.decision import Actor, HashPassword
from tracker.passwords import Passwords


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MEMORY_BYTES", 1 << 13)
    monkeypatch.setattr(passwords, "PASSES", 1)


@pytest.fixture
def guard() -> Iterator[Passwords]:
    made = Passwords(threads=1)
    yield made
    made.close()


def actor(device: int, address: str = "192.0.2.7") -> Actor:
    return Actor(DeviceKey(bytes([device]) * 32), address)


def test_h56_a_name_that_is_asked_about_costs_budget(guard: Passwords) -> None:
    """Whether it is taken is found out after the hash, so each question costs an account."""

    async def ask() -> list[Code]:
        codes = []
        for number in range(round(guessing.CREATIONS.burst) + 5):
            try:
                await guard.hash(actor(number % 200), HashPassword(UserId("owner"), "password"))
            except Refused as error:
                codes.append(error.code)
        return codes

    assert asyncio.run(ask()) == [Code.SLOW_DOWN] * 5
