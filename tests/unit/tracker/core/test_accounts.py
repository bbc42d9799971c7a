from __future__ import annotations

import pytest

from common.ids import GroupId, UserId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.tracker_harness import TrackerHarness
from tracker.core import commands
from tracker.core.accounts import WRONG_CREDENTIALS
from tracker.core.changes.groups import GroupCreated, MemberJoined
from tracker.core.context import CheckPassword, HashPassword
from tracker.core.records import Account


def test_a_name_is_taken_whatever_its_case(harness: TrackerHarness) -> None:
    harness.user("alice")
    order = harness.device("other").does(tracker.CreateUser("ALICE", "another"))
    taken = commands.PasswordHashed(order.user, "hash of another")
    assert harness.device("other").is_refused(taken) is Code.TAKEN


@pytest.mark.parametrize("password", ["", "another secret"])
def test_h56_no_reply_tells_which_names_are_taken_before_it_is_paid_for(
    harness: TrackerHarness, password: str
) -> None:
    """The decision only defers the hash, which is paid from the budget of the caller."""
    harness.user("alice")
    stranger = harness.device("stranger")
    taken = stranger.asks(tracker.CreateUser("alice", password))
    free = stranger.asks(tracker.CreateUser("bobby", password))
    if password:
        assert taken == HashPassword("alice", password)
        assert free == HashPassword("bobby", password)
    else:
        assert taken == free
        assert taken.code is Code.USAGE


def test_one_of_two_requests_for_a_name_gets_it(harness: TrackerHarness) -> None:
    first, second = harness.device("first"), harness.device("second")
    for device in (first, second):
        assert isinstance(device.does(tracker.CreateUser("alice", device.key.hex())), HashPassword)
    first.does(commands.PasswordHashed("alice", "first's"))
    assert second.is_refused(commands.PasswordHashed("alice", "second's")) is Code.TAKEN
    assert harness.state.accounts["alice"].password_hash == "first's"


@pytest.mark.parametrize(
    "name", ["", "-a", "a b", "a/b", "ä", "a" * 65, "a\n", "a'; DROP TABLE x;--"]
)
def test_bad_names_are_refused(harness: TrackerHarness, name: str) -> None:
    assert harness.device("d").is_refused(tracker.CreateUser(name, "x")) is Code.USAGE


@pytest.mark.parametrize("password", ["", "a", "short"])
def test_a_short_password_is_refused_when_it_is_new(harness: TrackerHarness, password: str) -> None:
    assert harness.device("d").is_refused(tracker.CreateUser("alice", password)) is Code.USAGE
    alice = harness.user("alice")
    assert alice.is_refused(tracker.ChangePassword("secret", password)) is Code.USAGE
    # Accounts of an earlier release have such passwords, and are logged in with them.
    order = harness.device("d").does(tracker.Login("alice", password))
    assert isinstance(order, CheckPassword)


@pytest.mark.parametrize("name", ["anna.", "anna-", "anna_"])
def test_a_look_alike_name_is_refused_for_new_accounts_and_still_logs_in(
    harness: TrackerHarness, name: str
) -> None:
    """An account and a group of an earlier release stay usable."""
    assert harness.device("d").is_refused(tracker.CreateUser(name, "secret")) is Code.USAGE
    harness.state.accounts[UserId(name)] = Account(UserId(name), "hash of secret", 1)
    old = harness.user(name)
    assert old.user == name
    assert old.is_refused(tracker.CreateGroup(name)) is Code.USAGE
    topic, key = b"t" * 16, b"k" * 32
    GroupCreated(GroupId(name), UserId(name), topic, key, 0, 1, 1).apply(harness.state)
    MemberJoined(GroupId(name), UserId(name), 1, 1).apply(harness.state)
    alice = harness.user("alice")
    alice.does(tracker.JoinGroup(name))
    old.does(tracker.AcceptRequest(name, "alice"))
    assert [row.user for row in alice.does(tracker.ListMembers(name)).rows] == ["alice", name]
    alice.offers(name, "a", harness.content("a"))
    old.does(tracker.LeaveGroup(name))


def test_creating_an_account_does_not_log_in(harness: TrackerHarness) -> None:
    device = harness.device("d")
    device.does(commands.PasswordHashed("alice", "h"))
    assert device.user is None
    assert device.is_refused(tracker.ListGroups()) is Code.NOT_LOGGED_IN


def test_an_unknown_user_costs_the_same_work_as_a_wrong_password(harness: TrackerHarness) -> None:
    harness.user("alice")
    stranger = harness.device("stranger")
    known = stranger.does(tracker.Login("alice", "guess"))
    unknown = stranger.does(tracker.Login("nobody", "guess"))
    senseless = stranger.does(tracker.Login("no/such name", "guess"))
    assert isinstance(known, CheckPassword)
    assert known.password_hash is not None
    for order in (unknown, senseless):
        assert isinstance(order, CheckPassword)
        assert order.password_hash is None


def test_a_password_changed_while_it_was_checked_is_not_taken(harness: TrackerHarness) -> None:
    harness.user("alice")
    stale = commands.PasswordRight("alice", "hash of an earlier one")
    reply = harness.device("other").asks(stale)
    assert reply == Refusal(
        WRONG_CREDENTIALS.code, WRONG_CREDENTIALS.message, WRONG_CREDENTIALS.hint
    )


def test_a_device_stays_logged_in_until_logout(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    assert alice.does(tracker.Hello()).user == "alice"
    alice.does(tracker.Logout())
    assert alice.does(tracker.Hello()).user is None
    assert alice.is_refused(tracker.Logout()) is Code.NOT_LOGGED_IN


def test_logging_in_again_as_the_same_user_changes_nothing(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    before = len(harness.changes)
    alice.enters("alice")
    assert len(harness.changes) == before


def test_logins_and_logouts_are_entries_in_the_groups(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    phone = harness.user("alice", "phone")
    phone.does(tracker.Logout())
    assert harness.events_of("lab")[1:] == [
        events.Device("alice", phone.key, True),
        events.Device("alice", phone.key, False),
    ]


def test_a_login_logs_out_the_former_user_of_the_device(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.comes()
    alice.enters("bob")
    assert alice.user == "bob"
    assert harness.events_of("lab")[-2:] == [
        events.Device("alice", alice.key, False),
        events.Device("bob", alice.key, True),
    ]
    assert [entry.seq for entry in harness.log] == list(range(1, len(harness.log) + 1))
    assert alice.key not in harness.context.presence.leases


def test_each_device_has_its_own_inbox(harness: TrackerHarness) -> None:
    one, other = (harness.device(name).does(tracker.Hello()) for name in ("one", "other"))
    assert one.inbox != other.inbox
    assert one.inbox_key != other.inbox_key
    assert harness.device("one").does(tracker.Hello()).inbox_key == one.inbox_key


def test_a_repeated_command_succeeds_again(harness: TrackerHarness) -> None:
    device = harness.device("d")
    made = commands.PasswordHashed("alice", "h")
    device.does(made, request_id=b"once")
    count = len(harness.changes)
    # The reply was lost: the client repeats what it sent, under the same id.
    assert device.does(tracker.CreateUser("alice", "secret"), request_id=b"once") == tracker.Done()
    assert len(harness.changes) == count
    # Another command under the same id, and the same command under another id, are no repetition.
    assert isinstance(device.asks(made, b"twice"), Refusal)
    order = device.asks(tracker.CreateUser("bob", "secret"), b"once")
    assert isinstance(order, HashPassword)


def test_a_receipt_is_good_for_its_device_and_time_only(harness: TrackerHarness) -> None:
    made = commands.PasswordHashed("alice", "h")
    harness.device("d").does(made, request_id=b"once")
    assert isinstance(harness.device("other").asks(made, b"once"), Refusal)
    harness.wait(601)
    assert isinstance(harness.device("d").asks(made, b"once"), Refusal)


def test_passwords_never_show(harness: TrackerHarness) -> None:
    order = harness.device("d").does(tracker.CreateUser("alice", "hunter2"))
    assert "hunter2" not in repr(order)
    assert "$argon2" not in repr(commands.PasswordHashed("alice", "$argon2id$…"))
