"""Survey: pages until the end, health, and the rows that are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common.messages import operator as messages
from tests.support.event_loop import in_event_loop
from tracker.http import survey
from tracker.http.commands import Health, ListDevices, ListSwarms, ListUsers
from tracker.http.survey import Survey, Swarms

TIME = "2031-05-17T09:00:00.000Z"


def swarm(name: str, seeders: int, leechers: int = 0, group: str = "lab") -> messages.SwarmRow:
    return messages.SwarmRow(group, name, 1, TIME, 10, 1, 1, seeders, leechers, [])


def device(key: str, online: bool, rate: int = 0) -> messages.DeviceRow:
    return messages.DeviceRow(key, "anna", False, online, None, TIME, None, 0, 0, rate, 0)


class FakeClient:
    """Gives one row a page."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.asked: list[int] = []

    async def request(self, command: messages.Command, answer: Any) -> Any:
        match command:
            case messages.ListDevices(after):
                keys = [row.key for row in self.rows]
                at = keys.index(after) + 1 if after else 0
                return messages.Devices([self.rows[at]], at + 1 < len(keys))
            case messages.ListUsers(after, _, _, count):
                users = [row.user for row in self.rows]
                at = users.index(after) + 1 if after else 0
                self.asked.append(count)
                return messages.Users([self.rows[at]], at + 1 < len(users))
            case messages.ListSwarms(_, name):
                names = [row.name for row in self.rows]
                at = names.index(name) + 1 if name else 0
                following = messages.SwarmCursor("lab", self.rows[at].name, 1)
                return messages.Swarms([self.rows[at]], following if at + 1 < len(names) else None)
        raise AssertionError(command)


def user(name: str) -> messages.UserRow:
    return messages.UserRow(name, False, TIME, None, 0, 0, 0, 0, 0)


def fake(rows: list[Any]) -> Survey:
    return Survey(FakeClient(rows))  # type: ignore[arg-type]


@in_event_loop
async def test_devices_online_come_first_and_the_busiest_on_top() -> None:
    rows = [device("aa", False), device("bb", True), device("cc", True, 5)]
    assert [row.key for row in await fake(rows).devices(ListDevices())] == ["cc", "bb", "aa"]
    assert [row.key for row in await fake(rows).devices(ListDevices(limit=1))] == ["cc"]


@in_event_loop
async def test_no_page_is_read_beyond_the_limit() -> None:
    client = FakeClient([user(name) for name in ("anna", "bert", "carl")])
    made = Survey(client)  # type: ignore[arg-type]
    assert [row.user for row in await made.users(ListUsers(limit=2))] == ["anna", "bert"]
    assert client.asked == [2, 1]


@in_event_loop
async def test_all_surveys_together_rest_after_each_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page takes a tenth of a second of a clock that only requests and rests move."""
    now, client = 0.0, FakeClient([user(name) for name in ("anna", "bert")])

    async def sleep(delay_s: float) -> None:
        nonlocal now
        now += max(delay_s, 0.0)

    class SlowClient:
        async def request(self, command: messages.Command, answer: Any) -> Any:
            nonlocal now
            now += 0.1
            return await client.request(command, answer)

    monkeypatch.setattr(survey, "monotonic", lambda: now)
    monkeypatch.setattr(survey.asyncio, "sleep", sleep)
    made = Survey(SlowClient())  # type: ignore[arg-type]
    await asyncio.gather(*(made.users(ListUsers(text=text)) for text in "ab"))
    assert now == pytest.approx(4 * 0.1 + 3 * survey.REST * 0.1)


@in_event_loop
async def test_shares_by_health_with_the_most_wanted_first() -> None:
    rows = [swarm("a", 2, 9), swarm("b", 0), swarm("c", 0, 3), swarm("d", 1), swarm("e", 0, 7)]
    found = (await fake(rows).swarms()).answer(ListSwarms())
    counts = (found.shares, found.healthy, found.single_seeder, found.unseeded, found.wanted)
    assert counts == (5, 1, 1, 3, 2)
    assert [row.name for row in found.rows] == ["e", "c", "b", "d", "a"]
    assert found.complete
    assert found.time


def test_rows_are_filtered_and_counted_before_the_limit() -> None:
    swarms = Swarms()
    for row in (swarm("Film", 0), swarm("film 2", 1), swarm("song", 0, group="films")):
        swarms.add(row)
    swarms.end()
    found = swarms.answer(ListSwarms(text="FILM", limit=1))
    assert (found.matching, len(found.rows)) == (3, 1)
    assert [row.name for row in swarms.answer(ListSwarms(group="films")).rows] == ["song"]
    found = swarms.answer(ListSwarms(health=Health.SINGLE))
    assert [row.name for row in found.rows] == ["film 2"]


def test_rows_that_fewest_fetch_are_left_out_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survey, "ROWS_KEPT", 3)
    swarms = Swarms()
    for at in range(20):
        swarms.add(swarm(f"film {at}", 0, at % 7))
    swarms.end()
    found = swarms.answer(ListSwarms())
    assert (found.shares, found.complete) == (20, False)
    assert [row.leechers for row in found.rows] == [6, 6, 5]
