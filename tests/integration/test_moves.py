"""Copies that are moved on their device, with real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

SIZE = 3 << 20


@pytest.fixture
def elsewhere(swarm: Swarm, tmp_path: Path) -> Path:
    """A folder on another file system, where there is one."""
    if tmp_path.stat().st_dev == swarm.root.stat().st_dev:
        pytest.skip("one file system only")
    return tmp_path


def test_a_share_and_a_download_are_served_from_their_new_places(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    path, dest = swarm.file(SIZE), swarm.folder()
    data = path.read_bytes()
    alice.share(path, group)
    target = dest / "deep" / "there"
    found = alice.json("move", group, path.name, f"{target}/")
    assert found == {
        "group": group,
        "name": path.name,
        "version": 1,
        "path": str(target / path.name),
        "former_path": str(path),
    }
    bob.fetch(group, path.name, dest)
    assert str(dest / "mine") in bob.ok("move", group, path.name, dest / "mine")
    (row,) = [row for row in bob.json("show-downloads") if row["group"] == group]
    assert (row["state"], row["path"]) == ("complete", str(dest / "mine"))
    assert bob.ok("verify", group, path.name).startswith(f"{dest / 'mine'}: verified, ")
    alice.ok("stop-share", group, path.name)  # only bob has it
    for person in (bob, alice):
        person.down()
        person.up()
    carol.fetch(group, path.name, swarm.folder() / "got")
    assert (dest / "mine").read_bytes() == data
    (row,) = [row for row in bob.json("list-shares") if row["group"] == group]
    assert (row["path"], row["state"]) == (str(dest / "mine"), "shared")
    assert os.listdir(bob.home / "moves") == []


def test_a_fetch_goes_on_while_its_source_is_moved(
    swarm: Swarm, alice: Person, bob: Person, elsewhere: Path
) -> None:
    group = alice.group_with(bob)
    path, dest = swarm.file(SIZE), swarm.folder()
    data = path.read_bytes()
    alice.share(path, group, "--piece-size", "16K")
    alice.ok("limit", "--up", "1M")
    try:
        bob.ok("download-file", group, path.name, dest, "--no-wait")
        for place in (path.parent / "moved", elsewhere / "far", path):
            alice.ok("move", group, path.name, place)
            assert bob.state_of(group, path.name) == "downloading"
    finally:
        alice.ok("limit", "--up", "0")
    wait_for(lambda: bob.state_of(group, path.name) == "complete", "the end of the download")
    assert (dest / path.name).read_bytes() == data
    assert alice.files(group)[path.name]["seeders"] == 2
    assert os.listdir(elsewhere) == []


def test_some_copies_are_not_moved(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    folder, dest = swarm.folder(), swarm.folder()
    inner = folder / "inner"
    inner.write_bytes(b"inner")
    (folder / "link").symlink_to("inner")
    alice.share(folder, group, "--links", "follow")
    alice.share(inner, group)
    assert "would change" in alice.refused("move", group, "inner", dest)
    alice.ok("stop-share", group, "inner")
    assert "links" in alice.refused("move", group, folder.name, dest)
    assert "no copy" in alice.refused("move", group, "nothing", dest)
    path = swarm.file(SIZE)
    alice.share(path, group)
    taken = dest / path.name
    taken.write_bytes(b"mine")
    assert "already there" in alice.refused("move", group, path.name, dest)
    assert taken.read_bytes() == b"mine"
    # A follow keeps what it fetched at its place.
    bob.ok("follow", group, dest / "followed")
    wait_for(lambda: bob.state_of(group, path.name) == "complete", "the followed share")
    wait_for(lambda: "unfollow" in bob.run("move", group, path.name, dest / "x").err, "the refusal")
    bob.ok("unfollow", group)
    bob.ok("move", group, path.name, dest / "x")
    # Nor is a download that is not complete.
    alice.ok("limit", "--up", "100K")
    try:
        late = swarm.file(SIZE)
        alice.share(late, group)
        bob.ok("download-file", group, late.name, dest, "--no-wait")
        assert "still being downloaded" in bob.refused("move", group, late.name, dest / "y")
        bob.ok("cancel", group, late.name)
    finally:
        alice.ok("limit", "--up", "0")
