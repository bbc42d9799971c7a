"""A tracker whose rows lie, or never end: what a peer writes, tells and keeps of it."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from common import limits
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.fake_tracker import KEY, TOPIC, Answer, FakeTracker, parts, row_of
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import manifest_of
from tests.support.waiting import wait_for

Deceived = Callable[[dict[type, Answer]], Person]
ENCODED = manifest_of(b"")
ENDLESS_MIB = 60
"""Growth that a peer may show while a tracker never ends a listing."""


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    made = Swarm("tcp", tracker=False)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def deceived(swarm: Swarm) -> Iterator[Deceived]:
    """Makes a peer that trusts a tracker with the answers that are given."""
    with contextlib.ExitStack() as stack:

        def make(answers: dict[type, Answer]) -> Person:
            fake = FakeTracker(answers)
            stack.callback(fake.end)
            bob = Person(swarm, "bob")
            bob.up(tracker=fake.at.link)
            stack.callback(bob.down)
            wait_for(lambda: bob.status()["connected"], "the deceived peer's link")
            return bob

        yield make


def finding(row: tracker.FileRow, encoded: bytes = ENCODED) -> dict[type, Answer]:
    """A tracker that finds ``row`` whatever it is asked for."""
    return {
        tracker.FindShare: lambda _: tracker.ShareFound(row, TOPIC, len(encoded), []),
        tracker.GetManifest: parts(encoded),
        tracker.GetSources: lambda _: tracker.Sources([]),
        tracker.Offer: lambda command: tracker.Offered(row_of(command.name, ENCODED), False),
    }


@pytest.mark.parametrize("told", [".bashrc", "plain.txt2", "plain", "run.sh", "authorized_keys"])
def test_h60_another_file_than_was_asked_for_is_not_written(deceived: Deceived, told: str) -> None:
    bob = deceived(finding(row_of(told, ENCODED)))
    folder = bob.swarm.folder()
    for dest in (folder, folder / "named"):
        said = bob.refused("download-file", "lab", "plain.txt", dest, code=5)
        assert "another name" in said
        assert list(folder.iterdir()) == []
    assert bob.downloads() == {}


def test_h60_a_file_bears_the_name_that_was_asked_for(deceived: Deceived) -> None:
    bob = deceived(finding(row_of("PLAIN.txt", ENCODED)))
    folder = bob.swarm.folder()
    bob.ok("download-file", "lab", "plain.TXT", folder)
    assert [path.name for path in folder.iterdir()] == ["plain.TXT"]


LIES: dict[str, dict[str, Any]] = {
    "size": {"size": 1 << 40},
    "files": {"files": 7},
    "pieces": {"pieces": 9},
    "piece length": {"piece_length": 1 << 22},
    "algorithm": {"algorithm": "sha256"},
    "digest": {"digest": b"x" * 32},
    "kind": {"folder": True},
}


@pytest.mark.parametrize("which", LIES)
def test_h60_a_row_that_contradicts_the_manifest_is_refused(deceived: Deceived, which: str) -> None:
    bob = deceived(finding(replace(row_of("a.bin", ENCODED), **LIES[which])))
    folder = bob.swarm.folder()
    said = bob.refused("download-file", "lab", "a.bin", folder, code=5)
    assert which in said
    assert list(folder.iterdir()) == []
    assert bob.downloads() == {}


@pytest.mark.parametrize(
    "lie", [{"name": "other.bin"}, {"content": b"c" * 32}, {"size": 7}, {"digest": b"x" * 32}]
)
def test_h60_nor_is_anything_shared_as_another_thing(
    deceived: Deceived, lie: dict[str, Any]
) -> None:
    bob = deceived({})
    file = bob.swarm.folder() / "a.bin"
    file.write_bytes(b"")
    withdrawn = []
    fake_row = replace(row_of("a.bin", ENCODED), **lie)
    fake = FakeTracker(
        {
            tracker.FindShare: lambda _: Refusal(Code.UNKNOWN_SHARE, "nothing of that name"),
            tracker.Offer: lambda _: tracker.Offered(fake_row, False),
            tracker.StopShare: lambda command: withdrawn.append(command.name) or tracker.Done(),
        }
    )
    try:
        eve = Person(bob.swarm, "eve")
        eve.up(tracker=fake.at.link)
        try:
            eve.refused("upload-file", "--no-times", file, "lab", code=5)
            assert eve.status()["shares"] == 0
        finally:
            eve.down()
    finally:
        fake.end()


def test_h60_a_login_answered_for_another_user_is_refused(deceived: Deceived) -> None:
    bob = deceived({tracker.Login: lambda _: tracker.LoggedIn("root")})
    said = bob.refused("login", "bob", "a password", code=5)
    assert "another user" in said


def test_h60_a_time_that_cannot_be_written_is_shown_as_the_last_one(deceived: Deceived) -> None:
    row = tracker.UserRow("anna", "member", (1 << 53) - 1)
    bob = deceived({tracker.ListMembers: lambda _: tracker.UserRows([row])})
    assert bob.json("list-members", "lab")[0]["since"].startswith("9999-12-31")


# -- listings that do not end -------------------------------------------------------------------


def numbered(command: Any, made: Callable[[int], Any], page: type) -> Any:
    """A full page of rows that grow for ever."""
    counter = COUNTERS.setdefault(type(command), itertools.count(1))
    return page([made(next(counter)) for _ in range(tracker.PAGE_ROWS)], more=True)


COUNTERS: dict[type, Iterator[int]] = {}


def _file(n: int) -> tracker.FileRow:
    return replace(row_of(f"file{n:09d}", ENCODED), content=n.to_bytes(32, "big"))


GROWING: dict[str, tuple[tuple[str, ...], type, Answer]] = {
    "groups": (
        ("list-groups",),
        tracker.ListGroups,
        lambda command: numbered(
            command, lambda n: tracker.GroupRow(f"g{n:09d}", "eve", 1, "none"), tracker.GroupRows
        ),
    ),
    "files": (
        ("list-files", "lab"),
        tracker.ListFiles,
        lambda command: numbered(command, _file, tracker.FileRows),
    ),
    "members": (
        ("list-members", "lab"),
        tracker.ListMembers,
        lambda command: numbered(
            command, lambda n: tracker.UserRow(f"u{n:09d}", "member", 1), tracker.UserRows
        ),
    ),
    "requests": (
        ("list-requests", "lab"),
        tracker.ListRequests,
        lambda command: numbered(
            command, lambda n: tracker.UserRow(f"u{n:09d}", "pending", 1), tracker.UserRows
        ),
    ),
    "devices": (
        ("list-devices",),
        tracker.ListDevices,
        lambda command: numbered(
            command, lambda n: tracker.OwnDevice(n.to_bytes(32, "big"), 1, 1), tracker.OwnDevices
        ),
    ),
}
SAME: dict[type, Answer] = {
    tracker.ListGroups: lambda _: tracker.GroupRows(
        [tracker.GroupRow("lab", "eve", 1, "none")], True
    ),
    tracker.ListFiles: lambda _: tracker.FileRows([row_of("a", ENCODED)], True),
    tracker.ListMembers: lambda _: tracker.UserRows([tracker.UserRow("u", "member", 1)], True),
    tracker.ListRequests: lambda _: tracker.UserRows([tracker.UserRow("u", "pending", 1)], True),
    tracker.ListDevices: lambda _: tracker.OwnDevices([tracker.OwnDevice(b"d" * 32, 1, 1)], True),
}


@pytest.fixture(scope="module")
def flooded(swarm: Swarm) -> Iterator[Person]:
    """A peer of a tracker whose listings grow for ever."""
    fake = FakeTracker({kind: answer for _, kind, answer in GROWING.values()})
    bob = Person(swarm, "bob")
    try:
        bob.up(tracker=fake.at.link)
        wait_for(lambda: bob.status()["connected"], "the peer's link")
        yield bob
        bob.down()
    finally:
        fake.end()


@pytest.mark.parametrize("which", GROWING)
def test_h61_a_listing_without_end_ends(flooded: Person, which: str) -> None:
    before = _resident_mib(flooded.pid)
    said = flooded.refused(*GROWING[which][0])
    assert "rows, the most allowed" in said
    assert _resident_mib(flooded.pid) - before < ENDLESS_MIB


def test_h61_pages_that_repeat_themselves_end(deceived: Deceived) -> None:
    bob = deceived(SAME)
    for words, _, _ in GROWING.values():
        assert "not in order" in bob.refused(*words)


@pytest.mark.parametrize("grows", [True, False])
def test_h61_nor_do_devices_and_offers_without_end_fill_a_peer(
    deceived: Deceived, *, grows: bool
) -> None:
    asked = {"devices": 0, "offers": 0}

    def devices(command: tracker.GetDevices) -> tracker.DeviceRows:
        asked["devices"] += 1
        first = int(command.after, 16) if command.after and grows else 0
        keys = range(first + 1, first + 1 + tracker.PAGE_ROWS)
        rows = [tracker.DeviceRow(n.to_bytes(32, "big"), "eve") for n in keys]
        return tracker.DeviceRows(rows, 0, True)

    def offers(command: tracker.MyOffers) -> tracker.OfferRows:
        asked["offers"] += 1
        first = (
            int(command.after.removeprefix("lab/file").partition("@")[0])
            if command.after and grows
            else 0
        )
        numbers = range(first + 1, first + 1 + tracker.PAGE_ROWS)
        return tracker.OfferRows(
            [tracker.OfferRow("lab", f"file{n:09d}", b"c" * 32) for n in numbers], True
        )

    bob = deceived({tracker.GetDevices: devices, tracker.MyOffers: offers})
    before = _resident_mib(bob.pid)
    most = -(-limits.DEVICES_PER_GROUP_MAX // tracker.PAGE_ROWS)
    wait_for(lambda: asked["devices"] > (most if grows else 1), "the pages of devices")
    assert bob.status()["connected"]
    assert _resident_mib(bob.pid) - before < ENDLESS_MIB


def test_h61_more_groups_than_a_user_may_be_in_are_not_followed(deceived: Deceived) -> None:
    def follow(_: tracker.Follow) -> tracker.Following:
        numbers = range(limits.GROUPS_PER_USER_MAX + 1)
        states = [
            tracker.GroupState(f"g{n}", "eve", 1, n.to_bytes(16, "big"), KEY, 0) for n in numbers
        ]
        return tracker.Following(states, 1)

    asked: list[Any] = []
    bob = deceived(
        {
            tracker.Follow: follow,
            tracker.GetDevices: lambda command: asked.append(command) or tracker.DeviceRows([], 0),
        }
    )
    assert "more than a user may be in" in bob.refused("create-group", "mine")
    assert asked == []


def _resident_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024
