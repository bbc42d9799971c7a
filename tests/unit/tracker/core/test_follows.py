"""Followers of a group, and the devices that hold, fetch or follow a version of a share."""

from __future__ import annotations

import time

import pytest

from common import limits
from common.ids import UserId
from common.messages import tracker
from common.messages.refusals import Code
from common.messages.tracker import HolderRow, HolderState
from tests.support.tracker_harness import Device, TrackerHarness, content_id
from tracker.core import commands
from tracker.core.context import Caller
from tracker.core.records import FollowRecord

HOLDS, FETCHING, FOLLOWS, AWAY = HolderState


def holders(device: Device, name: str = "film", group: str = "lab") -> list[HolderRow]:
    """Return all pages of `WhoHas`."""
    rows: list[HolderRow] = []
    more, after = True, ""
    while more:
        page = device.does(tracker.WhoHas(group, name, 0, after))
        assert isinstance(page, tracker.Holders)
        rows, more = rows + page.rows, page.more
        after = rows[-1].device.hex() if rows else ""
    return rows


def states(device: Device, name: str = "film") -> dict[bytes, tuple[HolderState, int]]:
    return {row.device: (row.state, row.held) for row in holders(device, name)}


@pytest.fixture
def lab(harness: TrackerHarness) -> tuple[Device, Device, Device]:
    """A group with a share of alice; bob and carol are members. All are online."""
    alice, bob, carol = (harness.user(name) for name in ("alice", "bob", "carol"))
    harness.group("lab", alice, bob, carol)
    alice.offers("lab", "film", harness.content("film"))
    for device in (alice, bob, carol):
        device.comes()
    return alice, bob, carol


def announce(device: Device, held: int) -> None:
    fetched = tracker.Leeching("lab", content_id("film"), held)
    device.does(tracker.Announce("tcp://192.0.2.7:9000", [fetched]))


def test_a_device_is_listed_from_its_follow_to_its_verified_copy(
    harness: TrackerHarness, lab: tuple[Device, Device, Device]
) -> None:
    alice, bob, carol = lab
    assert states(alice) == {alice.key: (HOLDS, 1)}
    bob.does(tracker.SetFollow("lab", True))
    assert states(alice) == {alice.key: (HOLDS, 1), bob.key: (FOLLOWS, 0)}
    announce(bob, 0)
    began = harness.now.wall_ms
    harness.wait(3)
    announce(bob, 0)
    row = next(row for row in holders(carol) if row.device == bob.key)
    assert (row.state, row.held, row.since_ms) == (FETCHING, 0, began)
    bob.offers("lab", "film", content_id("film"))
    assert states(carol) == {alice.key: (HOLDS, 1), bob.key: (HOLDS, 1)}


def test_an_offline_device_is_away_with_what_it_held(
    harness: TrackerHarness, lab: tuple[Device, Device, Device]
) -> None:
    alice, bob, carol = lab
    for device in (bob, carol):
        device.does(tracker.SetFollow("lab", True))
    bob.offers("lab", "film", content_id("film"))
    seen = harness.now.wall_ms
    bob.does(tracker.Depart())
    carol.does(tracker.Depart())
    harness.wait(60)
    assert states(alice)[bob.key] == (AWAY, 1)
    assert states(alice)[carol.key] == (AWAY, 0)
    assert {row.since_ms for row in holders(alice) if row.state is AWAY} == {seen}
    bob.comes()
    assert states(alice)[bob.key] == (HOLDS, 1)


def test_a_logged_out_device_keeps_its_copy_and_loses_its_follow(
    harness: TrackerHarness, lab: tuple[Device, Device, Device]
) -> None:
    alice, bob, carol = lab
    for device in (bob, carol):
        device.does(tracker.SetFollow("lab", True))
    bob.offers("lab", "film", content_id("film"))
    bob.does(tracker.Logout())
    carol.does(tracker.Logout())
    assert states(alice) == {alice.key: (HOLDS, 1), bob.key: (AWAY, 1)}
    carol.enters("carol")
    carol.comes()
    assert carol.key not in states(alice)


def test_a_device_that_changed_its_user_is_listed_once(
    harness: TrackerHarness, lab: tuple[Device, Device, Device]
) -> None:
    """The copy of a former user counts as away until the present user offers or follows."""
    alice, bob, _ = lab
    bob.offers("lab", "film", content_id("film"))
    bob.enters("dora")
    bob.comes()
    row = next(row for row in holders(alice) if row.device == bob.key)
    assert (row.user, row.state, row.held) == ("bob", AWAY, 1)
    alice_row = next(row for row in holders(alice) if row.device == alice.key)
    assert alice_row.state is HOLDS
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.AcceptRequest("lab", "dora"))
    bob.does(tracker.SetFollow("lab", True))
    row = next(row for row in holders(alice) if row.device == bob.key)
    assert (row.user, row.state, row.held) == ("dora", FOLLOWS, 0)


@pytest.mark.parametrize("way", ["leave", "remove", "forget", "dissolve"])
def test_a_follow_ends_with_membership_device_and_group(harness: TrackerHarness, way: str) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    phone = harness.user("bob", "phone")
    harness.group("lab", alice, bob)
    for device in (bob, phone):
        device.does(tracker.SetFollow("lab", True))
    group = harness.state.groups["lab"]
    assert {*group.follows} == {bob.key, phone.key}
    if way == "forget":
        bob.does(tracker.ForgetDevice(phone.key))
        assert {*group.follows} == {bob.key}
        return
    if way == "remove":
        alice.does(tracker.RemoveMember("lab", "bob"))
    else:
        bob.does(tracker.LeaveGroup("lab"))
    assert group.follows == {}
    if way == "dissolve":
        alice.does(tracker.SetFollow("lab", True))
        alice.does(tracker.LeaveGroup("lab"))
        harness.group("lab", bob)
        assert harness.state.groups["lab"].follows == {}


def test_a_repeated_follow_changes_nothing_and_new_globs_keep_its_time(
    harness: TrackerHarness, lab: tuple[Device, Device, Device]
) -> None:
    alice, bob, _ = lab
    bob.does(tracker.SetFollow("lab", True, ["*.iso", "*.iso"]))
    since = holders(alice)[-1].since_ms if holders(alice)[-1].device == bob.key else None
    before = len(harness.changes)
    harness.wait(9)
    bob.does(tracker.SetFollow("lab", True, ["*.iso"]))
    assert len(harness.changes) == before
    bob.does(tracker.SetFollow("lab", True))
    row = next(row for row in holders(alice) if row.device == bob.key)
    assert row.globs == []
    assert since in (None, row.since_ms)
    bob.does(tracker.SetFollow("lab", False))
    bob.does(tracker.SetFollow("lab", False))
    assert bob.key not in states(alice)


def test_the_members_see_how_many_devices_of_each_follow(
    lab: tuple[Device, Device, Device],
) -> None:
    alice, bob, _ = lab
    bob.does(tracker.SetFollow("lab", True))
    rows = alice.does(tracker.ListMembers("lab")).rows
    assert {row.user: row.follows for row in rows} == {"alice": 0, "bob": 1, "carol": 0}


def test_h108_strangers_neither_follow_nor_learn_who_holds(
    harness: TrackerHarness, lab: tuple[Device, Device, Device]
) -> None:
    """A user who is no member gets the answer of a group that does not exist."""
    eve = harness.user("eve")
    for command in (tracker.SetFollow, tracker.WhoHas):
        args = (True,) if command is tracker.SetFollow else ("film",)
        mine = eve.asks(command("lab", *args))
        other = eve.asks(command("nowhere", *args))
        assert mine.code == other.code == Code.UNKNOWN_GROUP
        assert mine.message.replace("lab", "nowhere") == other.message
    assert harness.state.groups["lab"].follows == {}


@pytest.mark.parametrize(
    "globs", [["a/b"], ["\x1b[2J"], ["\u202etxt"], ["*"] * 17 + [""], ["\udc80"]]
)
def test_h109_patterns_that_can_match_no_name_or_harm_a_terminal_are_refused(
    harness: TrackerHarness, lab: tuple[Device, Device, Device], globs: list[str]
) -> None:
    _, bob, _ = lab
    assert bob.is_refused(tracker.SetFollow("lab", True, globs)) == Code.USAGE
    assert harness.state.groups["lab"].follows == {}


@pytest.mark.parametrize("after", ["x", "0", "zz", "00/", "ff" * 40])
def test_an_invalid_cursor_is_refused_or_passes_over_rows(
    lab: tuple[Device, Device, Device], after: str
) -> None:
    alice, _, _ = lab
    reply = alice.asks(tracker.WhoHas("lab", "film", 0, after))
    assert isinstance(reply, tracker.Holders) or reply.code == Code.USAGE


def test_ten_thousand_devices_are_listed_in_pages(harness: TrackerHarness) -> None:
    """Each page is bounded, and all pages together list each device once."""
    alice = harness.user("alice")
    group = harness.state.groups[harness.group("lab", alice)]
    alice.offers("lab", "film", harness.content("film"))
    alice.comes()
    for number in range(100):
        user = harness.user(f"u{number}", f"u{number}-0").user
        assert user is not None
        for other in range(1, 100):
            harness.device(f"u{number}-{other}").enters(str(user))
    share = next(iter(group.shares.values()))
    for device, user in harness.state.devices.items():
        if user != "alice":
            group.follows[device] = FollowRecord(user, (), harness.now.wall_ms)
            if device[0] % 2:
                share.offers[user, device] = 1
    began = time.process_time()
    page = alice.does(tracker.WhoHas("lab", "film"))
    print(f"a page of 10,001 devices: {1000 * (time.process_time() - began):.1f} ms")
    assert len(page.rows) == tracker.PAGE_ROWS
    rows = holders(alice)
    assert [row.device for row in rows] == sorted({*group.follows, alice.key})


def test_limits_of_patterns_fit_a_page() -> None:
    page = tracker.PAGE_ROWS * limits.GLOBS_MAX * 4 * limits.GLOB_CHARACTERS_MAX
    assert page < limits.BODY_BYTES_MAX


@pytest.mark.parametrize("then", ["", "dora"])
def test_a_device_that_was_logged_out_in_the_same_batch_is_not_listed(
    harness: TrackerHarness, lab: tuple[Device, Device, Device], then: str
) -> None:
    """Presence follows when a batch is committed, and the question may be in that batch."""
    alice, bob, _ = lab
    announce(bob, 0)
    harness.user("dora")
    command: tracker.Logout | commands.PasswordRight = tracker.Logout()
    if then:
        command = commands.PasswordRight(UserId(then), "hash of secret")
    for change in commands.decide(harness.context, Caller(bob.key), command, harness.now).changes:
        change.apply(harness.state)
    assert bob.user == (then or None)
    asked = tracker.WhoHas("lab", "film", 0, "")
    decision = commands.decide(harness.context, Caller(alice.key), asked, harness.now)
    assert isinstance(decision.reply, tracker.Holders)
    assert [row.device for row in decision.reply.rows] == [alice.key]
