from __future__ import annotations

import pytest

from common.ids import GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code, Refusal
from tests.support.tracker_harness import TrackerHarness
from tracker.core import commands
from tracker.core.accounts import WRONG_CREDENTIALS
from tracker.core.changes import GroupCreated, MemberJoined
from tracker.core.context import CheckPassword, HashPassword
from tracker.core.records import Account


def test_a_name_is_taken_whatever_its_case(town: TrackerHarness) -> None:
    town.user("alice")
    order = town.device("other").does(tracker.CreateUser("ALICE", "another"))
    taken = commands.PasswordHashed(order.user, "hash of another")
    assert town.device("other").is_refused(taken) is Code.TAKEN


@pytest.mark.parametrize("password", ["", "another secret"])
def test_h56_no_answer_tells_which_names_are_taken_before_it_has_its_price(
    town: TrackerHarness, password: str
) -> None:
    """What is left to the shell is the hash, and before that the budget of who asks."""
    town.user("alice")
    stranger = town.device("stranger")
    taken = stranger.asks(tracker.CreateUser("alice", password))
    free = stranger.asks(tracker.CreateUser("bobby", password))
    if password:
        assert taken == HashPassword("alice", password)
        assert free == HashPassword("bobby", password)
    else:
        assert taken == free
        assert taken.code is Code.USAGE


def test_of_two_who_want_a_name_at_once_one_gets_it(town: TrackerHarness) -> None:
    first, second = town.device("first"), town.device("second")
    for device in (first, second):
        assert isinstance(device.does(tracker.CreateUser("alice", device.key.hex())), HashPassword)
    first.does(commands.PasswordHashed("alice", "first's"))
    assert second.is_refused(commands.PasswordHashed("alice", "second's")) is Code.TAKEN
    assert town.state.accounts["alice"].password_hash == "first's"


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a/b", "ä", "a" * 65, "a\n", "a'; DROP TABLE x;--"]
)
def test_bad_names_are_refused(town: TrackerHarness, name: str) -> None:
    assert town.device("d").is_refused(tracker.CreateUser(name, "x")) is Code.USAGE


@pytest.mark.parametrize("password", ["", "a", "short"])
def test_a_short_password_is_refused_when_it_is_new(town: TrackerHarness, password: str) -> None:
    assert town.device("d").is_refused(tracker.CreateUser("alice", password)) is Code.USAGE
    alice = town.user("alice")
    assert alice.is_refused(tracker.ChangePassword("secret", password)) is Code.USAGE
    # Accounts of an earlier release have such passwords, and are logged in with them.
    order = town.device("d").does(tracker.Login("alice", password))
    assert isinstance(order, CheckPassword)


@pytest.mark.parametrize("name", ["anna.", "anna-", "anna_"])
def test_a_name_that_only_looks_like_another_is_not_made_and_still_known(
    town: TrackerHarness, name: str
) -> None:
    """What an earlier release made: its account logs in, and its group goes on."""
    assert town.device("d").is_refused(tracker.CreateUser(name, "secret")) is Code.USAGE
    town.state.accounts[UserId(name)] = Account(UserId(name), "hash of secret", 1)
    old = town.user(name)
    assert old.user == name
    assert old.is_refused(tracker.CreateGroup(name)) is Code.USAGE
    topic, key = b"t" * 16, b"k" * 32
    town.state.apply(GroupCreated(GroupId(name), UserId(name), topic, key, 0, 1, 1))
    town.state.apply(MemberJoined(GroupId(name), UserId(name), 1, 1))
    alice = town.user("alice")
    alice.does(tracker.JoinGroup(name))
    old.does(tracker.AcceptRequest(name, "alice"))
    assert [row.user for row in alice.does(tracker.ListMembers(name)).rows] == ["alice", name]
    alice.offers(name, "a", town.content("a"))
    old.does(tracker.LeaveGroup(name))


def test_making_an_account_does_not_log_in(town: TrackerHarness) -> None:
    device = town.device("d")
    device.does(commands.PasswordHashed("alice", "h"))
    assert device.user is None
    assert device.is_refused(tracker.ListGroups()) is Code.NOT_LOGGED_IN


def test_an_unknown_user_costs_the_same_work_as_a_wrong_password(town: TrackerHarness) -> None:
    town.user("alice")
    stranger = town.device("stranger")
    known = stranger.does(tracker.Login("alice", "guess"))
    unknown = stranger.does(tracker.Login("nobody", "guess"))
    senseless = stranger.does(tracker.Login("no/such name", "guess"))
    assert isinstance(known, CheckPassword)
    assert known.password_hash is not None
    for order in (unknown, senseless):
        assert isinstance(order, CheckPassword)
        assert order.password_hash is None


def test_a_password_changed_while_it_was_checked_is_not_taken(town: TrackerHarness) -> None:
    town.user("alice")
    stale = commands.PasswordRight("alice", "hash of an earlier one")
    reply = town.device("other").asks(stale)
    assert reply == Refusal(
        WRONG_CREDENTIALS.code, WRONG_CREDENTIALS.message, WRONG_CREDENTIALS.hint
    )


def test_a_device_stays_logged_in_until_logout(town: TrackerHarness) -> None:
    alice = town.user("alice")
    assert alice.does(tracker.Hello()).user == "alice"
    alice.does(tracker.Logout())
    assert alice.does(tracker.Hello()).user is None
    assert alice.is_refused(tracker.Logout()) is Code.NOT_LOGGED_IN


def test_logging_in_again_as_the_same_user_changes_nothing(town: TrackerHarness) -> None:
    alice = town.user("alice")
    before = len(town.changes)
    alice.enters("alice")
    assert len(town.changes) == before


def test_the_groups_hear_of_devices_that_come_and_go(town: TrackerHarness) -> None:
    alice = town.user("alice")
    town.group("lab", alice)
    phone = town.user("alice", "phone")
    phone.does(tracker.Logout())
    assert town.told("lab")[1:] == [
        events.Device("alice", phone.key, True),
        events.Device("alice", phone.key, False),
    ]


def test_who_logs_in_on_a_device_logs_out_who_was_there(town: TrackerHarness) -> None:
    alice, bob = town.user("alice"), town.user("bob")
    town.group("lab", alice, bob)
    alice.comes()
    alice.enters("bob")
    assert alice.user == "bob"
    assert town.told("lab")[-2:] == [
        events.Device("alice", alice.key, False),
        events.Device("bob", alice.key, True),
    ]
    assert [entry.seq for entry in town.log] == list(range(1, len(town.log) + 1))
    assert alice.key not in town.context.presence.leases


def test_the_inbox_is_this_devices_alone(town: TrackerHarness) -> None:
    one, other = (town.device(name).does(tracker.Hello()) for name in ("one", "other"))
    assert one.inbox != other.inbox
    assert one.inbox_key != other.inbox_key
    assert town.device("one").does(tracker.Hello()).inbox_key == one.inbox_key


def test_a_repeated_command_succeeds_again(town: TrackerHarness) -> None:
    device = town.device("d")
    made = commands.PasswordHashed("alice", "h")
    device.does(made, request_id=b"once")
    count = len(town.changes)
    # The reply was lost: the client repeats what it sent, under the same id.
    assert device.does(tracker.CreateUser("alice", "secret"), request_id=b"once") == tracker.Done()
    assert len(town.changes) == count
    # Another command under the same id, and the same command under another id, are no repetition.
    assert isinstance(device.asks(made, b"twice"), Refusal)
    order = device.asks(tracker.CreateUser("bob", "secret"), b"once")
    assert isinstance(order, HashPassword)


def test_a_receipt_is_good_for_its_device_and_time_only(town: TrackerHarness) -> None:
    made = commands.PasswordHashed("alice", "h")
    town.device("d").does(made, request_id=b"once")
    assert isinstance(town.device("other").asks(made, b"once"), Refusal)
    town.wait(601)
    assert isinstance(town.device("d").asks(made, b"once"), Refusal)


def test_passwords_never_show(town: TrackerHarness) -> None:
    order = town.device("d").does(tracker.CreateUser("alice", "hunter2"))
    assert "hunter2" not in repr(order)
    assert "$argon2" not in repr(commands.PasswordHashed("alice", "$argon2id$…"))
