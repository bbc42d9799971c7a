from __future__ import annotations

import pytest

from common import limits
from common.ids import DeviceKey, GroupId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.tracker_harness import Device, TrackerHarness, content_id
from tracker.core import commands
from tracker.core.changes.groups import Logged
from tracker.core.context import Caller, ReadLog, SignTickets
from tracker.core.outbox import Outbox


def members(harness: TrackerHarness, group: str) -> list[str]:
    return list(harness.state.groups[group].members)


def test_a_join_request_is_accepted(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    alice.does(tracker.CreateGroup("Lab"))
    bob.does(tracker.JoinGroup("lab"))
    assert bob.does(tracker.ListGroups()).rows == [tracker.GroupRow("lab", "alice", 1, "pending")]
    assert [row.user for row in alice.does(tracker.ListRequests("LAB")).rows] == ["bob"]
    alice.does(tracker.AcceptRequest("lab", "Bob"))
    assert bob.does(tracker.ListGroups()).rows == [tracker.GroupRow("lab", "alice", 2, "member")]
    assert alice.does(tracker.ListRequests("lab")).rows == []
    assert harness.events_of("lab") == [
        events.Created("alice"),
        events.Requested("bob"),
        events.Joined("bob"),
    ]
    assert bob.key in harness.nudged


def test_repeated_commands_succeed(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    alice.does(tracker.CreateGroup("lab"))
    bob.does(tracker.JoinGroup("lab"))
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.AcceptRequest("lab", "bob"))
    alice.does(tracker.AcceptRequest("lab", "bob"))
    assert len(harness.events_of("lab")) == 3


def test_refusals_have_plain_texts(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    assert alice.is_refused(tracker.CreateGroup("LAB")) is Code.TAKEN
    assert bob.is_refused(tracker.JoinGroup("lab")) is Code.ALREADY_MEMBER
    assert bob.is_refused(tracker.JoinGroup("nowhere")) is Code.UNKNOWN_GROUP
    assert alice.is_refused(tracker.AcceptRequest("lab", "carol")) is Code.UNKNOWN_REQUEST
    assert alice.is_refused(tracker.RejectRequest("lab", "carol")) is Code.UNKNOWN_REQUEST
    assert alice.is_refused(tracker.RemoveMember("lab", "carol")) is Code.UNKNOWN_USER
    assert alice.is_refused(tracker.RemoveMember("lab", "alice")) is Code.USAGE


def test_h47_repeated_join_requests_fill_no_log(
    harness: TrackerHarness,
) -> None:
    alice, eve, bob = harness.user("alice"), harness.user("eve"), harness.user("bob")
    harness.group("lab", alice)
    harness.group("club", alice)

    def granted(attempts: int, every_s: float) -> int:
        done = 0
        for _ in range(attempts):
            reply = eve.asks(tracker.JoinGroup("lab"))
            if reply == tracker.Done():
                done += 1
                eve.does(tracker.LeaveGroup("lab"))
            else:
                assert isinstance(reply, Refusal)
                assert reply.code is Code.SLOW_DOWN
                assert reply.hint == "try again in 10 s" or every_s
            harness.wait(every_s)
        return done

    assert granted(50, 0.0) == limits.REQUEST_BURST
    assert len(harness.events_of("lab")) == 1 + 2 * limits.REQUEST_BURST
    # Neither others nor other groups are concerned, nor is a request that stands.
    bob.does(tracker.JoinGroup("lab"))
    eve.does(tracker.JoinGroup("club"))
    eve.does(tracker.JoinGroup("club"))
    harness.wait(limits.REQUEST_S)
    assert granted(1_000, 1.0) <= 1_000 / limits.REQUEST_S + 1


OWNERS_ONLY = [
    tracker.ListRequests("lab"),
    tracker.AcceptRequest("lab", "carol"),
    tracker.RejectRequest("lab", "carol"),
    tracker.RemoveMember("lab", "alice"),
]
MEMBERS_ONLY = [
    *OWNERS_ONLY,
    tracker.LeaveGroup("lab"),
    tracker.ListMembers("lab"),
    tracker.ListFiles("lab"),
    tracker.Offer("lab", "x", b"c" * 32),
    tracker.StopShare("lab", "x"),
    tracker.FindShare("lab", "x"),
    tracker.GetSources("lab", b"c" * 32),
    tracker.GetManifest("lab", b"c" * 32),
    tracker.GetDevices("lab"),
    tracker.EventsSince("lab", 0),
    tracker.GetTickets(["lab"]),
]


def kind(command: object) -> str:
    return type(command).__name__


@pytest.mark.parametrize("command", OWNERS_ONLY, ids=kind)
def test_some_commands_are_for_the_owner_only(harness: TrackerHarness, command: object) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    assert bob.is_refused(command) is Code.NOT_OWNER


@pytest.mark.parametrize("command", MEMBERS_ONLY, ids=kind)
def test_h15_a_group_of_others_looks_like_a_missing_one(
    harness: TrackerHarness, command: object
) -> None:
    there, not_there = TrackerHarness(), TrackerHarness()
    there.group("lab", there.user("alice"))
    replies = [each.user("eve").asks(command) for each in (there, not_there)]
    assert isinstance(replies[0], Refusal)
    assert replies[0].code is Code.UNKNOWN_GROUP
    assert replies[0] == replies[1]


@pytest.mark.parametrize("command", MEMBERS_ONLY, ids=kind)
def test_commands_on_groups_need_a_login(harness: TrackerHarness, command: object) -> None:
    assert harness.device("eve").is_refused(command) is Code.NOT_LOGGED_IN


def test_a_user_with_a_request_is_no_member_yet(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    bob.does(tracker.JoinGroup("lab"))
    assert bob.is_refused(tracker.ListFiles("lab")) is Code.UNKNOWN_GROUP
    bob.does(tracker.LeaveGroup("lab"))  # thought better of it
    assert alice.does(tracker.ListRequests("lab")).rows == []


def test_a_rejected_user_may_ask_again(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.RejectRequest("lab", "bob"))
    assert bob.does(tracker.ListGroups()).rows[0].role == "none"
    assert set(harness.nudged[-2:]) == {bob.key, alice.key}
    bob.does(tracker.JoinGroup("lab"))


def test_after_the_owner_left_the_longest_member_owns_the_group(harness: TrackerHarness) -> None:
    alice, bob, carol = (harness.user(name) for name in ("alice", "bob", "carol"))
    harness.group("lab", alice, carol, bob)
    alice.does(tracker.LeaveGroup("lab"))
    assert harness.state.groups["lab"].owner == "carol"
    assert harness.events_of("lab")[-2:] == [events.Left("alice", 4), events.Owner("carol")]


def test_the_last_member_dissolves_the_group(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    bob.does(tracker.JoinGroup("lab"))
    alice.offers("lab", "x", harness.content("x"))
    alice.does(tracker.LeaveGroup("lab"))
    assert bob.does(tracker.ListGroups()).rows == []
    assert bob.is_refused(tracker.ListFiles("lab")) is Code.UNKNOWN_GROUP
    assert harness.state.offers_of == {}
    assert harness.state.requests_of == {}


def test_a_new_group_of_a_used_name_repeats_no_number_and_accepts_no_old_ticket(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    before = harness.state.groups["lab"]
    bob.does(tracker.LeaveGroup("lab"))
    alice.does(tracker.LeaveGroup("lab"))
    eve = harness.user("eve")
    eve.does(tracker.CreateGroup("lab"))
    [state] = eve.does(tracker.Follow()).groups
    assert state.seq > before.seq
    assert state.topic != before.topic
    assert dict(state.revoked) == {"bob": 3, "alice": 4}
    assert state.epoch > max(dict(state.revoked).values())


def test_a_departure_is_sealed_with_the_old_key_and_later_entries_with_the_new(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    bob.offers("lab", "x", harness.content("x"))
    old = harness.state.groups["lab"].key
    decision = alice.decision(tracker.RemoveMember("lab", "bob"))
    farewell, last = (change for change in decision.changes if isinstance(change, Logged))
    new = harness.state.groups["lab"].key
    assert new != old
    assert (farewell.key, farewell.key_epoch, farewell.entry.epoch) == (old, 2, 3)
    assert (last.key, last.key_epoch, last.entry.epoch) == (new, 3, 3)
    assert farewell.entry.event == events.Removed("bob", 3)
    assert isinstance(last.entry.event, events.Unshared)


def test_a_revocation_is_listed_while_a_ticket_may_be_valid(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.does(tracker.RemoveMember("lab", "bob"))

    def revoked() -> list[tuple[str, int]]:
        [state] = alice.does(tracker.Follow()).groups
        return list(state.revoked)

    harness.wait(limits.TICKET_LIFE_S)
    assert revoked() == [("bob", 3)]
    harness.wait(limits.CLOCK_SKEW_S + 1)
    assert revoked() == []


def test_f28_a_clock_that_jumps_ahead_and_back_revives_no_revoked_ticket(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.does(tracker.RemoveMember("lab", "bob"))
    harness.wait(3600)
    harness.decide(Caller(b""), commands.Housekeep())
    assert alice.does(tracker.Follow()).groups[0].revoked == []
    harness.wait(-3600)
    assert alice.does(tracker.Follow()).groups[0].revoked == [("bob", 3)]
    harness.wait(limits.TOMBSTONE_LIFE_S + 1)
    harness.decide(Caller(b""), commands.Housekeep())
    assert harness.state.groups["lab"].revoked == {}


def test_a_tombstone_is_kept_for_a_day(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    alice.does(tracker.LeaveGroup("lab"))
    harness.decide(Caller(b""), commands.Housekeep())
    assert list(harness.state.tombstones) == ["lab"]
    harness.wait(limits.TOMBSTONE_LIFE_S + 1)
    harness.decide(Caller(b""), commands.Housekeep())
    assert harness.state.tombstones == {}


def test_a_member_accepted_again_gets_valid_tickets(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.does(tracker.RemoveMember("lab", "bob"))
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.AcceptRequest("lab", "bob"))
    order = bob.does(tracker.GetTickets())
    assert order == SignTickets("bob", (("lab", 4),))
    [state] = alice.does(tracker.Follow()).groups
    assert dict(state.revoked)["bob"] <= 4


def test_tickets_for_some_groups_ignore_those_that_were_left(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("one", alice)
    harness.group("two", alice)
    assert alice.does(tracker.GetTickets(["ONE", "gone"])) == SignTickets("alice", (("one", 1),))
    assert len(alice.does(tracker.GetTickets()).groups) == 2


def test_a_member_reads_the_log_from_joining_on(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)  # 1 created, 2 requested, 3 joined
    order = bob.does(tracker.EventsSince("lab", 0))
    assert (order.after, order.head) == (2, 3)
    assert alice.does(tracker.EventsSince("lab", 0)).after == 0
    assert bob.does(tracker.EventsSince("lab", 3)) == tracker.Events([], 3)
    assert bob.does(tracker.EventsSince("lab", 99)) == tracker.Events([], 3)


def test_listings_come_in_pages(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    for number in range(tracker.PAGE_ROWS + 3):
        harness.state.groups["lab"].requests[f"u{number:04}"] = 0
    first = alice.does(tracker.ListRequests("lab"))
    assert len(first.rows) == tracker.PAGE_ROWS
    assert first.more
    rest = alice.does(tracker.ListRequests("lab", first.rows[-1].user))
    assert [row.user for row in rest.rows] == ["u0500", "u0501", "u0502"]
    assert not rest.more


def test_devices_come_in_pages_sorted_by_key(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    devices = {alice.key}
    for number in range(12):
        devices.add(harness.user("bob", f"bob's {number}").key)
    harness.group("other", harness.user("bob", "bob's 0"))
    bob = harness.device("bob's 3")
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.AcceptRequest("lab", "bob"))
    rows = alice.does(tracker.GetDevices("lab")).rows
    assert [row.device for row in rows] == sorted(devices)
    later = alice.does(tracker.GetDevices("lab", rows[4].device.hex())).rows
    assert later == rows[5:]
    bob.does(tracker.Logout())
    assert len(alice.does(tracker.GetDevices("lab")).rows) == 12
    assert alice.is_refused(tracker.GetDevices("lab", "no key")) is Code.USAGE


@pytest.mark.parametrize(
    ("limit", "attempt"),
    [
        ("GROUPS_PER_USER_MAX", "create"),
        ("GROUPS_PER_USER_MAX", "join"),
        ("REQUESTS_PER_USER_MAX", "join"),
        ("REQUESTS_PER_GROUP_MAX", "join"),
        ("MEMBERS_PER_GROUP_MAX", "accept"),
    ],
)
def test_groups_members_and_requests_are_bounded(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch, limit: str, attempt: str
) -> None:
    alice, bob, carol = (harness.user(name) for name in ("alice", "bob", "carol"))
    harness.group("lab", alice)
    harness.group("bobs", bob)
    harness.group("third", alice)
    bob.does(tracker.JoinGroup("third"))
    carol.does(tracker.JoinGroup("lab"))
    monkeypatch.setattr(limits, limit, 1)
    attempts: dict[str, tuple[Device, object]] = {
        "create": (bob, tracker.CreateGroup("new")),
        "join": (bob, tracker.JoinGroup("lab")),
        "accept": (alice, tracker.AcceptRequest("lab", "carol")),
    }
    who, command = attempts[attempt]
    assert who.is_refused(command) is Code.LIMIT


def test_f50_a_log_keeps_only_its_latest_entries(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOG_ENTRIES_MAX", 20)
    monkeypatch.setattr(limits, "LOG_ENTRIES_KEPT", 10)
    alice = harness.user("alice")
    lab = harness.state.groups[harness.group("lab", alice)]
    kept = []
    for number in range(50):
        alice.offers("lab", "a", harness.content("a"))
        alice.does(tracker.StopShare("lab", "a"))
        kept.append(lab.entries)
        assert harness.events_of("lab")[-1] == events.Unshared("alice", "a", content_id("a")), (
            number
        )
    assert max(kept) <= 20
    assert min(kept[20:]) >= 10
    # A request for trimmed entries gets the state with the rest; the shell finds that out.
    order = alice.does(tracker.EventsSince("lab", 0))
    assert isinstance(order, ReadLog)
    assert (order.after, order.head) == (0, lab.seq)
    assert order.snapshot == alice.does(tracker.Follow()).groups[0]


def test_f50_a_long_log_of_an_earlier_release_is_trimmed_bit_by_bit(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = harness.user("alice")
    groups = [harness.state.groups[harness.group(name, alice)] for name in ("lab", "club")]
    for _ in range(60):
        for group in groups:
            alice.offers(group.id, "a", harness.content("a"))
            alice.does(tracker.StopShare(group.id, "a"))
    monkeypatch.setattr(limits, "LOG_ENTRIES_MAX", 20)
    monkeypatch.setattr(limits, "LOG_ENTRIES_KEPT", 10)
    monkeypatch.setattr(limits, "LOG_TRIM_MAX", 50)
    monkeypatch.setattr(commands, "LOGS_TRIMMED_MAX", 1)
    kept = []
    for _ in range(7):
        harness.decide(Caller(DeviceKey(b"")), commands.Housekeep())
        kept.append([group.entries for group in groups])
    assert kept == [[71, 121], [21, 121], [10, 121], [10, 71], [10, 21], [10, 10], [10, 10]]


def test_h64_each_joining_begins_an_epoch_whose_key_all_members_get(
    harness: TrackerHarness,
) -> None:
    alice, bob, carol = (harness.user(name) for name in ("alice", "bob", "carol"))
    harness.group("lab", alice)
    lab = GroupId("lab")
    outbox = Outbox()
    for joiner in (bob, carol):
        joiner.does(tracker.JoinGroup("lab"))
        before, count = (
            (harness.state.groups[lab].epoch, harness.state.groups[lab].key),
            len(harness.changes),
        )
        alice.does(tracker.AcceptRequest("lab", joiner.user))
        group = harness.state.groups[lab]
        assert group.epoch == before[0] + 1
        assert group.key != before[1]
        told = outbox.log_entries(harness.changes[count:], harness.now_s)
        # What is published of it is sealed with the key before, and gives the members the next one.
        assert [(out.epoch, out.key) for out in told] == [before, before]
        assert told[0].body == events.NewKey("lab", group.epoch, group.key)
        assert isinstance(told[1].body, events.LogEntry)
        assert told[1].body.epoch == group.epoch
        [row] = joiner.does(tracker.Follow()).groups
        assert (row.epoch, row.key) == (group.epoch, group.key)


def test_h64_a_joining_does_not_settle_a_pending_rekey(harness: TrackerHarness) -> None:
    """An unbound device knows the old key, and so can open the next one that is sealed with it."""
    alice, eve, bob = (harness.user(name) for name in ("alice", "eve", "bob"))
    harness.group("lab", alice, eve)
    lab = harness.state.groups[GroupId("lab")]
    while not lab.rekey_pending:
        eve.does(tracker.Logout())
        eve.enters("eve")
    bob.does(tracker.JoinGroup("lab"))
    alice.does(tracker.AcceptRequest("lab", "bob"))
    assert lab.rekey_pending


def test_an_owner_and_an_heir_get_a_nudge_when_the_requests_change(harness: TrackerHarness) -> None:
    alice, bob, eve = harness.user("alice"), harness.user("bob"), harness.user("eve")
    harness.group("lab", alice, bob)
    eve.does(tracker.JoinGroup("lab"))
    harness.nudged.clear()
    alice.does(tracker.AcceptRequest("lab", "eve"))
    assert set(harness.nudged) == {alice.key, eve.key}
    harness.nudged.clear()
    alice.does(tracker.LeaveGroup("lab"))
    assert set(harness.nudged) == {alice.key, bob.key}
