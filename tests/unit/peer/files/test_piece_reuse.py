"""Pieces from local files: candidates, verification, and sharing of blocks."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from peer.files import local_trees, piece_reuse, reuse_plan, sharing
from peer.files.errors import Cancelled, DiskFull
from peer.files.local_trees import LocalTree
from peer.files.partial_content import PartialContent
from peer.files.piece_reuse import PieceReuse
from peer.files.reuse_plan import ReusePlan, find
from tests.support.partial_downloads import PIECE, Sample, snapshot


class Update:
    """A content in ``new``, to be put together from trees; ``fetched`` are the other pieces."""

    def __init__(self, new: Path) -> None:
        self.sample = Sample(new)
        self.place = new.parent / "to" / "name"
        self.place.parent.mkdir(exist_ok=True)
        self.fetched: set[int] = set()
        self.part: PartialContent | None = None

    def plan(self, *trees: LocalTree, name: str = "name") -> ReusePlan:
        return find(self.sample.manifest, trees, name)

    def run(self, *trees: LocalTree, name: str = "name") -> set[int]:
        """The pieces that were not found; the whole is verified with them."""
        plan = self.plan(*trees, name=name)
        self.part = part = self.sample.begin(self.place)
        found: set[int] = set()
        lock = threading.Lock()

        def report(index: int, held: bool) -> None:
            with lock:
                assert held == part.has(index)
                found.update([index] if held else [])

        reuse = PieceReuse(part, plan)
        try:
            reuse.run(plan.pieces(), lambda: True, report)
        finally:
            reuse.close()
        missing = set(range(len(self.sample.pieces))) - found
        self.sample.fill(part, sorted(missing))
        part.finalize()
        part.close()
        assert snapshot(self.place) == snapshot(self.sample.source)
        return missing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of 60 files that do not fill pieces, and a copy of it to be changed."""
    for root in ("old", "new"):
        (tmp_path / root / "sub").mkdir(parents=True)
    for number in range(60):
        data = (b"%d." % number) * (1500 + 37 * number)
        (tmp_path / "old" / "sub" / f"{number:03}").write_bytes(data)
    shutil.copytree(tmp_path / "old", tmp_path / "new", dirs_exist_ok=True)
    return tmp_path / "new"


def digested(path: Path, piece_length: int = PIECE) -> LocalTree:
    return LocalTree(str(path), sharing.digest(str(path), piece_length=piece_length).manifest)


def changed_pieces(update: Update, name: str) -> set[int]:
    """The pieces that hold bytes of a file."""
    at = 0
    for entry in update.sample.manifest.entries:
        if entry.path == name:
            return set(range(at // PIECE, (at + entry.size - 1) // PIECE + 1))
        at += entry.size
    raise AssertionError(name)


@pytest.mark.parametrize("known", [False, True])
def test_unchanged_files_are_found_wherever_the_stream_moved_them(
    folder: Path, known: bool
) -> None:
    old = folder.parent / "old"
    (folder / "added").write_bytes(b"new" * 777)
    (folder / "sub" / "007").write_bytes(b"other")
    update = Update(folder)
    tree = digested(old) if known else LocalTree(str(old))
    assert update.run(tree) == changed_pieces(update, "added") | changed_pieces(update, "sub/007")


@pytest.mark.parametrize("known", [False, True])
def test_a_changed_file_gives_every_piece_that_did_not_change(tmp_path: Path, known: bool) -> None:
    data = os.urandom(20 * PIECE + 5)
    (tmp_path / "old").write_bytes(data)
    (tmp_path / "new").write_bytes(
        data[: 3 * PIECE] + b"x" + data[3 * PIECE + 1 :] + os.urandom(PIECE)
    )
    update = Update(tmp_path / "new")
    tree = digested(tmp_path / "old") if known else LocalTree(str(tmp_path / "old"))
    assert update.run(tree) == {3, 20, 21}


def test_a_file_is_found_by_other_pieces_too(tmp_path: Path) -> None:
    data = os.urandom(20 * PIECE)
    (tmp_path / "old").write_bytes(data)
    (tmp_path / "new").write_bytes(data + b"more")
    assert Update(tmp_path / "new").run(digested(tmp_path / "old", 4 * PIECE)) == {20}


def test_a_known_piece_is_found_by_its_digest_at_any_place(tmp_path: Path) -> None:
    data = os.urandom(4 * PIECE)
    (tmp_path / "old").write_bytes(data)
    (tmp_path / "new").write_bytes(os.urandom(PIECE) + data[2 * PIECE :] + data[: 2 * PIECE])
    tree = digested(tmp_path / "old")._replace(by_path=False)
    assert Update(tmp_path / "new").run(tree) == {0}


def test_a_piece_that_surely_differs_is_not_read(tmp_path: Path) -> None:
    data = os.urandom(8 * PIECE)
    (tmp_path / "old").write_bytes(data)
    (tmp_path / "new").write_bytes(data[: 7 * PIECE] + os.urandom(PIECE))
    update = Update(tmp_path / "new")
    assert update.plan(digested(tmp_path / "old")).pieces() == list(range(7))
    assert update.plan(LocalTree(str(tmp_path / "old"))).pieces() == list(range(8))


@pytest.mark.parametrize("known", [False, True])
def test_files_that_were_moved_are_found_by_name_size_and_time(folder: Path, known: bool) -> None:
    old = folder.parent / "old"
    shutil.move(old / "sub", old / "elsewhere")
    (folder / "first").write_bytes(b"so that no piece is where it was")
    update = Update(folder)
    assert update.run(digested(old) if known else LocalTree(str(old))) == {0}


def test_a_renamed_file_is_found_by_its_size(tmp_path: Path) -> None:
    data = os.urandom(9 * PIECE + 3)
    (tmp_path / "old" / "deep").mkdir(parents=True)
    (tmp_path / "old" / "deep" / "b.img").write_bytes(data)
    (tmp_path / "new").write_bytes(data)
    assert Update(tmp_path / "new").run(LocalTree(str(tmp_path / "old")), name="a.img") == set()


def test_a_folder_of_the_name_beneath_is_taken_too(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "backup" / "name")
    plan = Update(folder).plan(LocalTree(str(folder.parent / "backup")))
    ranges = next(plan.candidates(0))
    assert {one.file.root for one in ranges} == {str(folder.parent / "backup" / "name")}
    assert all(one.file.likely for one in ranges)


def test_h105_candidates_of_equal_size_are_bounded_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 20 * PIECE
    (tmp_path / "new").mkdir()
    (tmp_path / "old").mkdir()
    for number in range(30):
        (tmp_path / "old" / f"o{number}").write_bytes(os.urandom(size))
    for number in range(3):
        (tmp_path / "new" / f"n{number}").write_bytes(os.urandom(size))
    update = Update(tmp_path / "new")
    tree = LocalTree(str(tmp_path / "old"))
    plan = update.plan(tree)
    assert max(len(list(plan.candidates(index))) for index in plan.pieces()) == (
        reuse_plan.CANDIDATES_MAX
    )
    read: list[int] = []
    real = local_trees.LocalFiles.read
    monkeypatch.setattr(local_trees.LocalFiles, "read", lambda *args: read.append(1) or real(*args))
    assert len(update.run(tree)) == 60
    tries = reuse_plan.CANDIDATES_MAX * (piece_reuse.WEAK_TRIES + piece_reuse.THREADS_MAX)
    assert len(read) <= tries


def test_h105_a_walk_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reuse_plan, "WALKED_MAX", 50)
    for number in range(200):
        (tmp_path / "old" / f"{number:03}").mkdir(parents=True)
    (tmp_path / "new").write_bytes(os.urandom(5 * PIECE))
    listed: list[str] = []
    finder = reuse_plan._Finder(Update(tmp_path / "new").sample.manifest, "x", lambda: False)
    for path, _ in finder._listed(str(tmp_path / "old"), ""):
        listed.append(path)
    assert len(listed) == 50


def test_h105_equal_pieces_are_matched_in_linear_time(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x" * 2000 * PIECE)
    (tmp_path / "new").write_bytes(b"x" * 3000 * PIECE)
    finder = reuse_plan._Finder(Update(tmp_path / "new").sample.manifest, "name", lambda: False)
    finder.compare_digests(digested(tmp_path / "old"))
    assert set(finder._by_digest) == {0}
    assert not finder._wanted_digests()


def test_a_search_can_be_cancelled(folder: Path) -> None:
    manifest = Sample(folder).manifest
    with pytest.raises(Cancelled):
        find(manifest, [LocalTree(str(folder.parent / "old"))], "name", lambda: True)


def test_h106_links_fifos_and_folders_give_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(3 * PIECE))
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    for name in ("link", "fifo", "folder", "plain", "linked"):
        (new / name).write_bytes(secret.read_bytes())
    (old / "link").symlink_to(secret)
    (tmp_path / "target").mkdir()
    os.mkfifo(old / "fifo")
    (old / "folder").mkdir()
    (old / "linked").symlink_to(tmp_path / "target")
    (old / "loop").symlink_to(old)
    plan = Update(new).plan(LocalTree(str(old)))
    assert plan.pieces() == []
    assert Update(new).plan(LocalTree(str(tmp_path / "nowhere"))).pieces() == []


def test_h106_a_file_that_is_replaced_after_the_search_gives_nothing(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(os.urandom(5 * PIECE))
    shutil.copy(old, tmp_path / "new")
    update = Update(tmp_path / "new")
    plan = update.plan(LocalTree(str(old)))
    part = update.sample.begin(update.place)
    for change in (
        lambda: old.write_bytes(b"short"),
        lambda: (old.unlink(), os.mkfifo(old)),
        lambda: (old.unlink(), old.symlink_to(tmp_path / "new")),
        old.unlink,
    ):
        change()
        reuse = PieceReuse(part, plan)
        reuse.run(plan.pieces(), lambda: True, lambda *_: None)
        reuse.close()
        assert part.held_count == 0
    part.discard()


def test_f107_a_full_disk_ends_a_run_and_the_rest_can_be_looked_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").write_bytes(os.urandom(9 * PIECE))
    shutil.copy(tmp_path / "old", tmp_path / "new")
    update = Update(tmp_path / "new")
    plan = update.plan(LocalTree(str(tmp_path / "old")))
    part = update.sample.begin(update.place)
    real = PartialContent.write_run
    writes: list[int] = []

    def write_run(self: PartialContent, first: int, count: int, data: memoryview) -> set[int]:
        writes.append(first)
        if len(writes) == 4:
            raise DiskFull("no space left")
        return real(self, first, count, data)

    monkeypatch.setattr(PartialContent, "write_run", write_run)
    reuse = PieceReuse(part, plan)
    left = dict.fromkeys(plan.pieces())
    with pytest.raises(DiskFull):
        reuse.run(tuple(left), lambda: True, lambda index, _: left.pop(index))
    assert left
    reuse.run(tuple(left), lambda: True, lambda index, _: left.pop(index))
    reuse.close()
    assert not left
    assert part.is_complete
    part.discard()


def test_h106_files_that_change_while_they_are_read_give_no_wrong_piece(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_bytes(os.urandom(60 * PIECE))
    shutil.copy(old, tmp_path / "new")
    update = Update(tmp_path / "new")
    ended = threading.Event()

    def change() -> None:
        with old.open("r+b", buffering=0) as file:
            while not ended.is_set():
                file.seek(os.urandom(1)[0] % 60 * PIECE)
                file.write(os.urandom(100))

    changing = threading.Thread(target=change)
    changing.start()
    try:
        update.run(LocalTree(str(old)))  # it verifies the whole
    finally:
        ended.set()
        changing.join()


def test_f105_reused_pieces_survive_a_restart(folder: Path) -> None:
    update = Update(folder)
    plan = update.plan(LocalTree(str(folder.parent / "old")))
    part = update.sample.begin(update.place)
    reuse = PieceReuse(part, plan)
    reuse.run(plan.pieces()[:5], lambda: True, lambda *_: None)
    reuse.close()
    part.checkpoint()
    part.close()
    again = update.sample.recover(update.place)
    assert again.held_indexes() == plan.pieces()[:5]
    again.discard()


@pytest.fixture
def sharing_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that shares blocks between files."""
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs"):
        pytest.skip("mounting a file system that shares blocks needs root and mkfs.xfs")
    image, disk = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    disk.mkdir()
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", str(image)], check=True)
    if subprocess.run(["mount", "-o", "loop", str(image), str(disk)]).returncode != 0:
        pytest.skip("cannot mount an image")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_blocks_are_shared_where_the_file_system_can(
    sharing_disk: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = os.urandom(100 * PIECE + 99)
    old, new = sharing_disk / "old", sharing_disk / "new"
    if kind == "folder":
        old.mkdir()
        new.mkdir()
        old, new = old / "big", new / "big"
        for number in range(30):
            (old.parent / f"{number}").write_bytes(data[number : number + 700])
            (new.parent / f"{number}").write_bytes(data[number : number + 700])
    old.write_bytes(data)
    new.write_bytes(data[: 50 * PIECE] + b"x" + data[50 * PIECE + 1 :])
    reads: list[int] = []
    real = local_trees.LocalFiles.read
    monkeypatch.setattr(
        local_trees.LocalFiles, "read", lambda *args: reads.append(1) or real(*args)
    )
    update = Update(sharing_disk / "new")
    assert len(update.run(LocalTree(str(sharing_disk / "old")))) in (1, 2)
    assert not reads
    fragments = subprocess.run(
        ["filefrag", "-v", str(update.place if kind == "file" else update.place / "big")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "shared" in fragments
