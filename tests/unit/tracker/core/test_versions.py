from __future__ import annotations

import pytest

from common import limits
from common.ids import UserId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.names import split_version
from tests.support.tracker_harness import Device, TrackerHarness, content_id
from tracker.core import commands
from tracker.core.context import Caller


def replaces(device: Device, name: str, text: str, version: int = 0) -> tracker.Offered:
    content = device.harness.content(text)
    reply = device.does(tracker.Offer("lab", name, content, True, version))
    assert isinstance(reply, tracker.Offered)
    return reply


def holds(device: Device, name: str, text: str, version: int) -> tracker.Offered:
    reply = device.does(tracker.Offer("lab", name, device.harness.content(text), False, version))
    assert isinstance(reply, tracker.Offered)
    return reply


def listed(device: Device, *, versions: bool = False) -> list[tuple[str, int, bool]]:
    rows = device.does(tracker.ListFiles("lab", "", versions)).rows
    return [(row.name, row.version, row.current) for row in rows]


@pytest.fixture
def alice(harness: TrackerHarness) -> Device:
    """The sharer; carol owns the group, bob is a member."""
    alice, bob, carol = (harness.user(name) for name in ("alice", "bob", "carol"))
    harness.group("lab", carol, alice, bob)
    return alice


@pytest.fixture
def bob(alice: Device) -> Device:
    return alice.harness.device("bob")


@pytest.fixture
def carol(alice: Device) -> Device:
    return alice.harness.device("carol")


def test_a_replacement_is_the_next_version_and_the_earlier_one_stays_to_be_had(
    alice: Device, bob: Device
) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    bob.offers("lab", "data", content_id("one"))
    row = replaces(alice, "data", "two").row
    assert (row.version, row.current, row.content) == (2, True, content_id("two"))
    assert listed(bob) == [("data", 2, True)]
    assert listed(bob, versions=True) == [("data", 1, False), ("data", 2, True)]
    assert bob.does(tracker.FindShare("lab", "data")).row.content == content_id("two")
    assert bob.does(tracker.FindShare("lab", "data", 1)).row.content == content_id("one")
    assert bob.is_refused(tracker.FindShare("lab", "data", 3)) is Code.UNKNOWN_SHARE
    event = alice.harness.events_of("lab")[-1]
    assert isinstance(event, events.Shared)
    assert (event.version, event.content) == (2, content_id("two"))
    assert [row.version for row in alice.does(tracker.MyOffers()).rows] == [1, 2]


def test_h100_fetching_a_file_gives_no_right_to_its_name(
    alice: Device, bob: Device, carol: Device
) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    bob.offers("lab", "data", content_id("one"))
    for command in (
        tracker.Offer("lab", "data", bob.harness.content("evil"), True),
        tracker.Offer("lab", "data", content_id("evil"), True, 2),
        tracker.Offer("lab", "data", content_id("evil"), False, 1),
        tracker.Offer("lab", "data", content_id("evil"), False, 2),
        tracker.Offer("lab", "DATA", content_id("evil"), True),
    ):
        assert bob.is_refused(command) is Code.TAKEN
    assert bob.is_refused(tracker.Withdraw("lab", "data")) is Code.NOT_OWNER
    alice.does(tracker.StopShare("lab", "data"))
    assert bob.is_refused(tracker.Offer("lab", "data", content_id("evil"), True)) is Code.TAKEN
    assert replaces(carol, "data", "two").row.version == 2
    # The owner's version is the owner's: its former sharer follows no longer.
    assert alice.is_refused(tracker.Offer("lab", "data", content_id("evil"), True)) is Code.TAKEN


def test_h101_a_new_share_never_looks_like_a_version_of_another(alice: Device, bob: Device) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    for name in ("data@2", "data@1", "data@0", "data@02 ", "@7"):
        for version in (0, 1):
            command = tracker.Offer("lab", name, bob.harness.content("evil"), False, version)
            assert bob.is_refused(command) is Code.USAGE
    bob.offers("lab", "data@v2", content_id("evil"))


def test_h102_a_withdrawn_version_is_not_offered_again(
    alice: Device, bob: Device, carol: Device
) -> None:
    """Neither by a device that was away, nor after the name is shared anew."""
    alice.offers("lab", "data", alice.harness.content("one"))
    replaces(alice, "data", "two")
    bob.offers("lab", "data", content_id("two"))
    bob.comes()
    carol.does(tracker.Withdraw("lab", "data"))
    assert alice.harness.events_of("lab")[-1] == events.Withdrawn("carol", "data", 2, True)
    assert listed(bob, versions=True) == bob.does(tracker.MyOffers()).rows == []
    assert bob.is_refused(tracker.GetSources("lab", content_id("two"))) is Code.UNKNOWN_SHARE
    for version, text in ((1, "one"), (2, "two")):
        again = tracker.Offer("lab", "data", bob.harness.content(text), False, version)
        assert bob.is_refused(again) is Code.WITHDRAWN
    # The name is free, and its numbers go on.
    assert bob.offers("lab", "data", bob.harness.content("three")).row.version == 3
    assert bob.is_refused(again) is Code.WITHDRAWN


def test_one_version_is_withdrawn_by_its_sharer(alice: Device, bob: Device, carol: Device) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    replaces(carol, "data", "two")
    assert bob.is_refused(tracker.Withdraw("lab", "data", 1)) is Code.NOT_OWNER
    assert alice.is_refused(tracker.Withdraw("lab", "data")) is Code.NOT_OWNER
    alice.does(tracker.Withdraw("lab", "data", 1))
    assert alice.harness.events_of("lab")[-1] == events.Withdrawn("alice", "data", 1, False)
    assert listed(bob, versions=True) == [("data", 2, True)]
    assert alice.is_refused(tracker.Withdraw("lab", "data", 1)) is Code.UNKNOWN_SHARE
    again = tracker.Offer("lab", "data", content_id("one"), False, 1)
    assert alice.is_refused(again) is Code.WITHDRAWN
    # The name without a current version resolves to none of the earlier ones.
    replaces(carol, "data", "three")
    carol.does(tracker.Withdraw("lab", "data", 3))
    assert listed(bob) == []
    refusal = bob.asks(tracker.FindShare("lab", "data"))
    assert isinstance(refusal, Refusal)
    assert "download-file lab data@2" in str(refusal.hint)
    assert replaces(carol, "data", "two").row.version == 4


def test_h103_one_of_two_devices_that_replace_at_once_is_refused(alice: Device) -> None:
    phone = alice.harness.user("alice", "phone")
    alice.offers("lab", "data", alice.harness.content("one"))
    replaces(alice, "data", "two", 2)
    late = tracker.Offer("lab", "data", alice.harness.content("three"), True, 2)
    assert phone.is_refused(late) is Code.CHANGED
    # The same command again after a lost reply, and the same content from elsewhere, are no race.
    before = len(alice.harness.changes)
    assert replaces(alice, "data", "two", 2).row.version == 2
    assert len(alice.harness.changes) == before
    assert replaces(phone, "data", "two", 2).row.version == 2
    assert replaces(phone, "data", "three", 3).row.version == 3


def test_a_version_is_offered_again_by_devices_that_hold_it(alice: Device, bob: Device) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    replaces(alice, "data", "two")
    alice.does(tracker.StopShare("lab", "data", 1))
    assert listed(bob, versions=True) == [("data", 2, True)]
    assert not holds(bob, "data", "one", 1).row.current
    assert listed(bob, versions=True) == [("data", 1, False), ("data", 2, True)]
    alice.does(tracker.StopShare("lab", "data"))
    # The counter stays while the name has an offer, and the current version comes back.
    assert listed(bob) == []
    assert holds(alice, "data", "two", 2).row.current
    assert listed(bob) == [("data", 2, True)]


def test_a_name_without_offers_is_free(alice: Device, bob: Device) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    replaces(alice, "data", "two")
    alice.does(tracker.StopShare("lab", "data"))
    assert bob.offers("lab", "Data", bob.harness.content("other")).row.version == 1
    assert bob.harness.state.groups["lab"].names.by_id["data"].text == "Data"  # type: ignore[index]


def test_a_content_may_be_two_versions(alice: Device, bob: Device) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    replaces(alice, "data", "two")
    assert replaces(alice, "data", "one").row.version == 3
    alice.does(tracker.Withdraw("lab", "data", 1))
    assert bob.does(tracker.FindShare("lab", "data")).row.content == content_id("one")


def test_f100_a_tracker_from_a_backup_learns_the_later_versions(alice: Device, bob: Device) -> None:
    """From devices of users who may replace; then from the others."""
    alice.offers("lab", "data", alice.harness.content("one"))
    later = tracker.Offer("lab", "data", bob.harness.content("three"), False, 3)
    assert bob.is_refused(later) is Code.TAKEN
    assert holds(alice, "data", "three", 3).row.current
    assert bob.does(later).row.version == 3
    for number in (4 + limits.VERSIONS_AHEAD_MAX, limits.VERSION_MAX):
        far = tracker.Offer("lab", "data", alice.harness.content("far"), False, number)
        assert alice.is_refused(far) is Code.LIMIT


def test_h104_versions_of_a_name_are_bounded(
    alice: Device, bob: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "VERSIONS_PER_NAME_MAX", 3)
    monkeypatch.setattr(limits, "NAMES_WITHDRAWN_MAX", 2)
    alice.offers("lab", "data", alice.harness.content("1"))
    bob.offers("lab", "data", content_id("1"))
    bob.comes()
    for number in range(2, 7):
        replaces(alice, "data", f"{number}")
    assert [version for _, version, _ in listed(bob, versions=True)] == [4, 5, 6]
    assert bob.does(tracker.MyOffers()).rows == []
    assert bob.is_refused(tracker.GetSources("lab", content_id("1"))) is Code.UNKNOWN_SHARE
    state, lab = alice.harness.state, alice.harness.state.groups["lab"]  # type: ignore[index]
    assert len(lab.names.by_id["data"].versions) == 3  # type: ignore[index]
    # A full group takes a new version in the place of an old one.
    monkeypatch.setattr(limits, "SHARES_PER_GROUP_MAX", 3)
    replaces(alice, "data", "7")
    assert [version for _, version, _ in listed(bob, versions=True)] == [5, 6, 7]
    monkeypatch.undo()
    monkeypatch.setattr(limits, "NAMES_WITHDRAWN_MAX", 2)
    for number in range(5):
        alice.offers("lab", f"n{number}", alice.harness.content("n"))
        alice.does(tracker.StopShare("lab", f"n{number}"))
        alice.offers("lab", f"w{number}", alice.harness.content("w"))
        alice.does(tracker.Withdraw("lab", f"w{number}"))
    assert set(lab.names.by_id) == {"data", "w3", "w4"}
    alice.harness.decide(Caller(b""), commands.Housekeep())  # type: ignore[arg-type]
    assert state.holdings.offers[UserId("alice")] == 3


def test_a_later_account_of_the_same_name_has_no_right(alice: Device) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    accounts = alice.harness.state.accounts
    again = accounts[UserId("alice")].__class__(UserId("alice"), "hash of secret", 1 << 50)
    accounts[UserId("alice")] = again
    command = tracker.Offer("lab", "data", alice.harness.content("two"), True)
    assert alice.is_refused(command) is Code.TAKEN


def test_versions_come_in_pages(alice: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a"):
        alice.offers("lab", name, alice.harness.content("1"))
        for number in range(2, 13):
            replaces(alice, name, f"{number}")
    whole = listed(alice, versions=True)
    assert whole == [(name, k, k == 12) for name in "ab" for k in range(1, 13)]
    rows = alice.does(tracker.ListFiles("lab", "a@11", True)).rows
    assert [(row.name, row.version, row.current) for row in rows] == whole[11:]


@pytest.mark.parametrize(
    ("text", "split"),
    [
        ("film@2", ("film", 2)),
        ("film", ("film", 0)),
        ("film@0", ("film@0", 0)),
        ("film@02", ("film@02", 0)),
        ("a@b@12", ("a@b", 12)),
        ("@3", ("@3", 0)),
        ("film@", ("film@", 0)),
        ("film@2000000000", ("film@2000000000", 0)),
        ("film@\u0662", ("film@\u0662", 0)),
        ("two\nlines@3", ("two\nlines", 3)),
    ],
)
def test_a_version_is_split_from_a_name_in_one_place(text: str, split: tuple[str, int]) -> None:
    assert split_version(text) == split


def test_the_right_to_a_name_survives_leaving_and_coming_back(
    alice: Device, bob: Device, carol: Device
) -> None:
    alice.offers("lab", "data", alice.harness.content("one"))
    bob.offers("lab", "data", content_id("one"))
    alice.does(tracker.LeaveGroup("lab"))
    with pytest.raises(AssertionError):
        replaces(alice, "data", "two")
    alice.does(tracker.JoinGroup("lab"))
    carol.does(tracker.AcceptRequest("lab", "alice"))
    assert replaces(alice, "data", "two").row.version == 2
    # Ownership moves with the group.
    carol.does(tracker.LeaveGroup("lab"))
    assert replaces(alice, "data", "three").row.version == 3


def test_h143_versions_give_a_member_no_more_places_than_shares_do(
    alice: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version of a full name takes a place of the group, unless an offered one makes room."""
    monkeypatch.setattr(limits, "VERSIONS_PER_NAME_MAX", 3)
    monkeypatch.setattr(limits, "SHARES_PER_GROUP_MAX", 8)
    alice.offers("lab", "data", alice.harness.content("1"))
    replaces(alice, "data", "2")
    replaces(alice, "data", "3")
    for version in (1, 2):  # on record, and not offered
        alice.does(tracker.StopShare("lab", "data", version))
    for number in range(5):
        alice.offers("lab", f"more {number}", alice.harness.content(f"more {number}"))
    another = tracker.Offer("lab", "another", alice.harness.content("another"))
    assert alice.is_refused(another) is Code.LIMIT
    next_one = tracker.Offer("lab", "data", alice.harness.content("4"), True)
    assert alice.is_refused(next_one) is Code.LIMIT
    assert len(listed(alice, versions=True)) == 6
    alice.does(tracker.StopShare("lab", "more 0"))
    assert alice.does(next_one).row.version == 4


def test_h148_a_counter_is_not_used_up_at_once() -> None:
    """Each leap of a counter takes two entries of a user's budget: hours pass before its end."""
    leaps = limits.VERSION_MAX // limits.VERSIONS_AHEAD_MAX
    assert 2 * leaps > limits.ENTRIES_BURST + 10 * 3_600 * limits.ENTRIES_RATE
