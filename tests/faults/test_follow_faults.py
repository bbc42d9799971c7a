"""F108 to F112: follows over kills, full disks, trackers that are away, and disks that go."""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import MIB, Small
from tests.support.processes import Person
from tests.support.waiting import wait_for

SIZE = 12 * MIB


@pytest.fixture
def group(alice: Person, bob: Person) -> Iterator[str]:
    made = alice.group_with(bob)
    yield made
    bob.run("unfollow", made)


def share(person: Person, group: str, size: int = SIZE) -> Path:
    path = person.swarm.file(size)
    person.share(path, group)
    return path


def row(person: Person, group: str) -> Any:
    return next(each for each in person.json("list-follows") if each["group"] == group)


def arrives(path: Path, folder: Path) -> None:
    wait_for(lambda: (folder / path.name).exists(), f"{path.name} in the folder")
    assert filecmp.cmp(path, folder / path.name, shallow=False)


def fetching(person: Person, group: str, path: Path) -> None:
    """Wait until some of the share is fetched, and not yet all of it."""
    wait_for(
        lambda: person.downloads()[group, path.name]["verified_bytes"],
        "some pieces",
        until=lambda verified: 0 < verified < SIZE,
    )


def test_f108_a_peer_killed_while_following_goes_on_where_it_was(
    alice: Person, bob: Person, group: str
) -> None:
    folder = bob.swarm.folder()
    bob.ok("follow", group, folder)
    path = share(alice, group)
    fetching(bob, group, path)
    bob.kill()
    later = share(alice, group, MIB)
    bob.up()
    arrives(path, folder)
    arrives(later, folder)
    wait_for(lambda: row(bob, group), until=lambda found: found["held"] == 2)
    assert sorted(os.listdir(folder)) == sorted([path.name, later.name])


@pytest.mark.root
def test_f109_a_full_disk_is_waited_for_and_told(
    alice: Person, bob: Person, group: str, disk: Small
) -> None:
    disk.fill()
    bob.ok("follow", group, disk.path)
    path = share(alice, group, 4 * MIB)
    found = wait_for(lambda: row(bob, group), until=lambda each: each["state"] == "waiting")
    assert "no space left" in found["reason"].lower()
    shown = bob.downloads()[group, path.name]
    assert shown["state"] == "paused"
    assert "no space left" in shown["reason"].lower()
    assert "no space left" in bob.ok("why-slow", group, path.name).lower()
    disk.empty()
    arrives(path, disk.path)
    wait_for(lambda: row(bob, group)["state"], until=lambda state: state == "following")


def test_f110_a_share_made_while_a_follower_has_no_tracker_arrives_later(
    alice: Person, bob: Person, group: str
) -> None:
    """The follower is off while the tracker restarts, and the log is read from where it was."""
    folder = bob.swarm.folder()
    bob.ok("follow", group, folder)
    first = share(alice, group, MIB)
    arrives(first, folder)
    bob.down()
    second = share(alice, group, MIB)
    bob.swarm.tracker.kill()
    bob.up()
    bob.swarm.tracker.start()
    arrives(second, folder)
    wait_for(lambda: alice.status()["connected"], "the link of alice")
    alice.ok("wait", group, second.name, "--for", "all", "--timeout", "30s")


@pytest.mark.root
@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_f111_nothing_is_written_to_the_bare_mount_point(
    alice: Person, bob: Person, group: str, disk: Small
) -> None:
    bob.ok("follow", group, disk.path)
    first = share(alice, group, MIB)
    arrives(first, disk.path)
    wait_for(lambda: row(bob, group), until=lambda found: found["held"] == 1)
    disk.unplug()
    second = share(alice, group, MIB)
    found = wait_for(lambda: row(bob, group), until=lambda each: each["state"] == "waiting")
    assert "may not be mounted" in found["reason"]
    bob.restart()
    wait_for(lambda: row(bob, group)["state"], until=lambda state: state == "waiting")
    assert os.listdir(disk.path) == []
    disk.plug()
    arrives(second, disk.path)
    assert not (disk.path / f"{second.name}.part").exists()


def test_f112_the_newer_version_wins_and_nothing_of_the_older_is_left(
    alice: Person, bob: Person, group: str
) -> None:
    folder = bob.swarm.folder()
    bob.ok("follow", group, folder)
    path = share(alice, group)
    fetching(bob, group, path)
    newer = bob.swarm.file(2 * MIB, path.name)
    alice.share(newer, group, "--replace")
    arrives(newer, folder)
    wait_for(lambda: row(bob, group), until=lambda found: found["held"] == 1)
    assert os.listdir(folder) == [path.name]
    newest = bob.swarm.file(3 * MIB, path.name)
    alice.share(newest, group, "--replace")
    wait_for(lambda: filecmp.cmp(newest, folder / path.name, shallow=False), "version 3")
    alice.ok("wait", group, path.name, "--for", "all", "--timeout", "30s")
    assert os.listdir(folder) == [path.name]
