"""Budgets: rows that one account can create, and the needs of honest users."""

from __future__ import annotations

import contextlib

import pytest

from common import limits
from common.errors import Refused
from common.ids import UserId
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.token_bucket import BUCKETS_MAX
from tests.support.tracker_harness import Device, TrackerHarness
from tracker.core import commands
from tracker.core.budgets import Budget, Budgets
from tracker.core.changes.groups import GroupCreated, Logged


def entries(harness: TrackerHarness) -> int:
    return sum(isinstance(change, Logged) for change in harness.changes)


def code_of(reply: object) -> Code | None:
    return reply.code if isinstance(reply, Refusal) else None


def spend_all(harness: TrackerHarness, user: str) -> None:
    """Spend the whole budget of ``user`` for log entries."""
    for amount in (10_000, 1_000, 100, 10, 1):
        with contextlib.suppress(Refused):
            while True:
                spent = harness.state.budgets.spend(
                    Budget.ENTRIES, user, amount, harness.now.wall_ms
                )
                spent.apply(harness.state)


def test_h58_the_rate_of_groups_created_and_left_is_limited(harness: TrackerHarness) -> None:
    eve = harness.user("eve")
    codes = set()
    for number in range(2_000):
        codes.add(code_of(eve.asks(tracker.CreateGroup(f"g{number}"))))
        eve.asks(tracker.LeaveGroup(f"g{number}"))
        harness.wait(1.0)
    made = sum(isinstance(change, GroupCreated) for change in harness.changes)
    assert codes == {None, Code.SLOW_DOWN}
    assert made == limits.GROUPS_BURST + 2_000 // 60
    assert harness.user("alice").asks(tracker.CreateGroup("lab")) == tracker.Done()


def test_h58_the_rate_of_shares_made_and_withdrawn_is_limited(harness: TrackerHarness) -> None:
    eve = harness.user("eve")
    harness.group("lab", eve)
    spend_all(harness, "eve")
    content, before = harness.content("a"), entries(harness)
    for _ in range(1_000):
        eve.asks(tracker.Offer("lab", "a", content))
        eve.asks(tracker.StopShare("lab", "a"))
        harness.wait(0.1)
    assert entries(harness) - before <= 100 * limits.ENTRIES_RATE


def test_h58_the_entries_of_logins_and_logouts_are_limited(harness: TrackerHarness) -> None:
    eve = harness.user("eve")
    for number in range(150):
        harness.group(f"g{number}", eve)
    spend_all(harness, "eve")
    phone, before = harness.device("phone"), entries(harness)
    right = commands.PasswordRight(eve.user, "hash of secret")
    codes = set()
    for _ in range(600):
        codes.add(code_of(phone.asks(right)))
        phone.asks(tracker.Logout())
        harness.wait(1.0)
    assert codes == {None, Code.SLOW_DOWN}
    assert entries(harness) - before <= 600 * limits.ENTRIES_RATE
    # A logged in device stays so, and may log in again where it is.
    assert eve.asks(right) == tracker.LoggedIn("eve")


def test_h58_the_entries_of_withdrawn_join_requests_are_limited(
    harness: TrackerHarness,
) -> None:
    eve, owner = harness.user("eve"), harness.user("owner")
    for number in range(100):
        harness.group(f"g{number}", owner)
    spend_all(harness, "eve")
    before = entries(harness)
    for turn in range(1_000):
        eve.asks(tracker.JoinGroup(f"g{turn % 100}"))
        eve.asks(tracker.LeaveGroup(f"g{turn % 100}"))
        harness.wait(0.1)
    assert entries(harness) - before <= 100 * limits.ENTRIES_RATE


def test_h58_commands_that_remove_rows_are_never_refused(harness: TrackerHarness) -> None:
    eve, bob = harness.user("eve"), harness.user("bob")
    harness.group("lab", eve, bob)
    phone = harness.user("eve", "phone")
    eve.offers("lab", "a", harness.content("a"))
    eve.offers("lab", "b", harness.content("b"))
    spend_all(harness, "eve")
    assert eve.is_refused(tracker.Offer("lab", "c", harness.content("c"))) is Code.SLOW_DOWN
    eve.does(tracker.StopShare("lab", "a"))
    eve.does(tracker.ForgetDevice(phone.key))
    eve.does(tracker.LeaveGroup("lab"))
    eve.does(tracker.Logout())


def test_h58_one_user_shares_ten_thousand_files_one_after_the_other(
    harness: TrackerHarness,
) -> None:
    """All at once, many of them again, and with a second device beside it."""
    alice = harness.user("alice")
    harness.group("lab", alice)
    content = harness.content("a")
    for number in range(10_000):
        alice.does(tracker.Offer("lab", f"{number}", content))
    phone = harness.user("alice", "phone")
    for number in range(2_000):
        alice.does(tracker.StopShare("lab", f"{number}"))
        alice.does(tracker.Offer("lab", f"{number}", content))
        phone.does(tracker.Offer("lab", f"{number}", content))


def test_h58_a_fleet_logs_in(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    for number in range(limits.GROUPS_PER_USER_MAX - 10):
        harness.group(f"g{number}", alice)
    for number in range(limits.DEVICES_PER_USER_MAX - 1):
        harness.user("alice", f"node {number}")
    for number in range(100):
        harness.user("bob", f"other node {number}")
    assert len(harness.state.devices) == limits.DEVICES_PER_USER_MAX + 100


def offer_is_refused(device: Device, name: str) -> Code:
    return device.is_refused(tracker.Offer("lab", name, device.harness.content(name)))


def test_h58_the_rows_of_a_user_are_bounded(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = harness.user("alice")
    phone = harness.user("alice", "phone")
    harness.group("lab", alice)
    for name in ("a", "b"):
        alice.offers("lab", name, harness.content(name))
    phone.offers("lab", "a", harness.content("a"))
    assert harness.state.holdings.offers["alice"] == 3
    assert harness.state.holdings.manifest_bytes["alice"] == 400
    monkeypatch.setattr(limits, "OFFERS_PER_USER_MAX", 3)
    assert offer_is_refused(phone, "b") is Code.LIMIT
    # What a device offers stays on record when it is logged out, and so it counts.
    phone.does(tracker.Logout())
    assert offer_is_refused(alice, "c") is Code.LIMIT
    monkeypatch.setattr(limits, "OFFERS_PER_USER_MAX", 100)
    monkeypatch.setattr(limits, "MANIFEST_BYTES_PER_USER_MAX", 500)
    assert offer_is_refused(alice, "c") is Code.LIMIT
    alice.does(tracker.StopShare("lab", "b"))
    alice.offers("lab", "c", harness.content("c"))
    alice.does(tracker.LeaveGroup("lab"))
    assert not harness.state.holdings.offers
    assert not harness.state.holdings.shares
    assert not harness.state.holdings.manifest_bytes


def test_h58_accounts_are_bounded(harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.user("alice")
    monkeypatch.setattr(limits, "ACCOUNTS_MAX", 1)
    made = commands.PasswordHashed("bob", "h")
    assert harness.device("d").is_refused(made) is Code.LIMIT


def test_no_number_of_other_users_refills_a_budget() -> None:
    budgets = Budgets()
    budgets.take(budgets.spend(Budget.GROUPS, UserId("eve"), limits.GROUPS_BURST, 0))
    for number in range(BUCKETS_MAX + 1):
        budgets.take(budgets.spend(Budget.GROUPS, UserId(f"u{number}"), 1, 0))
    with pytest.raises(Refused):
        budgets.spend(Budget.GROUPS, UserId("eve"), 1, 0)


def test_h59_one_member_does_not_fill_a_group_with_shares(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SHARES_PER_GROUP_MAX", 40)
    people = [harness.user(name) for name in ("eve", "mallory", "alice")]
    harness.group("lab", *people)

    def share(who: Device) -> int:
        """Return how many of 40 are accepted."""
        names = (f"{who.user} {number}" for number in range(40))
        asked = [who.asks(tracker.Offer("lab", name, harness.content("a"))) for name in names]
        return sum(isinstance(reply, tracker.Offered) for reply in asked)

    # Three quarters of what is there, then of what is left; there is always something.
    assert [share(who) for who in people] == [30, 8, 2]
    # What ends makes room again, and a content that is listed takes none.
    people[0].does(tracker.StopShare("lab", "eve 0"))
    people[2].offers("lab", "alice 9", harness.content("a"))
    people[2].offers("lab", "eve 1", harness.content("a"))
