"""download_file and show_downloads, by real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import SMALL_PIECE, Person, Swarm, clear
from tests.support.waiting import wait_for

SLOW = "2M"  # bytes a second: enough for a transfer to be seen under way
SIZE = 3_000_000


@pytest.fixture(scope="module")
def slow_seeder(swarm: Swarm) -> Iterator[Person]:
    """A peer that serves so slowly that a transfer can be watched."""
    person = swarm.person(swarm.fresh("slow"), options=("--upload-limit", SLOW))
    yield person
    person.down()


def result_of(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


def users_of(got: Any) -> set[str]:
    return {source["user"] for source in got["sources"] if source["pieces"]}


def test_a_download_is_told_of_and_offered_to_the_group(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    path = swarm.file(2_000_000)
    shared = alice.share(path, group)
    dest = swarm.folder()
    got = bob.fetch(group, path.name, dest)
    assert (dest / path.name).read_bytes() == path.read_bytes()
    assert got.pop("elapsed_s") > 0
    assert got.pop("rate_bytes_per_s") > 0
    assert got == {
        "group": group,
        "name": path.name,
        "version": 1,
        "path": str(dest / path.name),
        "size_bytes": 2_000_000,
        "algorithm": "blake3",
        "digest": shared["digest"],
        "fetched_bytes": 2_000_000,
        "reused_bytes": 0,
        "sources": [{"user": "alice", "endpoint": alice.status()["listen"], "pieces": 8}],
        "in_place": False,
        "kept": None,
        "files": [],
    }
    row = carol.files(group)[path.name]
    assert (row["seeders"], sorted(row["shared_by"])) == (2, ["alice", "bob"])
    alice.ok("stop-share", group, path.name)
    assert users_of(carol.fetch(group, path.name, swarm.folder())) == {"bob"}


def test_pieces_come_from_many_peers_at_once(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    path = swarm.file(SIZE)
    alice.share(path, group, "--piece-size", "16K")
    bob.fetch(group, path.name, swarm.folder())
    # Slow enough that the second source is there before the first has given everything.
    dave = swarm.person(swarm.fresh("dave"), options=("--download-limit", "4M"))
    alice.let_in(group, dave)
    got = dave.fetch(group, path.name, swarm.folder())
    assert users_of(got) == {"alice", "bob"}
    assert sum(source["pieces"] for source in got["sources"]) == -(-SIZE // SMALL_PIECE)
    dave.down()


def test_a_leecher_serves_what_it_has(
    swarm: Swarm, bob: Person, carol: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(bob, carol)
    path = swarm.file(SIZE)
    slow_seeder.share(path, group, "--piece-size", "16K")
    slow_seeder.down()  # until both are there: neither can end before the other begins
    folders = [swarm.folder(), swarm.folder()]
    started = [
        person.spawn("--json", "download-file", group, path.name, folder)
        for person, folder in zip((bob, carol), folders, strict=True)
    ]
    seen = wait_for(lambda: bob.files(group)[path.name], until=lambda row: row["leechers"] == 2)
    assert seen["seeders"] == 0
    slow_seeder.up()
    by_bob, by_carol = map(result_of, started)
    assert users_of(by_bob) == {slow_seeder.name, "carol"}
    assert users_of(by_carol) == {slow_seeder.name, "bob"}
    for folder in folders:
        assert (folder / path.name).read_bytes() == path.read_bytes()
    row = slow_seeder.files(group)[path.name]
    assert (row["seeders"], row["leechers"]) == (3, 0)


def test_the_final_name_is_not_there_before_the_end(
    swarm: Swarm, bob: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(bob)
    path = swarm.file(SIZE)
    slow_seeder.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    assert bob.ok("download-file", group, path.name, dest, "--no-wait") != ""
    key = (group, path.name)
    row = wait_for(lambda: bob.downloads()[key], until=lambda row: row["verified_bytes"] > 0)
    assert row["state"] == "downloading"
    assert not (dest / path.name).exists()
    assert f"[D] [{group}] {path.name}" in bob.ok("show-downloads").splitlines()
    wait_for(lambda: bob.state_of(*key) == "complete", "the end")
    assert (dest / path.name).read_bytes() == path.read_bytes()
    assert [entry.name for entry in dest.iterdir()] == [path.name]
    assert f"[C] [{group}] {path.name}" in bob.ok("show-downloads").splitlines()


@pytest.mark.parametrize("pick", ["rarest", "random", "sequential"])
def test_any_order_of_picking_ends_well(
    swarm: Swarm, alice: Person, bob: Person, pick: str
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(SIZE // 3)
    alice.share(path, group, "--piece-size", "16K")
    got = bob.fetch(group, path.name, swarm.folder(), "--pick", pick)
    assert Path(got["path"]).read_bytes() == path.read_bytes()


def test_the_same_destination_is_the_same_place(swarm: Swarm, alice: Person, bob: Person) -> None:
    """Also when the folder that was fetched there is there by now."""
    group, folder, dest = alice.group_with(bob), swarm.folder(), swarm.folder() / "new"
    for name in ("a.txt", "b.bin"):
        (folder / name).write_text(name)
    alice.share(folder, group)
    for words in (["--files", "*.txt"], ["--files", "*.bin"], [], []):
        got = bob.json("download-file", group, folder.name, dest, *words)
        assert got["path"] == str(dest)
        if not words:
            bob.ok("clear")
    assert sorted(path.name for path in dest.iterdir()) == ["a.txt", "b.bin"]
    (folder / "a.txt").write_text("changed")
    alice.share(folder, group, "--replace")
    assert bob.fetch(group, folder.name, dest)["version"] == 2
    assert (dest / "a.txt").read_text() == "changed"
    assert bob.fetch(group, folder.name, f"{dest}/")["path"] == str(dest / folder.name)


def test_a_destination_is_a_folder_or_a_new_path(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    dest = swarm.folder()
    assert bob.fetch(group, path.name, dest)["path"] == str(dest / path.name)
    assert bob.fetch(group, path.name, dest / "other")["path"] == str(dest / "other")
    assert (dest / "other").read_bytes() == path.read_bytes()
    assert bob.fetch(group, path.name, f"{dest}/a/b/")["path"] == str(dest / "a" / "b" / path.name)
    assert bob.fetch(group, path.name, dest / "c" / "d")["path"] == str(dest / "c" / "d")


def test_a_pattern_fetches_all_shares_that_match(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    for name in ("one.iso", "two.iso", "three.img"):
        alice.share(swarm.file(1000), group, "--name", name)
    dest = swarm.folder() / "new"
    rows = bob.json("download-file", group, "*.iso", dest)
    assert [row["name"] for row in rows] == ["one.iso", "two.iso"]
    assert sorted(path.name for path in dest.iterdir()) == ["one.iso", "two.iso"]
    assert "no share" in bob.refused("download-file", group, "*.mkv", dest)
    everything = bob.json("download-file", group, "*", dest / "again")
    assert len(everything) == 3
    assert (dest / "again" / "three.img").stat().st_size == 1000


def test_the_same_content_in_place_is_success(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(100_000)
    alice.share(path, group)
    dest = swarm.folder()
    (dest / path.name).write_bytes(path.read_bytes())
    assert bob.fetch(group, path.name, dest)["sources"] == []
    assert "already in place" in bob.ok("download-file", group, path.name, dest / path.name)
    assert set(bob.files(group)[path.name]["shared_by"]) == {"alice", "bob"}


def test_another_content_is_replaced_by_the_hint(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder() / "data"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a").write_bytes(b"new")
    alice.share(folder, group)
    dest = swarm.folder()
    (dest / "data" / "sub").mkdir(parents=True)
    (dest / "data" / "sub" / "a").write_bytes(b"old")
    (dest / "data" / "notes").write_bytes(b"mine")
    ran = bob.run("download-file", group, "data", dest)
    assert (ran.code, "--overwrite" in ran.err) == (1, True)
    assert (dest / "data" / "sub" / "a").read_bytes() == b"old"
    got = bob.fetch(group, "data", dest, "--overwrite")
    assert (dest / "data" / "sub" / "a").read_bytes() == b"new"
    assert got["kept"] == str(dest / "data.old")
    assert [path.name for path in (dest / "data.old").iterdir()] == ["notes"]
    fresh = dest / "missing" / "folder"
    bob.fetch(group, "data", fresh / "data", "--overwrite")
    assert (fresh / "data" / "sub" / "a").read_bytes() == b"new"


def tree_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_some_files_of_a_folder_are_fetched_and_more_later(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    source = swarm.folder() / "model"
    (source / "docs" / "img").mkdir(parents=True)
    for number in range(20):
        (source / f"{number:02}.bin").write_bytes(bytes([number]) * 30_000)
    (source / "docs" / "img" / "logo.png").write_bytes(b"logo" * 9_000)
    (source / "docs" / "guide.md").write_bytes(b"# guide")
    alice.share(source, group, "--piece-size", "16K")
    everything, dest = tree_of(source), swarm.folder()
    place = dest / "model"

    def fetched(*globs: str) -> Any:
        options = [word for glob in globs for word in ("--files", glob)]
        return bob.fetch(group, "model", dest, *options)

    for words, said in ((("*.txt",), '"docs/", "00.bin"'), (("",), "no pattern")):
        options = [word for glob in words for word in ("--files", glob)]
        ran = bob.run("download-file", group, "model", dest, *options)
        assert ran.code in (1, 2)
        assert said in ran.err
    assert list(dest.iterdir()) == []
    got = fetched("docs", "0[13].bin")
    chosen = {name for name in everything if name.startswith("docs")} | {"01.bin", "03.bin"}
    assert tree_of(place) == {name: everything[name] for name in chosen}
    assert got["files"] == ["docs", "0[13].bin"]
    assert got["size_bytes"] == sum(len(everything[name]) for name in chosen)
    assert got["fetched_bytes"] < sum(map(len, everything.values())) / 2
    row = bob.downloads()[group, "model"]
    assert (row["state"], row["files"]) == ("complete", ["docs", "0[13].bin"])
    assert bob.files(group)["model"]["seeders"] == 1  # a part is not offered
    again = fetched("01.bin")
    assert (again["in_place"], again["fetched_bytes"]) == (True, 0)
    fetched("02.bin")
    chosen |= {"02.bin"}
    assert tree_of(place) == {name: everything[name] for name in chosen}
    (place / "07.bin").write_bytes(b"mine")
    assert "07.bin" in bob.refused("download-file", group, "model", dest)
    (place / "07.bin").unlink()
    whole = fetched()
    assert (tree_of(place), whole["files"]) == (everything, [])
    assert [entry.name for entry in dest.iterdir()] == ["model"]
    assert bob.files(group)["model"]["seeders"] == 2
    assert [row["path"] for row in bob.json("show-downloads") if row["group"] == group] == [
        str(place)
    ]


def test_a_selection_survives_a_restart_of_the_peer(
    swarm: Swarm, alice: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(alice)
    dave = swarm.person(swarm.fresh("dave"))
    slow_seeder.let_in(group, dave)
    source = swarm.folder() / "data"
    source.mkdir()
    for number in range(40):
        (source / f"{number:02}").write_bytes(bytes([number + 1]) * 100_000)
    slow_seeder.share(source, group, "--piece-size", "16K")
    dest = swarm.folder()
    dave.ok("download-file", group, "data", dest, "--files", "[0-2]?", "--no-wait")
    key = (group, "data")
    wait_for(lambda: dave.downloads()[key], until=lambda row: row["verified_bytes"] > 200_000)
    dave.down()
    dave.up()
    wait_for(lambda: dave.state_of(*key) == "complete", "the end")
    assert set(tree_of(dest / "data")) == {f"{number:02}" for number in range(30)}
    assert dave.fetch(group, "data", dest)["files"] == []
    assert tree_of(dest / "data") == tree_of(source)
    dave.down()


def test_a_single_file_has_no_files_to_select(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    said = bob.refused("download-file", group, path.name, "--files", "*", code=2)
    assert "single file" in said


def test_a_bounded_wait_ends_with_its_own_code(
    swarm: Swarm, bob: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(bob)
    path = swarm.file(SIZE)
    slow_seeder.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    said = bob.refused("download-file", group, path.name, dest, "--timeout", "0.2s", code=6)
    assert "timed out" in said
    wait_for(lambda: bob.state_of(group, path.name) == "complete", "the end")
    assert (dest / path.name).read_bytes() == path.read_bytes()


def test_a_content_that_the_device_shares_is_copied(swarm: Swarm, alice: Person) -> None:
    group = alice.group_with()
    path = swarm.file(SIZE)
    alice.share(path, group)
    got = alice.fetch(group, path.name, swarm.folder())
    assert Path(got["path"]).read_bytes() == path.read_bytes()
    assert got["sources"] == []


def test_the_downloads_survive_a_restart(swarm: Swarm, alice: Person) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = alice.group_with(dave)
    path = swarm.file(1000)
    alice.share(path, group)
    dave.fetch(group, path.name, swarm.folder())
    before = dave.json("show-downloads")
    dave.restart()
    assert dave.json("show-downloads") == before
    assert before[0]["state"] == "complete"
    dave.down()


@pytest.mark.parametrize("end", ["down", "kill"])
def test_an_unfinished_download_continues_after_a_restart(
    swarm: Swarm, slow_seeder: Person, end: str
) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = slow_seeder.group_with(dave)
    path = swarm.file(2 * SIZE)
    slow_seeder.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    dave.ok("download-file", group, path.name, dest, "--no-wait")
    key = (group, path.name)
    before = wait_for(
        lambda: dave.downloads()[key]["verified_bytes"], until=lambda verified: verified > SIZE // 2
    )
    dave.down() if end == "down" else dave.kill()
    assert not (dest / path.name).exists()
    dave.up()
    assert dave.state_of(*key) in ("downloading", "complete")
    if end == "down":
        row = wait_for(lambda: dave.downloads()[key], until=lambda row: row["verified_bytes"] > 0)
        assert row["verified_bytes"] >= before
    wait_for(lambda: dave.state_of(*key) == "complete", "the end")
    assert (dest / path.name).read_bytes() == path.read_bytes()
    assert [entry.name for entry in dest.iterdir()] == [path.name]
    dave.down()


def test_three_downloads_at_once_while_two_shares_are_served(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    mine = [swarm.file(SIZE) for _ in range(2)]
    theirs = [swarm.file(SIZE) for _ in range(3)]
    for path in mine:
        bob.share(path, group, "--piece-size", "16K")
    for path in theirs:
        alice.share(path, group, "--piece-size", "16K")
    dest = {path: swarm.folder() for path in mine + theirs}
    started = [
        person.spawn("--json", "download-file", group, path.name, dest[path])
        for person, paths in ((bob, theirs), (carol, mine))
        for path in paths
    ]
    for process in started:
        result_of(process)
    for path, folder in dest.items():
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_pause_resume_and_cancel(swarm: Swarm, bob: Person, slow_seeder: Person) -> None:
    group = slow_seeder.group_with(bob)
    path, other = swarm.file(SIZE), swarm.file(2 * SIZE)
    for one in (path, other):
        slow_seeder.share(one, group, "--piece-size", "16K")
    dest = swarm.folder()
    bob.ok("download-file", group, path.name, dest, "--no-wait")
    bob.ok("pause", group, path.name)
    row = bob.downloads()[(group, path.name)]
    assert (row["state"], row["reason"]) == ("paused", "paused by the user")
    bob.ok("resume", group, path.name)
    wait_for(lambda: bob.state_of(group, path.name) == "complete", "the end")
    assert (dest / path.name).read_bytes() == path.read_bytes()
    bob.ok("download-file", group, other.name, dest, "--no-wait")
    bob.ok("cancel", group, other.name)
    assert bob.state_of(group, other.name) == ""
    assert [entry.name for entry in dest.iterdir()] == [path.name]
    wait_for(lambda: slow_seeder.files(group)[other.name]["leechers"] == 0, "its end")


def test_an_interrupted_wait_leaves_the_download_running(
    swarm: Swarm, bob: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(bob)
    path = swarm.file(SIZE)
    slow_seeder.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    waiting = bob.spawn("download-file", group, path.name, dest)
    wait_for(lambda: bob.state_of(group, path.name) == "downloading", "the beginning")
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate()
    assert (waiting.returncode, out) == (130, ""), err
    assert "still downloading in the background" in err
    assert "error:" not in err
    wait_for(lambda: bob.state_of(group, path.name) == "complete", "the end")
    assert (dest / path.name).read_bytes() == path.read_bytes()


def test_a_second_wait_for_the_same_download_joins_the_first(
    swarm: Swarm, bob: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(bob)
    path = swarm.file(SIZE // 2)
    slow_seeder.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    first = bob.spawn("--json", "download-file", group, path.name, dest)
    wait_for(lambda: bob.state_of(group, path.name) == "downloading", "the beginning")
    again = bob.fetch(group, path.name, dest)
    assert result_of(first) == again
    assert len([row for row in bob.json("show-downloads") if row["group"] == group]) == 1


def test_a_piped_shell_waits_for_its_downloads(
    swarm: Swarm, bob: Person, slow_seeder: Person
) -> None:
    group = slow_seeder.group_with(bob)
    path = swarm.file(SIZE // 2)
    slow_seeder.share(path, group, "--piece-size", "16K")
    dest = swarm.folder()
    ran = bob.command("shell", stdin=f"download_file {group} {path.name} {dest}\n")
    assert ran.code == 0, str(ran)
    assert (dest / path.name).read_bytes() == path.read_bytes()
    ran = bob.command("shell", stdin=f"foo\ndownload_file {group} nothing {dest}\nlist-groups\n")
    assert ran.code == 2, str(ran)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_rows_tell_what_stands_on_the_disk(
    swarm: Swarm, alice: Person, bob: Person, what: str
) -> None:
    group = alice.group_with(bob)
    path = swarm.folder() if what == "folder" else swarm.file(1000)
    if what == "folder":
        swarm.file(1000, folder=path)
    alice.share(path, group)
    dest = swarm.folder()
    key = (group, path.name)
    bob.fetch(group, path.name, dest)
    assert bob.state_of(*key) == "complete"
    moved = swarm.folder() / "moved"
    (dest / path.name).rename(moved)
    row = bob.downloads()[key]
    assert (row["state"], row["reason"]) == ("failed", "what was downloaded is no longer there")
    moved.rename(dest / path.name)
    assert bob.state_of(*key) == "complete"
    clear(dest / path.name)
    bob.fetch(group, path.name, dest)
    rows = [row for row in bob.json("show-downloads") if row["group"] == group]
    assert [row["state"] for row in rows] == ["complete"]  # one row a path
    bob.fetch(group, path.name, dest / "other")
    assert "by its path" in bob.run("cancel", group, path.name).err
    bob.ok("cancel", group, dest / "other")
    assert (dest / "other").exists()
    assert len([row for row in bob.json("show-downloads") if row["group"] == group]) == 1
    assert "the files stay" in bob.ok("clear")
    assert [row for row in bob.json("show-downloads") if row["state"] == "complete"] == []
    assert (dest / path.name).exists()
    bob.restart()
    assert [row for row in bob.json("show-downloads") if row["group"] == group] == []


def test_only_the_pieces_that_this_device_lacks_are_fetched(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    new, old = swarm.folder() / "album", swarm.folder() / "old"
    new.mkdir()
    for number in range(40):
        (new / f"{number:02}").write_bytes(os.urandom(30_000 + number))
    shutil.copytree(new, old)
    (new / "00-inserted").write_bytes(os.urandom(5_000))
    (new / "20").write_bytes(os.urandom(30_020))
    alice.share(new, group, "--piece-size", "16K")
    dest = swarm.folder()
    got = bob.fetch(group, "album", dest, "--reuse", str(old))
    assert {path.name: path.read_bytes() for path in (dest / "album").iterdir()} == {
        path.name: path.read_bytes() for path in new.iterdir()
    }
    # At most the pieces that the changed files lie in.
    assert sum(source["pieces"] for source in got["sources"]) <= 2 + 4
    assert (old / "20").stat().st_size == 30_020


def test_a_path_that_cannot_be_reused_is_named(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    text = bob.refused("download-file", group, path.name, swarm.folder(), "--reuse", "no/such")
    assert "cannot reuse" in text
    assert "no/such" in text


def test_a_new_version_takes_the_place_of_the_one_before_and_only_the_change_travels(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path, dest = swarm.file(1_000_000, "set.bin"), swarm.folder()
    alice.share(path, group, "--piece-size", "16K")
    bob.fetch(group, "set.bin", dest)
    with path.open("r+b") as file:
        file.seek(500_000)
        file.write(b"changed")
    alice.share(path, group, "--replace")
    got = bob.fetch(group, "set.bin", dest)
    assert (got["version"], got["path"]) == (2, str(dest / "set.bin"))
    assert (dest / "set.bin").read_bytes() == path.read_bytes()
    assert got["fetched_bytes"] == SMALL_PIECE
    assert got["reused_bytes"] == 1_000_000 - SMALL_PIECE
    assert os.listdir(dest) == ["set.bin"]
    rows = bob.json("list-files", group, "--versions")
    assert [(row["version"], row["seeders"]) for row in rows] == [(2, 2)]
    # Again: nothing is to be done.
    assert bob.fetch(group, "set.bin", dest)["fetched_bytes"] == 0
    (dest / "set.bin").write_bytes(b"mine")
    path.write_bytes(b"third")
    alice.share(path, group, "--replace")
    text = bob.refused("download-file", group, "set.bin", dest)
    assert "already there" in text
    assert (dest / "set.bin").read_bytes() == b"mine"


def test_a_folder_is_updated_in_place_as_a_whole(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    tree, dest = swarm.folder() / "tree", swarm.folder()
    (tree / "sub").mkdir(parents=True)
    for number in range(60):
        (tree / "sub" / f"{number:02}").write_bytes(os.urandom(20_000 + number))
    alice.share(tree, group, "--piece-size", "16K")
    bob.fetch(group, "tree", dest)
    (dest / "tree" / "notes").write_text("bob's own")
    (tree / "sub" / "30").unlink()
    (tree / "aa").write_bytes(os.urandom(3_000))
    alice.share(tree, group, "--replace")
    got = bob.fetch(group, "tree", dest)
    names = sorted(path.relative_to(tree) for path in tree.rglob("*"))
    assert sorted(path.relative_to(dest / "tree") for path in (dest / "tree").rglob("*")) == names
    assert got["fetched_bytes"] <= 4 * SMALL_PIECE
    assert (dest / "tree.old" / "notes").read_text() == "bob's own"
