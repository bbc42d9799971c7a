"""Overview for the operator: pages of devices and swarms, and the members of a group."""

from __future__ import annotations

from typing import Any

import pytest

from common.ids import DeviceKey, GroupId
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.operator import DeviceRow, FetchRow, MemberRow, SwarmRow
from common.messages.refusals import Code
from tests.support.tracker_harness import TrackerHarness
from tracker.core import operator, overview
from tracker.core.context import Caller
from tracker.core.share_names import NameId, ShareId


@pytest.fixture
def harness() -> TrackerHarness:
    return TrackerHarness()


def operate(harness: TrackerHarness, command: Any) -> Any:
    return harness.decide(Caller(DeviceKey(b"")), command).reply


def devices(harness: TrackerHarness) -> list[DeviceRow]:
    rows: list[DeviceRow] = []
    more = True
    while more:
        after = DeviceKey(bytes.fromhex(rows[-1].key)) if rows else None
        answer = operate(harness, overview.ListDevices(after))
        more = answer.more
        rows += answer.rows
    return rows


def swarms(harness: TrackerHarness) -> list[SwarmRow]:
    rows: list[SwarmRow] = []
    group, share = GroupId(""), ShareId(NameId(""), 0)
    for _ in range(100):
        answer = operate(harness, overview.ListSwarms(group, share))
        rows += answer.rows
        if answer.next is None:
            return rows
        group = GroupId(answer.next.group)
        share = ShareId(NameId(answer.next.name), answer.next.version)
    raise AssertionError("the pages have no end")


def test_a_device_online_has_its_address_contents_and_rates(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    film = harness.content("film")
    bob.offers("lab", "film", film)
    bob.comes()
    alice.does(
        tracker.Announce(
            "tcp://192.0.2.7:9000", [tracker.Leeching("lab", film, 3)], b"", 5_000_000, 17
        )
    )
    operate(harness, operator.SetDisabled("bob", True))
    rows = {row.user: row for row in devices(harness)}
    assert rows["alice"].key == alice.key.hex()
    assert (rows["alice"].online, rows["alice"].address) == (True, "tcp://192.0.2.7:9000")
    assert (rows["alice"].fetching, rows["alice"].holding, rows["alice"].seen) == (1, 0, None)
    assert (rows["alice"].received_bytes_per_s, rows["alice"].sent_bytes_per_s) == (5_000_000, 17)
    assert (rows["bob"].online, rows["bob"].disabled, rows["bob"].address) == (False, True, None)
    assert rows["bob"].seen is not None
    alice.does(tracker.Announce("tcp://192.0.2.7:9000"))
    [row] = [row for row in devices(harness) if row.user == "alice"]
    assert (row.received_bytes_per_s, row.fetching) == (0, 0)


def test_pages_of_devices_are_complete(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "ROWS_MAX", 3)
    users = [harness.user(f"user{at}") for at in range(10)]
    assert [row.key for row in devices(harness)] == sorted(user.key.hex() for user in users)


def test_devices_are_chosen_by_user_key_or_address(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    bob.comes()

    def found(text: str, online: bool = False) -> list[str]:
        rows = operate(harness, overview.ListDevices(None, text, online)).rows
        return sorted(row.user for row in rows)

    lease = harness.context.presence.leases[bob.key]
    assert found("") == ["alice", "bob"]
    assert found("", online=True) == found(lease.endpoint.upper()) == found("OB") == ["bob"]
    assert found(alice.key.hex()[3:40].upper()) == ["alice"]
    assert found("alice", online=True) == []


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize("groups", [1, 2, 100])
def test_pages_of_swarms_are_complete(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch, rows: int, groups: int
) -> None:
    monkeypatch.setattr(overview, "SWARM_ROWS", rows)
    monkeypatch.setattr(overview, "GROUPS_PASSED", groups)
    alice = harness.user("alice")
    expected = []
    for at, count in enumerate((0, 3, 0, 0, 1, 2, 0)):
        group = harness.group(f"group{at}", alice)
        for number in range(count):
            name = f"film {number}"
            alice.offers(group, name, harness.content(f"{group} {name}"))
            expected.append((group, name, 1))
    assert [(row.group, row.name, row.version) for row in swarms(harness)] == expected


def test_a_swarm_names_its_health_and_the_devices_that_fetch(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    film = harness.content("film")
    bob.offers("lab", "film", film)
    [row] = swarms(harness)
    assert (row.holders, row.seeders, row.leechers, row.fetching) == (1, 0, 0, [])
    bob.comes()
    alice.does(tracker.Announce("tcp://192.0.2.7:9000", [tracker.Leeching("lab", film, 3)]))
    [row] = swarms(harness)
    assert (row.holders, row.seeders, row.leechers) == (1, 1, 1)
    assert row.fetching == [FetchRow("alice", alice.key.hex(), 3)]
    assert (row.size_bytes, row.pieces) == (1_000, 1)


def test_members_and_requests_of_a_group(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.SetFollow("lab", True))
    alice.comes()
    rows: list[MemberRow] = operate(harness, overview.ListMembers("LAB")).rows
    assert [(row.user, row.role, row.online, row.follows) for row in rows] == [
        ("bob", "pending", 0, 0),
        ("alice", "owner", 1, 1),
    ]
    refused = operate(harness, overview.ListMembers("nothing"))
    assert isinstance(refused, Refusal)
    assert refused.code is Code.UNKNOWN_GROUP
