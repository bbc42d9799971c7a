"""Inputs as they come in real life: empty, tiny, huge, oddly named, and very many."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common import limits
from tests.support.processes import Person, Swarm, content

PIECE = limits.PIECE_LENGTH_DEFAULT
GIB = 1 << 30


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE])
def test_sizes_about_the_edges_of_pieces(
    swarm: Swarm, alice: Person, bob: Person, size: int
) -> None:
    group = alice.group_with(bob)
    path = swarm.file(size)
    shared = alice.share(path, group)
    assert (shared["size_bytes"], shared["pieces"]) == (size, -(-size // PIECE))
    got = bob.fetch(group, path.name, swarm.folder())
    assert (got["size_bytes"], got["digest"]) == (size, shared["digest"])
    assert Path(got["path"]).read_bytes() == path.read_bytes()
    assert bob.state_of(group, path.name) == "complete"
    assert bob.files(group)[path.name]["seeders"] == 2


@pytest.mark.parametrize(
    "name",
    [
        "two words.bin",
        " leading.bin",
        "Größe – 東京 ελληνικά.bin",
        "emoji 🎞️.bin",
        'quote\'s "and" $HOME `x`.bin',
        "-n",
        "--help",
        "a" * 200 + ".bin",
        "#hash.txt",
        "percent%20.bin",
    ],
)
def test_names_of_all_kinds(swarm: Swarm, alice: Person, bob: Person, name: str) -> None:
    group = alice.group_with(bob)
    path = swarm.file(1000, name)
    ran = alice.run("upload-file", path, group)
    if ran.code != 0:
        # A name may be refused, with itself in the error; it is then shared under another.
        assert name[:20] in ran.err, str(ran)
        name = "renamed"
        alice.ok("upload-file", path, group, "--name", name)
    assert list(alice.files(group)) == [name]
    dest = swarm.folder()
    bob.ok("download-file", "--", group, name, dest)
    assert (dest / name).read_bytes() == path.read_bytes()
    assert f"[C] [{group}] {name}" in bob.ok("show-downloads").splitlines()
    bob.ok("stop-share", "--", group, name)


def test_a_path_that_is_no_text_is_refused_in_words(
    swarm: Swarm, alice: Person, bob: Person
) -> None:
    group = alice.group_with(bob)
    folder = Path(os.fsdecode(os.fsencode(swarm.folder()) + b"/caf\xe9"))
    folder.mkdir()
    path = swarm.file(1000, folder=folder)
    assert "UTF-8" in alice.refused("upload-file", path, group, code=2)
    alice.share(swarm.file(1000, path.name), group)
    assert "UTF-8" in bob.refused("download-file", group, path.name, folder, code=2)
    # A way that is text may lead there all the same.
    link = swarm.root / swarm.fresh("link")
    link.symlink_to(folder)
    bob.fetch(group, path.name, link / "copy")
    assert bob.downloads()[(group, path.name)]["path"].endswith("/caf\\xe9/copy")
    assert (folder / "copy").stat().st_size == 1000


@pytest.mark.parametrize("transport", ["tcp"], indirect=True)
def test_a_file_of_five_gibibytes_with_holes(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    path = swarm.folder() / "sparse.bin"
    marks = {0: b"begin", 1 << 32: b"beyond four gibibytes", 5 * GIB - 3: b"end"}
    with path.open("wb") as file:
        for offset, mark in marks.items():
            file.seek(offset)
            file.write(mark)
    shared = alice.share(path, group, "--piece-size", "4M")
    assert (shared["size_bytes"], shared["pieces"]) == (5 * GIB, 1280)
    got = bob.fetch(group, path.name, swarm.folder())
    assert got["digest"] == shared["digest"]
    copy = Path(got["path"])
    assert copy.stat().st_size == 5 * GIB
    assert copy.stat().st_blocks * 512 < GIB // 10  # what is nothing takes no room
    with copy.open("rb") as file:
        for offset, mark in marks.items():
            file.seek(offset)
            assert file.read(len(mark)) == mark
    assert bob.state_of(group, path.name) == "complete"
    bob.ok("stop-share", group, path.name)
    alice.ok("stop-share", group, path.name)


def test_a_folder_of_two_thousand_small_files(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder("many")
    for at in range(20):
        sub = folder / f"{at:02} Ordner"
        sub.mkdir()
        for number in range(100):
            size = 0 if number % 10 == 0 else (at * 100 + number) * 7 % 5000
            (sub / f"{number:03} ä.txt").write_bytes(content(size, at * 100 + number))
    (folder / "empty").mkdir()
    (folder / "empty" / "more empty").mkdir()
    (folder / "run.sh").write_bytes(b"#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    shared = alice.share(folder, group)
    assert shared["files"] == 2001
    dest = swarm.folder()
    bob.fetch(group, folder.name, dest)
    assert listing(dest / folder.name) == listing(folder)
    assert (dest / folder.name / "run.sh").stat().st_mode & 0o111
    assert [entry.name for entry in dest.iterdir()] == [folder.name]


def listing(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


def test_an_empty_folder(swarm: Swarm, alice: Person, bob: Person) -> None:
    group = alice.group_with(bob)
    folder = swarm.folder("void")
    (folder / "nothing").mkdir()
    shared = alice.share(folder, group)
    assert (shared["size_bytes"], shared["files"], shared["pieces"]) == (0, 0, 0)
    dest = swarm.folder()
    bob.fetch(group, folder.name, dest)
    assert listing(dest / folder.name) == {"nothing": None}


def test_a_user_in_three_groups(swarm: Swarm, alice: Person, bob: Person, carol: Person) -> None:
    mine, bobs, carols = alice.group_with(bob), bob.group_with(alice), carol.group_with(alice)
    paths = {group: swarm.file(10_000, "report.pdf") for group in (mine, bobs, carols)}
    for group, owner in ((mine, bob), (bobs, bob), (carols, carol)):
        owner.share(paths[group], group)
    for group, path in paths.items():
        got = alice.fetch(group, "report.pdf", swarm.folder())
        assert Path(got["path"]).read_bytes() == path.read_bytes()
    for group in paths:
        assert alice.files(group)["report.pdf"]["seeders"] == 2
