"""Invitations: one user for each use, under races, repetitions, guesses and former owners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from common import limits
from common.ids import DeviceKey, GroupId, UserId
from common.invitation import id_of, key_of, proof_of
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.operator import Registration
from common.messages.refusals import Code
from tests.support.tracker_harness import Device, TrackerHarness
from tracker.core import commands, operator
from tracker.core.context import Caller, CheckPassword, HashPassword
from tracker.core.invitations import UNKNOWN

TRACKER = DeviceKey(b"k" * 32)
DAY_S = 86_400


@pytest.fixture
def harness() -> TrackerHarness:
    return TrackerHarness()


@pytest.fixture
def owner(harness: TrackerHarness) -> Device:
    alice = harness.user("alice")
    harness.group("lab", alice)
    return alice


def proof(text: str = "secret") -> bytes:
    return proof_of(text.encode(), TRACKER)


def invited(owner: Device, text: str = "secret", **options: Any) -> bytes:
    """Make an invitation and return its proof."""
    reply = owner.does(tracker.Invite("lab", key_of(proof(text)), **options))
    assert reply.row.id == id_of(key_of(proof(text)))
    return proof(text)


def members(harness: TrackerHarness) -> list[str]:
    return list(harness.state.groups[GroupId("lab")].members)


def operate(harness: TrackerHarness, command: operator.Command) -> Any:
    reply = harness.decide(Caller(DeviceKey(b"")), command).reply
    assert not isinstance(reply, Refusal), reply
    return reply


def enters(device: Device, secret: bytes, name: str, password: str = "secret") -> Any:
    """Log in by an invitation, with the passwords of `Device.enters`; return the last reply."""
    step = device.asks(tracker.Enter(secret, name, password))
    match step:
        case HashPassword(user, typed, key):
            return device.asks(commands.PasswordHashed(user, f"hash of {typed}", key))
        case CheckPassword(user, typed, password_hash, _, key):
            assert password_hash == f"hash of {typed}"
            return device.asks(commands.PasswordRight(user, password_hash, key))
    return step


# -- redeeming ----------------------------------------------------------------------------------


def test_an_invitation_makes_a_member_and_closes_the_request(
    harness: TrackerHarness, owner: Device
) -> None:
    bob = harness.user("bob")
    bob.does(tracker.JoinGroup("lab"))
    before = harness.state.groups[GroupId("lab")].key
    reply = bob.does(tracker.Redeem(invited(owner)))
    assert reply == tracker.Redeemed("lab", "bob", "alice")
    group = harness.state.groups[GroupId("lab")]
    assert (members(harness), group.requests) == (["alice", "bob"], {})
    assert harness.events_of("lab")[-1] == events.Joined("bob", "alice")
    assert group.key != before, "events from before cannot be opened"
    assert {bob.key, owner.key} <= set(harness.nudged)


def test_a_new_account_and_its_membership_are_one_decision(
    harness: TrackerHarness, owner: Device
) -> None:
    bob = harness.device("bob")
    assert enters(bob, invited(owner), "bob") == tracker.Redeemed("lab", "bob", "alice", True)
    assert bob.user == "bob"
    assert members(harness) == ["alice", "bob"]
    bob.does(tracker.ListFiles("lab"))


def test_an_account_that_exists_is_logged_in(harness: TrackerHarness, owner: Device) -> None:
    harness.user("bob", "desk")
    lap = harness.device("lap")
    assert enters(lap, invited(owner), "bob") == tracker.Redeemed("lab", "bob", "alice")
    assert lap.user == "bob"


def test_a_name_is_not_made_an_account_unless_wanted(
    harness: TrackerHarness, owner: Device
) -> None:
    bob, secret = harness.device("bob"), invited(owner)
    reply = bob.asks(tracker.Enter(secret, "bob", "secret", create=False))
    assert reply.code is Code.UNKNOWN_USER
    assert isinstance(bob.asks(tracker.Enter(secret, "bob", "secret")), HashPassword)


def test_the_user_of_a_device_is_not_replaced(harness: TrackerHarness, owner: Device) -> None:
    bob = harness.user("bob")
    assert bob.is_refused(tracker.Enter(invited(owner), "carol", "secret")) is Code.TAKEN
    assert bob.user == "bob"


@pytest.mark.parametrize("uses", [1, 3])
def test_h112_a_use_is_taken_by_one_user_whatever_comes_at_once(
    harness: TrackerHarness, owner: Device, uses: int
) -> None:
    """All devices pass the first check and hash their passwords before the first one is in."""
    secret = invited(owner, uses=uses)
    known = [harness.user(f"old{number}") for number in range(3)]
    fresh = [harness.device(f"new{number}") for number in range(3)]
    orders = [
        device.does(tracker.Enter(secret, f"new{number}", "secret"))
        for number, device in enumerate(fresh)
    ]
    replies = [device.asks(tracker.Redeem(secret)) for device in known[:1]]
    for device, order in zip(fresh, orders, strict=True):
        replies.append(device.asks(commands.PasswordHashed(order.user, "h", order.invitation)))
    replies += [device.asks(tracker.Redeem(secret)) for device in known[1:]]
    won = [reply.user for reply in replies if isinstance(reply, tracker.Redeemed)]
    assert len(won) == uses
    assert members(harness) == ["alice", *won]
    accounts = set(harness.state.accounts)
    assert accounts == {"alice", "old0", "old1", "old2", *won}, "no account of a loser is made"
    assert {device.user for device in fresh} - {None} <= set(won)


def test_f114_a_repetition_after_a_lost_reply_succeeds_and_takes_no_use(
    harness: TrackerHarness, owner: Device
) -> None:
    secret = invited(owner)
    bob = harness.device("bob")
    first, request_id = enters(bob, secret, "bob"), b"12345678"
    assert first.created
    again = enters(bob, secret, "bob")
    assert again == replace_created(first)
    assert bob.does(tracker.Redeem(secret), request_id) == again
    assert bob.does(tracker.Redeem(secret), request_id) == again
    second = harness.device("another machine of bob")
    assert enters(second, secret, "bob") == again
    [row] = owner.does(tracker.ListInvitations("lab")).rows
    assert (row.used, row.uses) == (1, 1)
    made = tracker.Invite("lab", key_of(secret))
    assert owner.does(made).row == row, "and so does making it"


def replace_created(reply: tracker.Redeemed) -> tracker.Redeemed:
    return tracker.Redeemed(reply.group, reply.user, reply.by)


# -- what ends one ------------------------------------------------------------------------------


def test_h113_a_revoked_or_expired_one_looks_like_one_that_never_was(
    harness: TrackerHarness, owner: Device
) -> None:
    bob = harness.user("bob")
    revoked, expired = invited(owner, "one"), invited(owner, "two", life_s=DAY_S)
    owner.does(tracker.RevokeInvitation("lab", id_of(key_of(revoked)).upper()))
    harness.wait(DAY_S)
    for secret in (revoked, expired, proof("never made")):
        reply = bob.asks(tracker.Redeem(secret))
        assert (reply.code, reply.message, reply.hint) == (
            UNKNOWN.code,
            UNKNOWN.message,
            UNKNOWN.hint,
        )
        assert "lab" not in reply.message
        assert reply.hint.endswith(
            ": mini-torrent list-groups"
        )  # a member of long ago sees it there
    used = invited(owner, "three")
    harness.user("carol").does(tracker.Redeem(used))
    assert bob.asks(tracker.Redeem(used)).message == "the invitation is used up"
    assert members(harness) == ["alice", "carol"]
    harness.wait(limits.INVITATION_S)
    harness.decide(Caller(DeviceKey(b"")), commands.Housekeep())
    assert harness.state.invited_by == {}


def test_h114_only_the_owner_makes_sees_and_revokes_invitations(
    harness: TrackerHarness, owner: Device
) -> None:
    bob, eve = harness.user("bob"), harness.user("eve")
    bob.does(tracker.Redeem(invited(owner)))
    id = id_of(key_of(invited(owner, "second")))
    for command in (
        tracker.Invite("lab", key_of(proof("bob's"))),
        tracker.ListInvitations("lab"),
        tracker.RevokeInvitation("lab", id),
    ):
        assert bob.is_refused(command) is Code.NOT_OWNER
        assert eve.is_refused(command) is Code.UNKNOWN_GROUP
    harness.group("club", eve)
    taken = tracker.Invite("club", key_of(proof("second")))
    assert eve.is_refused(taken) is Code.TAKEN, "an invitation leads to one group"


@pytest.mark.parametrize("ending", ["leaves", "is deleted", "dissolves"])
def test_h115_the_invitations_of_a_former_owner_open_nothing(
    harness: TrackerHarness, owner: Device, ending: str
) -> None:
    secret, bob, carol = invited(owner), harness.user("bob"), harness.user("carol")
    if ending != "dissolves":
        bob.does(tracker.Redeem(invited(owner, "for bob")))
    if ending == "is deleted":
        operate(harness, operator.DeleteUser("alice"))
    else:
        owner.does(tracker.LeaveGroup("lab"))
    if ending == "dissolves":
        harness.group("lab", bob)
    assert carol.asks(tracker.Redeem(secret)).message == UNKNOWN.message
    assert members(harness) == ["bob"]
    assert harness.state.invited_by == {}


def test_h115_the_invitations_of_a_disabled_owner_rest(
    harness: TrackerHarness, owner: Device
) -> None:
    secret, carol = invited(owner), harness.user("carol")
    operate(harness, operator.SetDisabled("alice", True))
    assert carol.asks(tracker.Redeem(secret)).message == UNKNOWN.message
    operate(harness, operator.SetDisabled("alice", False))
    carol.does(tracker.Redeem(secret))


# -- limits -------------------------------------------------------------------------------------


def test_h111_guesses_are_slowed_by_device_and_by_network(
    harness: TrackerHarness, owner: Device
) -> None:
    secret, eve = invited(owner), harness.user("eve")
    for number in range(limits.INVITATIONS_TRIED_BURST):
        assert eve.asks(tracker.Redeem(proof(f"{number}"))).code is Code.NO_INVITATION
    assert eve.is_refused(tracker.Redeem(secret)) is Code.SLOW_DOWN, "the right one as well"
    for number in range(limits.INVITATIONS_TRIED_NETWORK_BURST):
        fresh = harness.device(f"eve's key {number}")
        fresh.asks(tracker.Enter(proof(f"{number}"), "eve", "secret"))
    neighbour, far = harness.device("bob"), harness.device("carol")
    assert neighbour.is_refused(tracker.Enter(secret, "bob", "secret")) is Code.SLOW_DOWN
    far = replace(far, address="198.51.100.7")
    assert isinstance(far.asks(tracker.Enter(secret, "carol", "secret")), HashPassword)
    harness.wait(1 / limits.INVITATIONS_TRIED_RATE)
    eve.does(tracker.Redeem(secret))


def test_h111_names_cannot_be_tried_out_with_an_invitation(
    harness: TrackerHarness, owner: Device
) -> None:
    secret, eve = invited(owner), harness.device("eve")
    for number in range(limits.INVITATIONS_TRIED_BURST):
        eve.asks(tracker.Enter(secret, f"name{number}", "", create=False))
    assert eve.is_refused(tracker.Enter(secret, "alice", "", create=False)) is Code.SLOW_DOWN


def test_h113_a_used_up_one_does_not_tell_which_accounts_exist(
    harness: TrackerHarness, owner: Device
) -> None:
    secret = invited(owner)
    harness.user("bob").does(tracker.Redeem(secret))
    harness.user("carol", "desk")
    eve = harness.device("eve")
    said = {eve.asks(tracker.Enter(secret, name, "secret")).message for name in ("carol", "dave")}
    assert said == {"the invitation is used up"}


def test_an_owner_has_a_limited_number_of_open_invitations(
    harness: TrackerHarness, owner: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INVITATIONS_OPEN_MAX", 2)
    monkeypatch.setattr(limits, "INVITATIONS_KEPT_MAX", 3)
    bob = harness.user("bob")
    for number in range(4):
        bob.does(tracker.Redeem(invited(owner, f"used {number}")))
        owner.does(tracker.RemoveMember("lab", "bob"))
    assert len(harness.state.groups[GroupId("lab")].invitations) == 3, "the oldest made place"
    invited(owner, "open 1")
    invited(owner, "open 2")
    assert owner.is_refused(tracker.Invite("lab", key_of(proof("open 3")))) is Code.LIMIT


# -- registration -------------------------------------------------------------------------------


def test_with_registration_by_invitation_only_one_makes_an_account(
    harness: TrackerHarness, owner: Device
) -> None:
    harness.user("bob")
    order = harness.device("late").does(tracker.CreateUser("late", "secret"))
    operate(harness, operator.SetRegistration(Registration.INVITE))
    late = harness.device("late")
    assert late.is_refused(commands.PasswordHashed(order.user, "h")) is Code.REGISTRATION
    assert late.is_refused(tracker.CreateUser("late", "secret")) is Code.REGISTRATION
    secret = invited(owner, uses=3)
    assert enters(late, secret, "late").created
    operate(harness, operator.SetRegistration(Registration.CLOSED))
    never = harness.device("never")
    assert never.is_refused(tracker.Enter(secret, "never", "secret")) is Code.REGISTRATION
    assert not enters(harness.device("lap"), secret, "bob").created, "an account may log in"
    assert UserId("never") not in harness.state.accounts
