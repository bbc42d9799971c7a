from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from common import limits
from common.crypto.event_seal import share_topic
from common.ids import UserId
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.tracker_harness import TrackerHarness, content_id
from tracker.core import commands, groups, shares
from tracker.core.context import Caller, ReadPart, TakePart
from tracker.core.share_names import NameId, ShareId
from tracker.core.unshared_manifests import ROW_BYTES


def names(harness: TrackerHarness, group: str) -> list[str]:
    return sorted(share.name for share in harness.state.groups[group].shares.values())


def test_the_first_offer_shares_and_the_next_one_joins(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    data = harness.content("data", size=77)
    alice.comes()
    first = alice.offers("lab", "data.bin", data)
    assert not first.joined
    assert (first.row.size, first.row.seeders, first.row.shared_by) == (77, 1, ["alice"])
    second = bob.offers("lab", "data.bin", data)
    assert second.joined
    assert second.row.shared_by == ["alice", "bob"]
    assert harness.events_of("lab")[-2:] == [
        events.Shared("alice", "data.bin", data, 77, 1, "blake3", b"d" * 32),
        events.Seeding("bob", "data.bin", data),
    ]


def test_an_offer_without_a_manifest_is_refused_with_need_manifest(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    unknown = tracker.Offer("lab", "data.bin", content_id("data"))
    assert alice.is_refused(unknown) is Code.NEED_MANIFEST
    harness.content("data")
    alice.does(unknown)


def test_offering_again_changes_nothing(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    data = harness.content("data")
    first = alice.offers("lab", "data.bin", data)
    before = len(harness.changes)
    assert alice.offers("lab", "data.bin", data) == first
    assert len(harness.changes) == before


def test_a_second_device_of_the_same_user_adds_no_entry(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    data = harness.content("data")
    alice.offers("lab", "data.bin", data)
    phone = harness.user("alice", "phone")
    before = harness.events_of("lab")
    assert not phone.offers("lab", "data.bin", data).joined
    phone.does(tracker.StopShare("lab", "data.bin"))
    assert harness.events_of("lab") == before
    assert names(harness, "lab") == ["data.bin"]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("data.bin", "DATA.BIN"),
        ("data", "data "),
        ("caf\u00e9", "cafe\u0301"),
        ("stra\u00dfe", "STRASSE"),
    ],
)
def test_names_that_differ_only_in_case_or_composition_are_refused(
    harness: TrackerHarness, name: str, other: str
) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    data = harness.content("data")
    alice.offers("lab", name, data)
    assert alice.is_refused(tracker.Offer("lab", other, data)) is Code.TAKEN
    # Asked for, either spelling finds it.
    assert alice.does(tracker.FindShare("lab", other)).row.name == name


def test_a_name_has_one_content_in_a_group(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    harness.group("club", alice)
    alice.offers("lab", "data.bin", harness.content("one"))
    assert alice.is_refused(tracker.Offer("lab", "data.bin", harness.content("two"))) is Code.TAKEN
    alice.offers("club", "data.bin", harness.content("two"))


@pytest.mark.parametrize("name", ["..", "a/b", "a\0b", ".. ", "x" * 255 + "ä", "a\u202eb", " "])
def test_h28_names_that_could_do_harm_are_refused(harness: TrackerHarness, name: str) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    assert alice.is_refused(tracker.Offer("lab", name, harness.content("x"))) is Code.USAGE


def test_a_share_ends_with_its_last_offer(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    data = harness.content("data")
    for each in (alice, bob):
        each.offers("lab", "data.bin", data)
    alice.does(tracker.StopShare("lab", "DATA.bin"))
    assert names(harness, "lab") == ["data.bin"]
    assert alice.is_refused(tracker.StopShare("lab", "data.bin")) is Code.UNKNOWN_SHARE
    bob.does(tracker.StopShare("lab", "data.bin"))
    assert names(harness, "lab") == []
    assert bob.is_refused(tracker.FindShare("lab", "data.bin")) is Code.UNKNOWN_SHARE
    assert harness.events_of("lab")[-2:] == [
        events.Stopped("alice", "data.bin", data),
        events.Unshared("bob", "data.bin", data),
    ]


def test_leaving_ends_all_offers_in_that_group_only(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    for group in ("lab", "club"):
        harness.group(group, alice, bob)
        bob.offers(group, "one", harness.content("one"))
    alice.offers("lab", "one", harness.content("one"))
    bob.offers("lab", "two", harness.content("two"))
    bob.does(tracker.LeaveGroup("lab"))
    assert names(harness, "lab") == ["one"]
    assert names(harness, "club") == ["one"]
    assert [type(event).__name__ for event in harness.events_of("lab")[-3:]] == [
        "Left",
        "Stopped",
        "Unshared",
    ]
    assert [row.group for row in bob.does(tracker.MyOffers()).rows] == ["club"]


def test_offers_outlast_a_logout(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.offers("lab", "data", harness.content("data"))
    alice.comes()
    assert bob.does(tracker.ListFiles("lab")).rows[0].seeders == 1
    alice.does(tracker.Logout())
    [row] = bob.does(tracker.ListFiles("lab")).rows
    assert (row.seeders, row.shared_by) == (0, ["alice"])
    alice.enters("alice")
    alice.comes()
    assert bob.does(tracker.ListFiles("lab")).rows[0].seeders == 1


def test_a_row_of_changes_that_are_taken_back_is_not_kept(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    content = harness.content("data")
    alice.offers("lab", "data", content)
    before = alice.does(tracker.ListFiles("lab"))
    harness.state.begin()
    bob.offers("lab", "data", content)
    assert alice.does(tracker.ListFiles("lab")).rows[0].shared_by == ["alice", "bob"]
    harness.state.take_back()
    assert alice.does(tracker.ListFiles("lab")) == before
    bob.offers("lab", "data", content)
    alice.does(tracker.StopShare("lab", "data"))
    assert alice.does(tracker.ListFiles("lab")).rows[0].shared_by == ["bob"]


def test_offers_of_another_user_on_this_device_are_not_listed(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.offers("lab", "data", harness.content("data"))
    alice.enters("bob")
    alice.comes()
    assert alice.does(tracker.MyOffers()).rows == []
    assert bob.does(tracker.ListFiles("lab")).rows[0].seeders == 0


def test_find_share_returns_all_that_fetching_needs(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    data = harness.content("data")
    alice.offers("lab", "data", data)
    alice.comes("tcp://192.0.2.1:9")
    found = bob.does(tracker.FindShare("lab", "data"))
    assert found.topic == share_topic(harness.state.groups["lab"].topic, data)
    assert found.manifest_bytes == 200
    assert [source.endpoint for source in found.sources] == ["tcp://192.0.2.1:9"]
    assert alice.does(tracker.FindShare("lab", "data")).sources == []
    assert bob.does(tracker.GetManifest("lab", data, 5)) == ReadPart(data, 5, 200)
    assert bob.is_refused(tracker.GetManifest("lab", data, 200)) is Code.USAGE


def test_a_manifest_is_for_members_of_a_group_where_it_is_shared(harness: TrackerHarness) -> None:
    alice, eve = harness.user("alice"), harness.user("eve")
    harness.group("lab", alice)
    harness.group("eves", eve)
    data = harness.content("data")
    alice.offers("lab", "data", data)
    assert eve.is_refused(tracker.GetManifest("eves", data)) is Code.UNKNOWN_SHARE
    assert eve.is_refused(tracker.GetSources("eves", data)) is Code.UNKNOWN_SHARE


def test_a_manifest_is_sent_once_and_dropped_after_its_last_share(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    part = tracker.PutManifest(content_id("data"), 200, 0)
    assert alice.does(part) == TakePart(UserId("alice"), content_id("data"), 200, 0)
    data = harness.content("data")
    assert alice.does(part) == tracker.Done()
    alice.offers("lab", "data", data)
    harness.wait(limits.UNSHARED_MANIFEST_LIFE_S * 2)
    harness.decide(Caller(b""), commands.Housekeep())
    assert data in harness.state.manifests
    alice.does(tracker.StopShare("lab", "data"))
    harness.wait(limits.UNSHARED_MANIFEST_LIFE_S - 1)
    harness.decide(Caller(b""), commands.Housekeep())
    assert data in harness.state.manifests
    harness.wait(2)
    harness.decide(Caller(b""), commands.Housekeep())
    assert not harness.state.manifests
    assert (len(harness.state.unshared_manifests), harness.state.unshared_manifests.bytes) == (0, 0)


def test_offering_an_edited_file_hints_to_replace_the_former_share(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice, bob)
    alice.offers("lab", "my data", harness.content("before"))
    harness.content("after")
    for device, hint in ((alice, "--replace --name 'my data'"), (bob, "--name NAME")):
        refusal = device.asks(tracker.Offer("lab", "my data", content_id("after")))
        assert isinstance(refusal, Refusal)
        assert refusal.code is Code.TAKEN
        assert hint in str(refusal.hint)


def test_offers_of_lost_devices_are_stopped_from_another_device(harness: TrackerHarness) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    phone, laptop = harness.user("alice", "phone"), harness.user("alice", "laptop")
    harness.group("lab", alice, bob)
    for device in (phone, laptop):
        device.offers("lab", "data", harness.content("data"))
    phone.does(tracker.Logout())
    # The laptop can say for itself what it offers; the phone no longer can.
    assert bob.is_refused(tracker.StopShare("lab", "data")) is Code.UNKNOWN_SHARE
    alice.does(tracker.StopShare("lab", "data"))
    assert list(harness.state.groups["lab"].shares[ShareId(NameId("data"), 1)].offers) == [
        ("alice", laptop.key)
    ]
    assert alice.is_refused(tracker.StopShare("lab", "data")) is Code.UNKNOWN_SHARE
    laptop.enters("bob")
    alice.does(tracker.StopShare("lab", "data"))
    assert harness.events_of("lab")[-1] == events.Unshared("alice", "data", content_id("data"))
    assert alice.does(tracker.ListFiles("lab")).rows == []


def test_unshared_manifests_take_bounded_space(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = harness.user("alice")
    harness.content("data")
    monkeypatch.setattr(limits, "UNSHARED_MANIFEST_BYTES_MAX", 1_000)
    assert alice.is_refused(tracker.PutManifest(content_id("more"), 200, 0)) is Code.BUSY


def test_h45_no_user_takes_all_the_space_of_unshared_manifests(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve, alice, bob = harness.user("eve"), harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    each = 200 + ROW_BYTES
    monkeypatch.setattr(limits, "UNSHARED_MANIFEST_BYTES_MAX", 5 * each)
    alice.offers("lab", "old", harness.content("old", shown_to=alice))
    alice.does(tracker.StopShare("lab", "old"))
    for text in "abcd":
        harness.content(text, shown_to=eve)
    hers = [content_id(text) for text in "abcd"]
    # What was left behind goes first, then hers, the oldest first; never another's.
    bobs = harness.content("bobs", shown_to=bob)
    assert not [gone for gone in [*hers, bobs] if gone not in harness.state.manifests]
    assert content_id("old") not in harness.state.manifests
    alices = harness.content("alices", shown_to=alice)
    assert [gone for gone in hers if gone not in harness.state.manifests] == hers[:1]
    assert eve.is_refused(tracker.PutManifest(content_id("more"), 200, 0)) is Code.BUSY
    harness.content("more", shown_to=eve)
    assert alices in harness.state.manifests
    assert bobs in harness.state.manifests
    # What is shared takes none of the room.
    alice.offers("lab", "new", alices)
    assert harness.state.unshared_manifests.bytes == 4 * each


def test_h56_full_manifest_space_does_not_tell_which_contents_are_known(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    eve, alice = harness.user("eve"), harness.user("alice")
    harness.group("lab", alice)
    alice.offers("lab", "secret", harness.content("secret", shown_to=alice))
    monkeypatch.setattr(limits, "UNSHARED_MANIFEST_BYTES_MAX", 200 + ROW_BYTES)
    harness.content("eve's own", shown_to=eve)
    for text in ("secret", "unheard of"):
        assert eve.is_refused(tracker.PutManifest(content_id(text), 200, 0)) is Code.BUSY


@pytest.mark.parametrize("limit", ["SHARES_PER_GROUP_MAX", "OFFERS_PER_DEVICE_MAX"])
def test_shares_and_offers_are_bounded(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    alice.offers("lab", "one", harness.content("one"))
    monkeypatch.setattr(limits, limit, 1)
    assert alice.is_refused(tracker.Offer("lab", "two", harness.content("two"))) is Code.LIMIT
    alice.offers("lab", "one", harness.content("one"))


def test_files_come_in_pages_in_one_order(
    harness: TrackerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = harness.user("alice")
    harness.group("lab", alice)
    wanted = ["Äpfel", "b.txt", "Zoo", "a.txt"]
    for name in wanted:
        alice.offers("lab", name, harness.content(name))
    rows = alice.does(tracker.ListFiles("lab")).rows
    assert sorted(row.name for row in rows) == sorted(wanted)
    for at, row in enumerate(rows):
        assert alice.does(tracker.ListFiles("lab", row.name)).rows == rows[at + 1 :]


def test_own_offers_come_in_pages_in_one_order(harness: TrackerHarness) -> None:
    alice = harness.user("alice")
    for group in ("b", "a-b", "a"):
        harness.group(group, alice)
        for name in ("Zoo", "Äpfel", "b.txt"):
            alice.offers(group, name, harness.content(name))
    rows = alice.does(tracker.MyOffers()).rows
    assert [row.group for row in rows] == ["a"] * 3 + ["a-b"] * 3 + ["b"] * 3
    for at, row in enumerate(rows):
        assert alice.does(tracker.MyOffers(f"{row.group}/{row.name}@1")).rows == rows[at + 1 :]
    alice.does(tracker.StopShare("a", "zoo"))
    alice.does(tracker.LeaveGroup("a-b"))
    left = alice.does(tracker.MyOffers()).rows
    assert [row for row in rows if row in left] == left
    assert len(left) == 5


@pytest.mark.parametrize(
    "query", [tracker.MyOffers(), tracker.ListFiles("lab"), tracker.ListGroups()]
)
def test_h54_the_cost_of_a_page_does_not_grow_with_the_list(
    harness: TrackerHarness, query: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page sorts nothing, whatever the length of the list."""
    alice = harness.user("alice")
    harness.group("lab", alice)
    data = harness.content("data")
    for number in range(40):
        alice.offers("lab", f"{number}", data)
        harness.user(f"u{number}").does(tracker.CreateGroup(f"g{number}"))
    ordered: list[int] = []

    def counting(rows: Iterable[Any], **options: Any) -> list[Any]:
        found = sorted(rows, **options)
        ordered.append(len(found))
        return found

    for module in (shares, groups):
        monkeypatch.setattr(module, "sorted", counting, raising=False)
    monkeypatch.setattr(tracker, "PAGE_ROWS", 4)
    assert alice.does(query).rows
    assert sum(ordered) <= 4


def test_h48_a_content_id_alone_tells_nothing_more_about_it(
    harness: TrackerHarness,
) -> None:
    alice, bob = harness.user("alice"), harness.user("bob")
    harness.group("lab", alice)
    mine = harness.group("mine", bob)
    secret = content_id("salaries")
    offer = tracker.Offer(mine, "x", secret)
    before = bob.is_refused(offer)
    alice.offers("lab", "salaries", harness.content("salaries", shown_to=alice))
    assert bob.is_refused(offer) is before is Code.NEED_MANIFEST
    # Not even the first part of it is known: all of it has to be sent.
    part = bob.decision(tracker.PutManifest(secret, 200, 0))
    assert isinstance(part.deferred, TakePart)
    harness.shows(UserId("bob"), secret)
    bob.does(offer)
    # In a group in which it is shared every member may have it anyway.
    alice.does(tracker.JoinGroup(mine))
    bob.does(tracker.AcceptRequest(mine, "alice"))
    carol = harness.user("carol")
    carol.does(tracker.JoinGroup(mine))
    bob.does(tracker.AcceptRequest(mine, "carol"))
    carol.does(tracker.Offer(mine, "x", secret))
