"""upload_file, list_files, stop_share and the digests, by real processes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import blake3
import pytest

from common import limits
from tests.support.processes import SMALL_PIECE, Person, Swarm, run_program
from tests.support.waiting import wait_for

PIECE = limits.PIECE_LENGTH_DEFAULT
DIGESTS: dict[str, Callable[[bytes], str]] = {
    "blake3": lambda data: blake3.blake3(data).hexdigest(),
    "sha1": lambda data: hashlib.sha1(data).hexdigest(),
    "sha256": lambda data: hashlib.sha256(data).hexdigest(),
}


def test_a_shared_file_is_listed_for_the_members(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(3 * PIECE + 1)
    shared = alice.share(path, group)
    assert shared.pop("elapsed_s") >= 0
    assert shared.pop("joined") is False
    assert shared.pop("again") is False
    assert (shared.pop("notes"), shared.pop("skipped")) == ([], [])
    assert (shared.pop("skipped_unnamed"), shared.pop("excluded")) == (0, 0)
    assert shared.pop("expires") is None
    assert shared == {
        "name": path.name,
        "size_bytes": 3 * PIECE + 1,
        "files": 1,
        "folder": False,
        "pieces": 4,
        "piece_bytes": PIECE,
        "algorithm": "blake3",
        "digest": DIGESTS["blake3"](path.read_bytes()),
        "seeders": 1,
        "leechers": 0,
        "shared_by": ["alice"],
        "away": False,
        "version": 1,
        "current": True,
    }
    assert bob.json("list-files", group) == [shared]
    assert path.name in bob.ok("list-files", group)
    stranger = carol.refused("list-files", group)
    assert stranger.replace(group, "G") == carol.refused("list-files", "nosuchgroup").replace(
        "nosuchgroup", "G"
    )


@pytest.mark.parametrize("algorithm", DIGESTS)
def test_digests_are_those_of_the_usual_programs(
    swarm: Swarm, alice: Person, bob: Person, algorithm: str
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(2 * PIECE + 12345)
    options = [] if algorithm == "blake3" else ["--digest", algorithm]
    shared = alice.share(path, group, *options)
    assert shared["algorithm"] == algorithm
    assert shared["digest"] == DIGESTS[algorithm](path.read_bytes())
    assert bob.files(group)[path.name]["digest"] == shared["digest"]
    assert bob.fetch(group, path.name, swarm.folder())["digest"] == shared["digest"]
    program = {"blake3": "b3sum"}.get(algorithm, f"{algorithm}sum")
    if shutil.which(program):
        assert run_program([program, str(path)]).out.split()[0] == shared["digest"]


def test_the_same_content_of_a_second_member_joins(
    swarm: Swarm, alice: Person, bob: Person, carol: Person
) -> None:
    group = alice.group_with(bob, carol)
    path = swarm.file(PIECE)
    twin = swarm.folder() / path.name
    shutil.copy(path, twin)
    assert alice.share(path, group)["joined"] is False
    assert bob.share(twin, group)["joined"] is True
    row = carol.files(group)[path.name]
    assert row["seeders"] == 2
    assert sorted(row["shared_by"]) == ["alice", "bob"]
    alice.ok("stop-share", group, path.name)
    assert carol.files(group)[path.name]["shared_by"] == ["bob"]
    got = carol.fetch(group, path.name, swarm.folder())
    assert [source["user"] for source in got["sources"]] == ["bob"]


def test_the_same_content_in_other_pieces_joins_or_has_another_name(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(PIECE)
    alice.share(path, group)
    joined = bob.share(path, group, "--piece-size", "16K")
    assert (joined["joined"], joined["pieces"]) == (True, 1)
    assert "pieces of 256 KiB" in joined["notes"][0]
    bob.share(path, group, "--piece-size", "16K", "--name", "fine")
    assert bob.files(group)["fine"]["pieces"] == PIECE // SMALL_PIECE


def test_another_content_under_a_taken_name_is_refused(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    other = swarm.file(1000, path.name)
    before = bob.json("list-files", group), bob.status()["shares"]
    assert path.name in bob.refused("upload-file", other, group)
    assert (bob.json("list-files", group), bob.status()["shares"]) == before
    bob.share(other, group, "--name", "another name")
    assert set(bob.files(group)) == {path.name, "another name"}


def test_sharing_again_changes_nothing(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    before = alice.json("list-files", group), alice.status()["shares"]
    alice.share(path, group)
    assert (alice.json("list-files", group), alice.status()["shares"]) == before
    bob.fetch(group, path.name, swarm.folder())


def test_a_member_shares_a_new_version_after_withdrawing_the_old_one(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.share(path, group)
    alice.ok("stop-share", group, path.name)
    other = swarm.file(2000, path.name)
    alice.share(other, group)
    got = bob.fetch(group, path.name, swarm.folder())
    assert Path(got["path"]).read_bytes() == other.read_bytes()


def test_a_folder_is_one_share(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder("album")
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / "empty folder").mkdir()
    for at, name in enumerate(["a.bin", "sub/b.bin", "sub/deeper/c.bin"]):
        (folder / name).write_bytes(bytes([at]) * (PIECE + at))
    (folder / "sub" / "empty").touch()
    shared = alice.share(folder, group)
    assert (shared["name"], shared["files"]) == (folder.name, 4)
    assert shared["size_bytes"] == 3 * PIECE + 3
    dest = swarm.folder()
    bob.fetch(group, folder.name, dest)
    assert tree(dest / folder.name) == tree(folder)


def tree(folder: Path) -> dict[str, bytes | None]:
    """All entries below a folder: bytes of files, None for folders."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def test_stop_share_is_for_this_file_in_this_group(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    one, two = alice.group_with(bob), alice.group_with(bob)
    path, other = swarm.file(1000), swarm.file(1000)
    for group in (one, two):
        alice.share(path, group)
        alice.share(other, group)
    alice.ok("stop-share", one, path.name)
    assert list(bob.files(one)) == [other.name]
    assert set(bob.files(two)) == {path.name, other.name}
    bob.refused("download-file", one, path.name, swarm.folder())
    assert bob.fetch(two, path.name, swarm.folder())["sources"][0]["user"] == "alice"
    assert path.exists()
    alice.refused("stop-share", one, path.name)
    bob.refused("stop-share", one, other.name)


def test_a_share_of_a_lost_device_gives_its_name_back(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    lost = swarm.person(swarm.fresh("dave"))
    group = lost.group_with(alice)
    path, other = swarm.file(1000), swarm.file(1000)
    lost.share(path, group)
    lost.share(other, group)
    lost.ok("logout")
    lost.down()
    here = swarm.person(lost.name, log_in=False)
    here.ok("login", lost.name, lost.password)
    here.ok("stop-share", group, path.name)
    assert list(alice.files(group)) == [other.name]
    here.refused("stop-share", group, path.name)
    here.down()


def test_a_copy_of_ones_own_share_does_not_take_its_place(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(100_000)
    alice.share(path, group)
    copy = Path(alice.fetch(group, path.name, swarm.folder())["path"])
    copy.unlink()
    got = bob.fetch(group, path.name, swarm.folder())
    assert [source["user"] for source in got["sources"]] == ["alice"]


def test_one_content_under_two_names_is_two_shares(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(100_000)
    for name in ("one", "two"):
        alice.share(path, group, "--name", name)
    assert set(bob.files(group)) == {"one", "two"}
    alice.ok("stop-share", group, "one")
    got = bob.fetch(group, "two", swarm.folder())
    assert [source["user"] for source in got["sources"]] == ["alice"]
    alice.ok("stop-share", group, "two")
    assert bob.files(group)["two"]["shared_by"] == ["bob"]


def test_one_content_at_two_places_outlives_the_first(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    groups = [alice.group_with(bob) for _ in range(2)]
    path = swarm.file(100_000)
    twin = swarm.folder() / "twin"
    shutil.copy2(path, twin)
    alice.share(path, groups[0])
    alice.share(twin, groups[1])
    path.unlink()
    got = bob.fetch(groups[1], "twin", swarm.folder())
    assert Path(got["path"]).read_bytes() == twin.read_bytes()
    wait_for(lambda: path.name not in alice.files(groups[0]), "its withdrawal")
    assert path.name in alice.status()["trouble"]


def test_stop_share_lasts_over_a_restart(swarm: Swarm, alice: Person) -> None:
    dave = swarm.person(swarm.fresh("dave"))
    group = dave.group_with(alice)
    kept, stopped = swarm.file(1000), swarm.file(1000)
    for path in (kept, stopped):
        dave.share(path, group)
    dave.ok("stop-share", group, stopped.name)
    dave.restart()
    wait_for(lambda: alice.files(group)[kept.name]["seeders"] == 1, "the other share")
    assert list(alice.files(group)) == [kept.name]
    assert dave.status()["shares"] == 1
    dave.down()


def test_the_same_name_in_two_groups_may_be_different_contents(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    one, two = alice.group_with(bob), alice.group_with(bob)
    paths = [swarm.file(PIECE + 1, "same.bin"), swarm.file(PIECE + 1, "same.bin")]
    for group, path in zip((one, two), paths, strict=True):
        alice.share(path, group)
    for group, path in zip((one, two), paths, strict=True):
        got = bob.fetch(group, "same.bin", swarm.folder())
        assert Path(got["path"]).read_bytes() == path.read_bytes()
    assert {key for key, row in bob.downloads().items() if row["state"] == "complete"} >= {
        (one, "same.bin"),
        (two, "same.bin"),
    }
    bob.ok("stop-share", one, "same.bin")
    assert bob.files(one)["same.bin"]["seeders"] == 1
    assert bob.files(two)["same.bin"]["seeders"] == 2


def test_relative_paths_are_taken_from_where_they_were_typed(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000)
    alice.ok("upload-file", path.name, group, cwd=path.parent)
    dest = swarm.folder()
    bob.ok("download-file", group, path.name, ".", cwd=dest)
    assert (dest / path.name).read_bytes() == path.read_bytes()
    bob.ok("download-file", group, path.name, "copy.bin", cwd=dest)
    assert (dest / "copy.bin").read_bytes() == path.read_bytes()
