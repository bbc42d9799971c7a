"""Password hashing: order of the queue and cost of each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from common import limits
from common.errors import Refused
from common.ids import DeviceKey, UserId
from common.messages.refusals import Code
from tracker.core import throttle
from tracker.core.context import Caller, CheckPassword, HashPassword
from tracker.service import passwords
from tracker.service.passwords import Passwords


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "MEMORY_BYTES", 1 << 13)
    monkeypatch.setattr(passwords, "PASSES", 1)
    monkeypatch.setattr(passwords, "REFUSAL_S", 0.0)


@pytest.fixture
def guard() -> Iterator[Passwords]:
    made = Passwords(threads=1)
    yield made
    made.close()


def caller(device: int, address: str = "192.0.2.7") -> Caller:
    return Caller(DeviceKey(bytes([device]) * 32), address)


async def test_h56_probing_a_user_name_costs_budget(guard: Passwords) -> None:
    """A name is looked up after the hash, so each probe costs the budget of an account."""
    codes = []
    for number in range(round(throttle.CREATIONS.burst) + 5):
        try:
            await guard.hash(caller(number % 200), HashPassword(UserId("owner"), "password"))
        except Refused as error:
            codes.append(error.code)
    assert codes == [Code.SLOW_DOWN] * 5


async def test_h57_a_flood_of_right_passwords_takes_no_place_of_other_users(
    guard: Passwords,
) -> None:
    """Ten devices of one account with five logins each at a time, and another user beside them."""
    right = passwords.hash_password("right")

    async def log_in(user: str, device: int, password: str = "right") -> Code | bool:
        order = CheckPassword(UserId(user), password, right, trusted=False)
        try:
            return await guard.check(caller(device), order)
        except Refused as error:
            return error.code

    for device in range(10):  # all of them are known from here on
        assert await log_in("eve", device) is True
    flooding = [asyncio.ensure_future(log_in("eve", n % 10)) for n in range(50)]
    await asyncio.sleep(0)
    victims = [await log_in("alice", 100 + number) for number in range(5)]
    flood = await asyncio.gather(*flooding)
    assert victims == [True] * 5
    assert flood.count(True) == limits.PASSWORD_PLACES_EACH
    assert flood.count(Code.BUSY) == 50 - limits.PASSWORD_PLACES_EACH


async def test_h57_guesses_at_a_user_take_no_place_of_a_known_device(
    guard: Passwords,
) -> None:
    right = passwords.hash_password("right")

    async def log_in(device: int, password: str, address: str) -> Code | bool:
        order = CheckPassword(UserId("alice"), password, right, trusted=False)
        try:
            return await guard.check(caller(device, address), order)
        except Refused as error:
            return error.code

    assert await log_in(1, "right", "192.0.2.1")
    flood = [asyncio.ensure_future(log_in(2, "guess", f"198.51.100.{n % 8}")) for n in range(40)]
    await asyncio.sleep(0)
    hers = await log_in(1, "right", "192.0.2.1")
    await asyncio.gather(*flood)
    assert hers is True
