"""Follows of a group by real peers: what is fetched, what is not, and over restarts."""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import Person, Swarm
from tests.support.waiting import wait_for

TCP_ONLY = True

SIZE = 300_000


@pytest.fixture(scope="module")
def swarm(transport: str) -> Iterator[Swarm]:
    """Alice shares, Bob follows; both may be restarted."""
    made = Swarm(transport)
    try:
        for name in ("alice", "bob"):
            made.person(name)
        yield made
    finally:
        made.close()


@pytest.fixture
def alice(swarm: Swarm) -> Person:
    return swarm.named("alice")


@pytest.fixture
def bob(swarm: Swarm) -> Person:
    return swarm.named("bob")


@pytest.fixture
def group(alice: Person, bob: Person) -> Iterator[str]:
    made = alice.group_with(bob)
    yield made
    bob.run("unfollow", made)


def shared(swarm: Swarm, person: Person, group: str, name: str = "") -> Path:
    path = swarm.file(SIZE, name)
    person.share(path, group, "--yes")
    return path


def arrives(path: Path, folder: Path) -> None:
    there = folder / path.name
    wait_for(lambda: there.exists(), f"{path.name} in the folder")
    assert filecmp.cmp(path, there, shallow=False)


def row(person: Person, group: str, folder: Path | None = None) -> Any:
    rows = person.json("list-follows")
    return next(
        each for each in rows
        if each["group"] == group and folder in (None, Path(each["path"]))
    )  # fmt: skip


def states(person: Person, group: str) -> dict[str, str]:
    return {each["name"]: each["state"] for each in row(person, group)["unsettled"]}


def test_all_shares_arrive_now_and_later_over_restarts(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    first, folder = shared(swarm, alice, group), swarm.folder() / "made" / "here"
    assert bob.ok("follow", group, folder).startswith(f"following {group} into ")
    arrives(first, folder)
    second = shared(swarm, alice, group)
    arrives(second, folder)
    bob.down()
    third = shared(swarm, alice, group)
    bob.up()
    arrives(third, folder)
    alice.ok("wait", group, third.name, "--timeout", "30s")
    wait_for(lambda: row(bob, group), until=lambda found: found["held"] == 3)
    assert sorted(os.listdir(folder)) == sorted([first.name, second.name, third.name])


def test_a_deleted_file_comes_back_only_when_followed_again(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    folder = swarm.folder()
    path = shared(swarm, alice, group)
    bob.ok("follow", group, folder)
    arrives(path, folder)
    wait_for(lambda: row(bob, group), until=lambda found: found["held"] == 1)
    (folder / path.name).unlink()
    bob.restart()
    arrives(shared(swarm, alice, group), folder)  # the follow is at work, and …
    assert not (folder / path.name).exists()
    bob.ok("follow", group, folder)
    arrives(path, folder)


def test_own_shares_are_held_where_they_are_and_a_second_follow_copies(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    own, other = shared(swarm, bob, group), shared(swarm, alice, group)
    one, two = swarm.folder(), swarm.folder()
    bob.ok("follow", group, one)
    arrives(other, one)
    wait_for(lambda: states(bob, group), until=lambda found: found == {own.name: "elsewhere"})
    assert row(bob, group)["unsettled"][0]["path"] == str(own)
    bob.ok("follow", group, two)
    arrives(other, two)
    alice.down()
    try:
        third = swarm.folder()
        bob.ok("follow", group, third)
        arrives(other, third)  # from the disk: no other device has it now
    finally:
        alice.up()
    assert not (two / own.name).exists()
    assert bob.json("unfollow", group, two)[0]["path"] == str(two)
    assert len([each for each in bob.json("list-follows") if each["group"] == group]) == 2


def test_an_earlier_download_is_copied_into_the_folder(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    path = shared(swarm, alice, group)
    bob.fetch(group, path.name, swarm.folder())
    alice.down()
    try:
        for folder in (swarm.folder(), swarm.folder()):
            bob.ok("follow", group, folder)
            arrives(path, folder)
            bob.ok("unfollow", group, folder)
    finally:
        alice.up()


def test_patterns_choose_and_hidden_names_need_one_of_their_own(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    folder = swarm.folder()
    wanted, hidden, other = (
        shared(swarm, alice, group, name) for name in ("a.ISO", ".hidden.iso", "b.txt")
    )
    bob.ok("follow", group, folder, "--match", "*.iso")
    arrives(wanted, folder)
    wait_for(lambda: row(bob, group), until=lambda found: found["held"] == 1)
    assert row(bob, group)["matching"] == 1
    assert os.listdir(folder) == [wanted.name]
    assert "no other device" in alice.refused("wait", group, other.name, "--timeout", "9s")
    bob.ok("follow", group, folder, "--match", ".h*", "--match", "b.*")
    arrives(hidden, folder)
    arrives(other, folder)


def test_a_file_in_the_way_is_left_alone_and_told(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    path, folder = shared(swarm, alice, group), swarm.folder()
    (folder / path.name).write_text("mine")
    bob.ok("follow", group, folder)
    found = wait_for(lambda: row(bob, group), until=lambda each: each["state"] == "waiting")
    assert "already there" in found["reason"]
    assert (folder / path.name).read_text() == "mine"
    (folder / path.name).unlink()
    bob.ok("follow", group, folder)
    arrives(path, folder)


def test_a_cancelled_download_is_not_begun_again(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    path, folder = shared(swarm, alice, group), swarm.folder()
    alice.down()
    try:
        bob.ok("follow", group, folder)
        wait_for(lambda: (group, path.name) in bob.downloads(), "the download")
        bob.ok("cancel", group, path.name)
        wait_for(lambda: states(bob, group), until=lambda seen: seen == {path.name: "dismissed"})
    finally:
        alice.up()
    arrives(shared(swarm, alice, group), folder)
    assert not (folder / path.name).exists()
    assert not list(folder.glob("*.part"))


def test_unfollow_cancels_what_is_unfinished_and_keeps_what_is_there(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    first, folder = shared(swarm, alice, group), swarm.folder()
    bob.ok("follow", group, folder)
    arrives(first, folder)
    second = shared(swarm, alice, group)
    arrives(second, folder)
    alice.down()
    try:
        swarm.tracker.restart()
        wait_for(lambda: bob.status()["connected"], "the link")
        bob.ok("unfollow", group)
    finally:
        alice.up()
    assert sorted(os.listdir(folder)) == sorted([first.name, second.name])
    refused = bob.refused("unfollow", group)
    assert "does not follow" in refused
    wait_for(lambda: alice.status()["connected"], "the link")
    assert "no other device" in alice.refused("wait", group, first.name)


def test_a_member_who_is_removed_follows_no_longer(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    path, folder = shared(swarm, alice, group), swarm.folder()
    bob.ok("follow", group, folder)
    arrives(path, folder)
    alice.ok("remove-member", group, "bob")
    wait_for(lambda: bob.json("list-follows"), until=lambda rows: rows == [])
    assert (folder / path.name).exists()


@pytest.mark.parametrize("as_folder", [False, True], ids=["file", "folder"])
def test_the_last_versions_are_kept_beside_the_current_one_and_served(
    swarm: Swarm, alice: Person, bob: Person, group: str, as_folder: bool
) -> None:
    """Two are kept of each name; older ones go, and with 0 all of them go."""
    folder, name = swarm.folder(), swarm.fresh("thing")
    versions = [thing(swarm, name, as_folder) for _ in range(5)]
    alice.share(versions[0], group)
    bob.ok("follow", group, folder, "--keep-versions", "2")
    for path in versions[1:4]:
        alice.ok("wait", group, name, "--timeout", "30s")
        settled(bob, group, name)
        alice.share(path, group, "--replace")
    alice.ok("wait", group, name, "--timeout", "30s")
    wait_for(lambda: sorted(os.listdir(folder)), until=lambda found: len(found) == 3)
    assert sorted(os.listdir(folder)) == [name, f"{name}@2", f"{name}@3"]
    for path, kept in zip(versions[1:4], (f"{name}@2", f"{name}@3", name), strict=True):
        assert same(path, folder / kept)
    states = {row["user"]: row["state"] for row in alice.json("who-has", group, f"{name}@2")}
    assert states["bob"] == "holds"
    bob.ok("follow", group, folder)
    settled(bob, group, name)
    alice.share(versions[4], group, "--replace")
    alice.ok("wait", group, name, "--timeout", "30s")
    wait_for(lambda: os.listdir(folder), until=lambda found: found == [name])
    assert same(versions[4], folder / name)


def thing(swarm: Swarm, name: str, as_folder: bool) -> Path:
    if not as_folder:
        return swarm.file(SIZE, name)
    path = swarm.folder() / name
    (path / "below").mkdir(parents=True)
    swarm.file(SIZE, swarm.fresh("own"), folder=path)
    swarm.file(1_000, "same name", folder=path / "below")
    return path


def same(one: Path, other: Path) -> bool:
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = [sorted(p.relative_to(root) for p in root.rglob("*")) for root in (one, other)]
    return names[0] == names[1] and all(
        filecmp.cmp(one / name, other / name, shallow=False)
        for name in names[0]
        if (one / name).is_file()
    )


def settled(person: Person, group: str, name: str) -> None:
    """Wait until the follow has noted what it fetched."""
    found = wait_for(lambda: row(person, group), until=lambda each: each["held"] == 1)
    assert name not in {each["name"] for each in found["unsettled"]}


def test_an_upload_waits_for_all_followers_and_is_refused_without_one(
    swarm: Swarm, alice: Person, bob: Person, group: str
) -> None:
    first, second = swarm.file(SIZE), swarm.file(SIZE)
    refused = alice.refused("upload-file", first, group, "--wait", "all", "--timeout", "9s")
    assert "no other device follows" in refused
    assert alice.files(group) == {}
    folder = swarm.folder()
    bob.ok("follow", group, folder)
    words = ("upload-file", first, second, group, "--wait", "all", "--timeout", "60s")
    printed = alice.ok(*words)
    for path in (first, second):
        assert re.search(rf"^bob [0-9a-f]{{8}} has {re.escape(path.name)}@1$", printed, re.M)
    arrives(first, folder)
    arrives(second, folder)
    late = alice.run("upload-file", swarm.file(10), group, "--wait", "2", "--timeout", "1s")
    assert late.code == 6
    assert "1 copy on other devices, 2 wanted" in late.err
    assert alice.run("upload-file", first, group, "--timeout", "1s").code == 2


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("--match", "a/b"), 2, "no '/'"),
        (("--match", ""), 2, "it is empty"),
        (("--keep-versions", "-1"), 2, "keep-versions"),
        (("--keep-versions", "many"), 2, "keep-versions"),
    ],
)
def test_the_arguments_of_a_follow_are_checked(
    swarm: Swarm, bob: Person, group: str, words: tuple[str, ...], code: int, text: str
) -> None:
    assert text in bob.refused("follow", group, swarm.folder(), *words, code=code)
    assert bob.json("list-follows") == []


def test_a_folder_that_cannot_be_followed_into_is_refused(
    swarm: Swarm, bob: Person, group: str
) -> None:
    file = swarm.file(10)
    assert "is no folder" in bob.refused("follow", group, file)
    assert "a home of this program" in bob.refused("follow", group, bob.home / "x")
    tree = swarm.folder()
    swarm.file(10, folder=tree)
    bob.share(tree, group)
    assert "in the shared folder" in bob.refused("follow", group, tree)
    assert "not a member" in bob.refused("follow", "nowhere", swarm.folder())
    assert bob.json("list-follows") == []
