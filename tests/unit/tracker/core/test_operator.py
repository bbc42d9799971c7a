"""Operator: users and groups are listed, shut out, let in again and deleted."""

from __future__ import annotations

from typing import Any

import pytest

from common import limits
from common.ids import DeviceKey, GroupId, UserId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.operator import Registration
from common.messages.refusals import Code
from tests.support.tracker_harness import Device, TrackerHarness
from tracker.core import commands, operator
from tracker.core.context import Caller, CheckPassword

LAB = GroupId("lab")


@pytest.fixture
def harness() -> TrackerHarness:
    return TrackerHarness()


def operate(harness: TrackerHarness, command: operator.Command) -> Any:
    return harness.decide(Caller(DeviceKey(b"")), command).reply


def swarm(harness: TrackerHarness) -> tuple[Device, Device]:
    """Alice and bob in a group; bob shares and is online."""
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    bob.offers("lab", "film", harness.content("film"))
    bob.comes()
    return alice, bob


def test_h118_a_disabled_user_is_refused_everything(harness: TrackerHarness) -> None:
    alice, bob = swarm(harness)
    key = harness.state.groups[LAB].key
    said = operate(harness, operator.SetDisabled("Bob", True))
    assert (said.name, said.devices) == ("bob", 1)
    for command in (
        tracker.ListGroups(),
        tracker.GetTickets(),
        tracker.Follow(),
        tracker.Announce("tcp://192.0.2.7:9000"),
        tracker.Offer("lab", "film", harness.content("film")),
    ):
        assert bob.is_refused(command) is Code.NOT_LOGGED_IN
    assert bob.does(tracker.Hello()).user is None
    order = harness.device("lap").does(tracker.Login("bob", "secret"))
    assert isinstance(order, CheckPassword)
    right = commands.PasswordRight(order.user, "hash of secret")
    assert harness.device("lap").is_refused(right) is Code.NOT_LOGGED_IN
    # Peers shut the device out by these two, and the events from now on cannot be opened.
    assert harness.events_of("lab")[-1] == events.Device("bob", bob.key, False)
    assert bob.key not in [row.device for row in alice.does(tracker.GetDevices("lab")).rows]
    assert harness.state.groups[LAB].key != key
    assert bob.key in harness.nudged
    [row] = alice.does(tracker.ListFiles("lab")).rows
    assert (row.seeders, row.shared_by) == (0, ["bob"])


def test_an_enabled_user_has_everything_back(harness: TrackerHarness) -> None:
    alice, bob = swarm(harness)
    operate(harness, operator.SetDisabled("bob", True))
    operate(harness, operator.SetDisabled("bob", True))
    harness.nudged.clear()
    operate(harness, operator.SetDisabled("bob", False))
    assert harness.nudged == [bob.key], "its peer connects again by itself"
    assert bob.does(tracker.Hello()).user == "bob"
    bob.comes()
    [row] = alice.does(tracker.ListFiles("lab")).rows
    assert (row.seeders, row.shared_by) == (1, ["bob"])
    assert harness.events_of("lab")[-1] == events.Device("bob", bob.key, True)
    assert bob.key in [row.device for row in alice.does(tracker.GetDevices("lab")).rows]


def test_a_disabled_member_inherits_last(harness: TrackerHarness) -> None:
    alice, _ = swarm(harness)
    carol = harness.user("carol")
    carol.does(tracker.JoinGroup("lab"))
    alice.does(tracker.AcceptRequest("lab", "carol"))
    operate(harness, operator.SetDisabled("bob", True))
    alice.does(tracker.LeaveGroup("lab"))
    assert harness.state.groups[LAB].owner == "carol"


def test_a_deleted_user_leaves_as_if_removed_and_the_name_is_free(harness: TrackerHarness) -> None:
    alice, bob = swarm(harness)
    harness.group("own", bob)
    harness.group("other", alice)
    bob.does(tracker.JoinGroup("other"))
    epoch = harness.state.groups[LAB].epoch
    said = operate(harness, operator.DeleteUser("bob"))
    assert (said.devices, said.groups) == (1, 2)
    state = harness.state
    assert list(state.accounts) == ["alice"]
    assert list(state.groups) == ["lab", "other"]
    assert (list(state.groups[LAB].members), state.groups[LAB].shares) == (["alice"], {})
    assert state.groups[GroupId("other")].requests == {}
    assert state.groups[LAB].revoked[UserId("bob")].epoch > epoch, "tickets are invalid"
    assert bob.user is None
    again = harness.user("bob", "another device")
    assert again.is_refused(tracker.ListFiles("lab")) is Code.UNKNOWN_GROUP


def test_the_group_of_a_deleted_owner_passes_on(harness: TrackerHarness) -> None:
    alice, bob = swarm(harness)
    operate(harness, operator.DeleteUser("alice"))
    assert harness.state.groups[LAB].owner == "bob"
    assert bob.does(tracker.ListGroups()).rows[0].role == "owner"
    assert alice.is_refused(tracker.ListGroups()) is Code.NOT_LOGGED_IN


def test_h118_a_deleted_group_revokes_all_its_members(harness: TrackerHarness) -> None:
    alice, bob = swarm(harness)
    epoch = harness.state.groups[LAB].epoch
    operate(harness, operator.DeleteGroup("LAB"))
    assert {alice.key, bob.key} <= set(harness.nudged)
    assert bob.is_refused(tracker.ListFiles("lab")) is Code.UNKNOWN_GROUP
    revoked = harness.state.tombstones[LAB].revoked
    assert {user: each.epoch > epoch for user, each in revoked.items()} == {
        "alice": True,
        "bob": True,
    }
    assert bob.does(tracker.MyOffers()).rows == []


def test_a_new_password_logs_all_devices_out(harness: TrackerHarness) -> None:
    _, bob = swarm(harness)
    operate(harness, operator.ReplacePassword("bob", "hash of another"))
    assert bob.user is None
    order = bob.does(tracker.Login("bob", "another"))
    assert order.password_hash == "hash of another"


def test_users_and_groups_are_listed_in_pages(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operator, "GROUP_ROWS", 2)
    alice, _ = swarm(harness)
    harness.user("carol")
    harness.group("club", alice)
    harness.group("music", alice)
    page = operate(harness, operator.ListUsers("", rows=2))
    assert [row.user for row in page.rows] == ["alice", "bob"]
    assert page.more
    bob = page.rows[1]
    assert (bob.devices, bob.online, bob.groups, bob.owns, bob.shares) == (1, 1, 1, 0, 1)
    page = operate(harness, operator.ListUsers("bob"))
    assert ([row.user for row in page.rows], page.more) == (["carol"], False)
    page = operate(harness, operator.ListGroups(""))
    assert [row.group for row in page.rows] == ["club", "lab"]
    assert page.more
    lab = page.rows[1]
    assert (lab.owner, lab.members, lab.shares, lab.size_bytes) == ("alice", 2, 1, 1_000)
    status = operate(harness, operator.GetStatus())
    assert (status.users, status.users_online, status.groups, status.shares) == (3, 1, 3, 1)


def test_users_and_groups_are_chosen_by_a_part_of_their_name(harness: TrackerHarness) -> None:
    alice, _ = swarm(harness)
    for name in ("carol", "alicia", "cali"):
        harness.user(name)
    harness.group("label", alice)
    harness.group("club", alice)

    def users(*wanted: Any) -> tuple[list[str], bool]:
        page = operate(harness, operator.ListUsers(*wanted))
        return [row.user for row in page.rows], page.more

    assert users("", "ALI", False, 2) == (["alice", "alicia"], True)
    assert users("alicia", "ALI", False, 2) == (["cali"], False)
    assert users("", "nobody") == ([], False)
    assert users("", "o", True) == (["bob"], False)
    page = operate(harness, operator.ListGroups("", "LAB", 1))
    assert ([row.group for row in page.rows], page.more) == (["lab"], True)
    page = operate(harness, operator.ListGroups("lab", "LAB", 1))
    assert ([row.group for row in page.rows], page.more) == (["label"], False)


@pytest.mark.parametrize(
    "command",
    [
        operator.SetDisabled("nobody", True),
        operator.DeleteUser("no\x1bbody"),
        operator.ReplacePassword("", "h"),
        operator.DeleteGroup("nothing"),
    ],
)
def test_an_unknown_name_is_refused(harness: TrackerHarness, command: operator.Command) -> None:
    swarm(harness)
    reply = operate(harness, command)
    assert isinstance(reply, Refusal)
    assert reply.code in (Code.UNKNOWN_USER, Code.UNKNOWN_GROUP)
    assert "\x1b" not in reply.message


def test_registration_is_shown_and_set(harness: TrackerHarness) -> None:
    for mode in (None, Registration.OPEN):
        said = operate(harness, operator.SetRegistration(mode))
        assert (said.registration, said.changed) == (Registration.OPEN, False)
    assert operate(harness, operator.SetRegistration(Registration.CLOSED)).changed
    assert harness.state.registration is Registration.CLOSED


def test_a_large_group_can_be_left_by_a_deleted_user_in_one_decision(
    harness: TrackerHarness,
) -> None:
    """A rekey for each device of a user would exceed its limit."""
    swarm(harness)
    for number in range(limits.REKEYS_MAX + 2):
        harness.user("bob", f"{number}")
    operate(harness, operator.SetDisabled("bob", True))
    assert harness.state.device_rows(harness.state.groups[LAB])[0].user == "alice"
    operate(harness, operator.DeleteUser("bob"))
    assert UserId("bob") not in harness.state.accounts
