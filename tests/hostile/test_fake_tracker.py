"""A tracker that is none, or that lies: what a peer believes of it, and what reaches the disk."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common import limits, manifest
from common.errors import RemoteProtocolError
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.attackers import AttackSwarm
from tests.support.fake_tracker import TOPIC, Answer, FakeTracker, found, parts
from tests.support.paths import CORPUS
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import manifest_of
from tests.support.waiting import wait_for

ESCAPES = (
    "\x1b[2J\x1b]0;owned\x07\r\n2026-01-01 FATAL forged\u202etxt.exe\x9b31m[red]x[/red]<script>"
)
HARMFUL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> None:
    """Whether a text moves no cursor, and colours, turns and breaks no line."""
    assert not HARMFUL.search(text), repr(text)
    assert not any(line.startswith("2026-01-01 FATAL") for line in text.splitlines())


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    made = Swarm("tcp", tracker=False)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def deceived(swarm: Swarm) -> Iterator[Callable[[dict[type, Answer]], Person]]:
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


def tree(folder: Path) -> list[str]:
    """All entries of a folder."""
    return sorted(
        os.path.relpath(Path(at) / n, folder) for at, d, f in os.walk(folder) for n in d + f
    )


def test_h39_a_fake_tracker_at_the_same_address_is_not_spoken_to() -> None:
    arena = AttackSwarm()
    try:
        endpoint = arena.at.endpoint
        arena.swarm.tracker.kill()
        fake = FakeTracker(endpoint=endpoint)
        try:
            wait_for(lambda: not arena.alice.status()["connected"], "the loss of the tracker")
            # It is at the door, and has nothing that opens it.
            said = arena.alice.refused("create-user", "zoe", "a password", code=4)
            assert "cannot be reached" in said
            assert fake.asked == []
        finally:
            fake.end()
        arena.swarm.tracker.start()
        wait_for(lambda: arena.alice.status()["connected"], "the true tracker's return")
    finally:
        arena.close()


BAD_MANIFESTS = {
    "another content's": (manifest_of(b"another"), 5),
    "cut short": (manifest_of(b"content")[:-1], 5),
    "with a byte more": (manifest_of(b"content") + b"\0", 5),
    "noise": (os.urandom(300), 5),
}


@pytest.mark.parametrize("which", BAD_MANIFESTS)
def test_h33_a_manifest_that_is_not_what_its_id_says_touches_no_disk(
    deceived: Callable[[dict[type, Answer]], Person], which: str
) -> None:
    encoded, code = BAD_MANIFESTS[which]
    bob = deceived(
        {
            tracker.FindShare: lambda _: found(
                "x.bin", manifest_of(b"content"), total=len(encoded)
            )(_),
            tracker.GetManifest: parts(encoded),
        }
    )
    folder = bob.swarm.folder()
    bob.refused("download-file", "lab", "x.bin", folder, code=code)
    assert tree(folder) == []
    assert list((bob.home / "downloads").iterdir()) == []


def _raw_manifest(entries: list[Any], *, length: int = 1 << 14, size: int | None = None) -> bytes:
    whole = sum(entry[1] for entry in entries) if size is None else size
    count = max(0, -(-whole // length)) if 0 < length < 1 << 30 and whole < 1 << 40 else 1
    digests = b"d" * (32 * min(count, 1000))
    return msgspec.msgpack.encode([1, "blake3", length, whole, b"d" * 32, digests, entries])


def evil_manifests() -> dict[str, bytes]:
    """Manifests whose id is right, and nothing else."""
    made = {
        "piece length 0": _raw_manifest([["", 5, 0]], length=0),
        "piece length -1": _raw_manifest([["", 5, 0]], length=-1),
        "piece length 2^40": _raw_manifest([["", 5, 0]], length=1 << 40),
        "size 2^63": _raw_manifest([["", (1 << 63) - 1, 0]]),
        "sizes that overflow": _raw_manifest([["a", (1 << 53) - 1, 0], ["b", (1 << 53) - 1, 0]]),
        "a negative size": _raw_manifest([["a", -5, 0], ["b", 10, 0]]),
        "a link": _raw_manifest([["a", 5, 3]]),
    }
    for line in (CORPUS / "bad_paths.jsonl").read_text().splitlines():
        row = json.loads(line)
        with contextlib.suppress(UnicodeEncodeError):
            made[f"path: {row['why']}"] = _raw_manifest([[row["path"], 5, 0], ["zzz", 1, 0]])
    return made


def test_h28_h32_no_manifest_leads_outside_or_takes_memory(
    deceived: Callable[[dict[type, Answer]], Person],
) -> None:
    evil = evil_manifests()
    assert len(evil) > 10
    current = b""
    bob = deceived(
        {
            tracker.FindShare: lambda command: found(command.name, current)(command),
            tracker.GetManifest: lambda command: parts(current)(command),
        }
    )
    outside = bob.swarm.folder()
    folder = outside / "inside"
    folder.mkdir()
    for why, current in evil.items():  # noqa: B007 - what the tracker answers
        said = bob.run("download-file", "lab", "x", folder)
        assert said.code in (1, 5), f"{why}: {said}"
        harmless(said.err)
        assert tree(outside) == ["inside"], why


def test_h32_a_manifest_without_end_is_not_fetched(
    deceived: Callable[[dict[type, Answer]], Person],
) -> None:
    asked = []

    def endless(command: tracker.GetManifest) -> Any:
        asked.append(command.offset)
        return tracker.ManifestPart((1 << 53) - 1, command.offset), bytes(
            limits.MANIFEST_PART_BYTES
        )

    bob = deceived(
        {
            tracker.FindShare: found("x", b"", content=b"c" * 32, total=(1 << 53) - 1),
            tracker.GetManifest: endless,
        }
    )
    bob.refused("download-file", "lab", "x", bob.swarm.folder(), code=5)
    assert asked == []


def test_h32_ten_million_entries_are_refused_before_memory_is_taken() -> None:
    count = 10_000_000
    head = msgspec.msgpack.encode([1, "blake3", 1 << 14, 0, b"d" * 32, b"", []])[:-1]
    encoded = head + b"\xdd" + count.to_bytes(4, "big") + b"\x93\xa0\x00\x00" * count
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match="malformed"):
            manifest.decode(encoded, manifest.manifest_id(encoded))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/evil", "a/b", "..", "a\0b", ".. ", "x\u202etxt.exe", "\x1b[2J", "..."],
)
def test_h28_the_name_of_a_share_leads_nowhere_else(
    deceived: Callable[[dict[type, Answer]], Person], name: str
) -> None:
    encoded = manifest_of(b"content")
    bob = deceived({tracker.FindShare: found(name, encoded), tracker.GetManifest: parts(encoded)})
    outside = bob.swarm.folder()
    folder = outside / "inside"
    folder.mkdir()
    said = bob.refused("download-file", "lab", "x", folder, code=5)
    harmless(said)
    assert tree(outside) == ["inside"]


def _row(text: str) -> tracker.FileRow:
    return tracker.FileRow(
        text[:255], b"c" * 32, 5, 1, 1, 1 << 14, text[:16], b"d" * 32, 1, 0, [text[:64]]
    )


LISTINGS: dict[tuple[str, ...], dict[type, Answer]] = {
    ("list-groups",): {
        tracker.ListGroups: lambda _: tracker.GroupRows(
            [tracker.GroupRow(ESCAPES[:64], ESCAPES[:64], 1, ESCAPES)]
        )
    },
    ("list-members", "lab"): {
        tracker.ListMembers: lambda _: tracker.UserRows([tracker.UserRow(ESCAPES[:64], ESCAPES, 1)])
    },
    ("list-requests", "lab"): {
        tracker.ListRequests: lambda _: tracker.UserRows(
            [tracker.UserRow(ESCAPES[:64], ESCAPES, 1)]
        )
    },
    ("list-files", "lab"): {tracker.ListFiles: lambda _: tracker.FileRows([_row(ESCAPES)])},
    ("join-group", "lab"): {
        tracker.JoinGroup: lambda _: Refusal(Code.LIMIT, ESCAPES, ESCAPES),
    },
    ("download-file", "lab", "x", "/nowhere/x"): {
        tracker.FindShare: lambda _: tracker.ShareFound(_row(ESCAPES), TOPIC, 5, []),
    },
    ("upload-file", "FILE", "lab"): {
        tracker.Offer: lambda _: tracker.Offered(_row(ESCAPES), True),
    },
    ("status",): {},
    ("doctor",): {},
}


def test_h31_nothing_that_a_tracker_says_reaches_a_terminal_as_it_is(
    deceived: Callable[[dict[type, Answer]], Person],
) -> None:
    answers: dict[type, Answer] = {}
    for some in LISTINGS.values():
        answers |= some
    bob = deceived(answers)
    file = bob.swarm.folder() / "file"
    file.write_bytes(b"content")
    for words in LISTINGS:
        typed = [str(file) if word == "FILE" else word for word in words]
        for options in ([], ["--json"], ["-v"]):
            ran = bob.run(*options, *typed)
            harmless(ran.out + ran.err)
            if options == ["--json"]:
                json.loads(ran.out or ran.err)
    harmless((bob.home / "peer.log").read_text())


def test_h14_replies_that_are_no_messages(
    deceived: Callable[[dict[type, Answer]], Person],
) -> None:
    noises = [b"\xc1", b"", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x91\xa9GroupRows"]
    left = list(noises)
    bob = deceived({tracker.ListGroups: lambda _: [b"MT\x01", left.pop(0)]})
    for _ in noises:
        ran = bob.run("list-groups")
        assert ran.code == 1
        assert ran.err.startswith("error: the tracker's answer cannot be read: ")
        harmless(ran.err)
    assert not left
    assert bob.status()["connected"]
