"""State after a restart: of a peer, of the tracker, of all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.processes import SMALL_PIECE, Person, Swarm
from tests.support.waiting import wait_for

SIZE = 3_000_000


def picture(people: list[Person], groups: list[str]) -> dict[str, Any]:
    """All that people see, but for what depends on the moment."""
    seen: dict[str, Any] = {}
    for person in people:
        for group in groups:
            members = person.run("--json", "list-members", group)
            if members.code == 0:
                seen[f"{person.name} {group} members"] = [
                    (row["user"], row["role"], row["since"]) for row in members.json
                ]
                seen[f"{person.name} {group} files"] = sorted(
                    person.files(group).values(), key=lambda row: str(row["name"])
                )
        seen[f"{person.name} groups"] = person.json("list-groups")
        seen[f"{person.name} downloads"] = person.json("show-downloads")
        status = person.status()
        seen[f"{person.name} status"] = {
            key: status[key] for key in ("user", "connected", "device", "shares")
        }
    return seen


@pytest.fixture(scope="module")
def restless(transport: str) -> Iterator[Swarm]:
    """A swarm in which everything may be restarted, and runs again after each test."""
    made = Swarm(transport)
    try:
        for name in ("alice", "bob", "carol"):
            made.person(name)
        made.person("slow", options=("--upload-limit", "1M"))
        yield made
    finally:
        made.close()


@pytest.fixture
def alice(restless: Swarm) -> Person:
    return restless.named("alice")


@pytest.fixture
def bob(restless: Swarm) -> Person:
    return restless.named("bob")


@pytest.fixture
def carol(restless: Swarm) -> Person:
    return restless.named("carol")


@pytest.fixture
def slow(restless: Swarm) -> Person:
    """A peer that serves so slowly that a transfer can be interrupted."""
    return restless.named("slow")


@pytest.mark.parametrize("order", ["tracker first", "peers first", "killed"])
def test_everything_is_there_after_a_restart_of_everything(
    restless: Swarm, alice: Person, bob: Person, carol: Person, order: str
) -> None:
    people = [alice, bob, carol]
    films, music = alice.group_with(bob), bob.group_with(alice, carol)
    waits = carol.group_with()
    alice.ok("join-group", waits)
    path, folder = restless.file(SIZE), restless.folder("album")
    for at in range(3):
        restless.file(10_000 * at, folder=folder)
    alice.share(path, films)
    alice.share(path, music, "--digest", "sha256", "--name", "other name")
    bob.share(folder, music)
    bob.fetch(films, path.name, restless.folder())
    carol.fetch(music, folder.name, restless.folder())
    before = picture(people, [films, music, waits])

    if order == "killed":
        restless.tracker.kill()
        for person in people:
            person.kill()
        restless.tracker.start()
        for person in people:
            person.up()
    elif order == "tracker first":
        restless.tracker.end()
        for person in people:
            person.down()
        restless.tracker.start()
        for person in people:
            person.up()
    else:
        for person in people:
            person.down()
        restless.tracker.end()
        for person in people:
            person.up()
        restless.tracker.start()

    wait_for(lambda: picture(people, [films, music, waits]), until=lambda after: after == before)
    carol.ok("accept-request", waits, "alice")
    got = alice.fetch(music, folder.name, restless.folder())
    assert {source["user"] for source in got["sources"]} <= {"bob", "carol"}
    assert carol.fetch(music, "other name", restless.folder())["sources"][0]["user"] == "alice"
    bob.ok("logout")
    bob.refused("login", "bob", "another password")
    bob.ok("login", "bob", bob.password)
    assert set(bob.files(films)) == {path.name}


def test_downloads_go_on_while_the_tracker_is_away(
    restless: Swarm, slow: Person, bob: Person, carol: Person
) -> None:
    group = slow.group_with(bob, carol)
    path = restless.file(SIZE)
    slow.share(path, group, "--piece-size", "16K")
    dest = restless.folder()
    bob.ok("download-file", group, path.name, dest, "--no-wait")
    key = (group, path.name)
    before = wait_for(
        lambda: bob.downloads()[key]["verified_bytes"],
        until=lambda verified: verified > SMALL_PIECE,
    )
    assert before < SIZE
    restless.tracker.kill()
    wait_for(lambda: not bob.status()["connected"], "the loss of the tracker")
    for words in (
        ("list-groups",),
        ("list-files", group),
        ("create-group", "another"),
        ("download-file", group, path.name, restless.folder()),
    ):
        assert "tracker" in bob.refused(*words, code=4)
    wait_for(lambda: bob.state_of(*key) == "complete", "the end of the download")
    assert (dest / path.name).read_bytes() == path.read_bytes()
    assert bob.status()["user"] == "bob"

    restless.tracker.start()
    # Peers reappear by themselves, and so does what was finished meanwhile.
    row = wait_for(
        lambda: carol.files(group)[path.name],
        until=lambda row: row["seeders"] == 2,
    )
    assert sorted(row["shared_by"]) == ["bob", "slow"]
    wait_for(
        lambda: {row["user"]: row["online"] for row in carol.json("list-members", group)},
        until=lambda online: online == {"slow": 1, "bob": 1, "carol": 1},
    )
    carol.fetch(group, path.name, restless.folder())


def test_an_unfinished_download_goes_on_after_a_restart_of_everything(
    restless: Swarm, slow: Person, bob: Person
) -> None:
    group = slow.group_with(bob)
    path = restless.file(SIZE)
    slow.share(path, group, "--piece-size", "16K")
    dest = restless.folder()
    bob.ok("download-file", group, path.name, dest, "--no-wait")
    key = (group, path.name)
    wait_for(lambda: bob.downloads()[key]["verified_bytes"] > SIZE // 3)
    for person in (slow, bob):
        person.kill()
    restless.tracker.restart()
    bob.up()
    assert bob.state_of(*key) == "downloading"
    assert not (dest / path.name).exists()
    slow.up()
    wait_for(lambda: bob.state_of(*key) == "complete", "the end of the download")
    assert (dest / path.name).read_bytes() == path.read_bytes()


def test_a_command_right_after_the_start_finds_all_shares(
    restless: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    dest = restless.folder()
    for _ in range(40):
        path = restless.file(10)
        alice.share(path, group)
        bob.fetch(group, path.name, dest)
    for person in (alice, bob):
        before = person.status()["shares"], person.json("show-downloads")
        person.restart()
        assert (person.status()["shares"], person.json("show-downloads")) == before
        person.restart()
        person.ok("stop-share", group, path.name)


def test_a_big_touched_file_keeps_nothing_else_waiting(
    restless: Swarm, alice: Person, slow: Person
) -> None:
    group = slow.group_with(alice)
    big, path = restless.folder() / "big", restless.file(SIZE)
    with big.open("wb") as file:
        file.truncate(1 << 32)
    alice.share(big, group)
    slow.share(path, group, "--piece-size", "16K")
    dest = restless.folder()
    alice.ok("download-file", group, path.name, dest, "--no-wait")
    alice.down()
    big.touch()
    alice.up()
    assert alice.state_of(group, path.name) in ("downloading", "complete")
    wait_for(lambda: alice.state_of(group, path.name) == "complete", "the end of the download")
    row = wait_for(lambda: slow.files(group)[big.name], until=lambda row: row["seeders"] == 1)
    assert row["shared_by"] == ["alice"]
    wait_for(lambda: "touched but not changed" in (alice.home / "peer.log").read_text())
    alice.ok("stop-share", group, big.name)


def test_a_paused_download_stays_paused_over_a_restart(
    restless: Swarm, slow: Person, bob: Person
) -> None:
    group = slow.group_with(bob)
    path = restless.file(SIZE)
    slow.share(path, group, "--piece-size", "16K")
    dest = restless.folder()
    bob.ok("download-file", group, path.name, dest, "--no-wait")
    key = (group, path.name)
    wait_for(lambda: bob.downloads()[key]["verified_bytes"] > 0)
    bob.ok("pause", *key)
    bob.restart()
    assert bob.state_of(*key) == "paused"
    assert f"[P] [{group}] {path.name}" in bob.ok("show-downloads").splitlines()
    bob.ok("resume", *key)
    wait_for(lambda: bob.state_of(*key) == "complete", "the end of the download")
    assert (dest / path.name).read_bytes() == path.read_bytes()


def test_a_changed_file_is_not_shared_after_a_restart(
    restless: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    changed, touched, kept = (restless.file(100_000) for _ in range(3))
    for path in (changed, touched, kept):
        alice.share(path, group)
    alice.down()
    changed.write_bytes(b"something else")
    touched.touch()
    alice.up()
    rows = wait_for(
        lambda: bob.files(group), until=lambda rows: set(rows) == {touched.name, kept.name}
    )
    assert all(row["seeders"] == 1 for row in rows.values())
    for path in (touched, kept):
        bob.fetch(group, path.name, restless.folder())
    bob.refused("download-file", group, changed.name, restless.folder())


def test_a_download_from_a_group_that_one_left_is_over(
    restless: Swarm, slow: Person, bob: Person
) -> None:
    group = slow.group_with(bob)
    path = restless.file(SIZE)
    slow.share(path, group, "--piece-size", "16K")
    dest = restless.folder()
    waiting = bob.spawn("--json", "download-file", group, path.name, dest)
    wait_for(lambda: bob.downloads()[(group, path.name)]["verified_bytes"] > 0)
    slow.ok("remove-member", group, "bob")
    out, err = waiting.communicate(timeout=40)
    assert waiting.returncode == 1
    assert out == ""
    assert '"error"' in err
    row = bob.downloads()[(group, path.name)]
    assert row["state"] == "failed"
    assert group in row["reason"]
    assert not (dest / path.name).exists()
