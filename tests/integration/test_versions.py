"""Names and their versions: replaced, fetched by number, described and withdrawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import limits
from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

pytestmark = pytest.mark.parametrize("transport", ["tcp"], indirect=True)
PIECE = limits.PIECE_LENGTH_DEFAULT


def versions(person: Person, group: str) -> list[tuple[str, int, bool, list[str]]]:
    rows = person.json("list-files", group, "--versions")
    return [(row["name"], row["version"], row["current"], sorted(row["shared_by"])) for row in rows]


def test_a_changed_file_gets_the_next_version(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    """The earlier one is to be had from those who fetched it, until it is withdrawn."""
    group = alice.group_with(bob, carol)
    # Other tests may have left shares at the same peers.
    bobs, carols = (who.status()["shares"] for who in (bob, carol))
    path, name = swarm.file(2 * PIECE + 7), ""
    name = path.name
    first = path.read_bytes()
    assert alice.share(path, group)["version"] == 1
    assert bob.fetch(group, name, swarm.folder())["version"] == 1
    path.write_bytes(second := b"changed" + first[7:] + b"more")
    assert "another content" in alice.refused("upload-file", path, group)
    assert alice.share(path, group, "--replace")["version"] == 2
    assert versions(carol, group) == [(name, 1, False, ["bob"]), (name, 2, True, ["alice"])]
    assert [row["version"] for row in carol.json("list-files", group)] == [2]
    for text, version, content in ((f"{name}@1", 1, first), (name, 2, second)):
        place = swarm.folder()
        assert carol.fetch(group, text, place)["version"] == version
        assert (place / name).read_bytes() == content
    # Having fetched it gives no right to the name.
    other = swarm.file(10)
    for options in ((), ("--replace",)):
        words = ("upload-file", other, group, "--name", name, *options)
        assert "share" in bob.refused(*words)
    found = bob.json("info", group, f"{name}@1")
    assert (found["version"], found["current"], found["versions"]) == (1, False, [1, 2])
    assert (found["first_by"], found["shared_by"]) == ("alice", ["bob", "carol"])
    assert found["here"][0]["state"] == "shared"
    assert found["entries"] == [{"path": name, "size_bytes": len(first), "kind": "file"}]
    assert "withdraw" in bob.refused("withdraw", group, name)
    alice.ok("withdraw", group, f"{name}@1")
    assert [row[1] for row in versions(carol, group)] == [2]
    wait_for(lambda: bob.status()["shares"] == bobs, "the end of the withdrawn share")
    assert "not shared" in carol.refused("download-file", group, f"{name}@1", swarm.folder())
    alice.ok("withdraw", group, name)
    wait_for(lambda: carol.status()["shares"] == carols, "the end of all versions")
    assert versions(bob, group) == []
    assert path.read_bytes() == second


def test_a_changed_folder_is_described_file_by_file(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group, folder = alice.group_with(bob), swarm.folder()
    for number in range(30):
        (folder / f"{number:02}").write_bytes(b"x" * number)
    alice.share(folder, group)
    (folder / "00").write_bytes(b"now it has bytes")
    (folder / "30").mkdir()
    assert alice.share(folder, group, "--replace")["version"] == 2
    found = bob.json("info", group, folder.name)
    assert [entry["path"] for entry in found["entries"]] == [f"{n:02}" for n in range(31)]
    assert found["entries"][-1] == {"path": "30", "size_bytes": 0, "kind": "folder"}
    text = bob.ok("info", group, folder.name)
    assert "… and 10 more (all of them: --json)" in text
    # The earlier version had no other holder: no device serves that name and number.
    assert [row[1] for row in versions(bob, group)] == [2]
    pattern = folder.name[:-1].upper() + "?"
    assert [row["name"] for row in bob.json("list-files", group, pattern)] == [folder.name]
    assert "matches" in bob.ok("list-files", group, "no*such")
    assert bob.json("list-files", group, "no*such") == []


def test_a_download_of_a_version_goes_on_when_the_next_one_comes(
    swarm: Swarm, alice: Person, bob: Person, tmp_path: Path
) -> None:
    group, path = alice.group_with(bob), swarm.file(3 * PIECE)
    alice.share(path, group)
    bob.ok("down")
    bob.up()
    place = swarm.folder()
    alice.ok("down")
    # Without its only source the download waits, and version 2 comes meanwhile.
    bob.ok("download-file", group, path.name, place, "--no-wait")
    alice.up()
    second = swarm.file(3 * PIECE)
    alice.share(second, group, "--replace", "--name", path.name)
    wait_for(lambda: (place / path.name).exists(), "the download of version 1")
    assert (place / path.name).read_bytes() == path.read_bytes()
    assert (path.name, 1, False, ["alice", "bob"]) in versions(bob, group)
