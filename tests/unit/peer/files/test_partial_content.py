"""Downloads on disk: what is held is right, what is visible is complete, nothing lies elsewhere."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import limits
from common.digests import Algorithm
from common.errors import ConfigError, LocalProtocolError, StorageError
from common.ids import ContentId
from common.manifest import Entry, Manifest, encode, manifest_id
from peer.files import disk_space, open_part, partfile, partfolder, paths, sharing, syscalls
from peer.files.destination import Destination, part_name
from peer.files.errors import (
    AlreadyExists,
    Cancelled,
    DigestMismatch,
    DiskFull,
    IOFailed,
    PieceNotHeld,
    ReadOnly,
    StorageClosed,
    TransientStorageError,
    UnsafeDestination,
    WrongPiece,
    storage_error,
)
from peer.files.in_use_guard import InUseGuard
from peer.files.journal import Journal
from peer.files.partial_content import PartialContent
from peer.files.whole_digest import DIGEST_TRUST_S
from tests.support.descriptors import open_files
from tests.support.paths import ROOT

PIECE = 16 * 1024
MEANWHILE_S = 0.2  # for another thread, if nothing holds it up: it needs next to nothing
NOISE = bytes(blake3(b"storage").digest(length=9 * PIECE + 77))


class Sample:
    """A content to download: where it comes from, its manifest and its pieces."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.manifest = sharing.digest(str(source), piece_length=PIECE).manifest
        self.id = manifest_id(encode(self.manifest))
        stream = b"".join(
            (source / entry.path if entry.path else source).read_bytes()
            for entry in self.manifest.entries
            if entry.kind.name != "FOLDER"
        )
        self.pieces = [stream[at : at + PIECE] for at in range(0, len(stream), PIECE)]

    def begin(self, place: Path, **more: Any) -> PartialContent:
        return open_part.create(
            str(place), self.manifest, self.id, str(place.parent / "journal"), **more
        )

    def resume(self, place: Path) -> PartialContent:
        return open_part.resume(str(place), self.manifest, self.id, str(place.parent / "journal"))

    def fill(self, download: PartialContent, indexes: list[int] | None = None) -> None:
        for index in range(len(self.pieces)) if indexes is None else indexes:
            download.write_piece(index, self.pieces[index])

    def missing(self, download: PartialContent) -> list[int]:
        return [index for index in range(len(self.pieces)) if not download.has(index)]


@pytest.fixture
def file_sample(tmp_path: Path) -> Sample:
    (tmp_path / "source").write_bytes(NOISE)
    return Sample(tmp_path / "source")


@pytest.fixture
def folder_sample(tmp_path: Path) -> Sample:
    root = tmp_path / "source"
    (root / "sub" / "sub").mkdir(parents=True)
    (root / "void" / "inner").mkdir(parents=True)
    (root / "a").write_bytes(NOISE[:300])
    (root / "big").write_bytes(NOISE)
    (root / "none").write_bytes(b"")
    (root / "run").write_bytes(b"#!/bin/sh\n")
    (root / "run").chmod(0o755)
    for number in range(40):
        (root / "sub" / "sub" / f"{number:02}").write_bytes(NOISE[number : number + 900])
    (root / "sub" / "zeros").write_bytes(bytes(4 * PIECE))
    return Sample(root)


@pytest.fixture(params=["file", "folder"])
def sample(request: pytest.FixtureRequest) -> Sample:
    found: Sample = request.getfixturevalue(f"{request.param}_sample")
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to" / "name"


@pytest.fixture(autouse=True)
def no_leaks(tmp_path: Path) -> Iterator[None]:
    yield
    assert not open_files(tmp_path)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything beneath a path: kind, permission to execute, and bytes."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        mode = path.lstat().st_mode
        data = path.read_bytes() if stat.S_ISREG(mode) else b""
        found[str(path.relative_to(root))] = (stat.S_IFMT(mode) | mode & 0o100, data)
    return found


def listing(place: Path) -> set[str]:
    return set(os.listdir(place.parent))


# -- from begin to end --------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [None, 1, 2])
def test_pieces_in_any_order_make_the_same_content(
    seed: int | None, sample: Sample, place: Path
) -> None:
    order = list(range(len(sample.pieces)))
    if seed is not None:
        random.Random(seed).shuffle(order)
    download = sample.begin(place)
    for count, index in enumerate(order):
        assert listing(place) == {"name.part", "journal"}
        assert not download.is_complete
        download.write_piece(index, memoryview(sample.pieces[index]))
        assert download.read_piece(index) == sample.pieces[index]
        if count % 3 == 0:
            download.checkpoint()
        if count % 4 == 0:
            download.advance_digest()
    assert download.is_complete
    found = download.finalize()
    assert listing(place) == {"name"}
    assert snapshot(place) == snapshot(sample.source)
    assert found == sharing.place_of(sample.manifest, str(place))
    assert download.read_piece(0) == sample.pieces[0]
    download.close()


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1])
def test_files_of_every_size_around_a_piece(size: int, tmp_path: Path, place: Path) -> None:
    (tmp_path / "source").write_bytes(NOISE[:size])
    sample = Sample(tmp_path / "source")
    download = sample.begin(place)
    sample.fill(download)
    download.finalize()
    download.close()
    assert place.read_bytes() == NOISE[:size]


def test_an_empty_folder(tmp_path: Path, place: Path) -> None:
    (tmp_path / "source").mkdir()
    sample = Sample(tmp_path / "source")
    download = sample.begin(place)
    download.finalize()
    download.close()
    assert list(place.iterdir()) == []


def test_many_threads_write_different_pieces(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    barrier = threading.Barrier(4)

    def work(first: int) -> None:
        barrier.wait(10)
        for index in range(first, len(sample.pieces), 4):
            download.write_piece(index, sample.pieces[index])
            download.checkpoint()
            download.advance_digest()

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_a_wrong_piece_is_refused_and_not_written(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    flipped = bytearray(sample.pieces[1])
    flipped[100] ^= 4
    for wrong in (flipped, sample.pieces[0], sample.pieces[1][:-1], b""):
        with pytest.raises(WrongPiece):
            download.write_piece(1, wrong)
    assert sample.missing(download) == list(range(len(sample.pieces)))
    for index in (-1, len(sample.pieces), 1 << 63):
        with pytest.raises(LocalProtocolError):
            download.write_piece(index, sample.pieces[0])
        with pytest.raises(LocalProtocolError):
            download.read_piece(index)
    with pytest.raises(LocalProtocolError):
        download.read_piece(1)
    with pytest.raises(LocalProtocolError):
        download.finalize()
    download.discard()


def test_a_run_is_held_but_for_the_wrong_ones(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    count = len(sample.pieces)
    data = bytearray(b"".join(sample.pieces))
    data[PIECE + 5] ^= 1
    assert download.write_run(0, count, memoryview(data)) == {1}
    assert sample.missing(download) == [1]
    assert bytes(download.read_run(2, count - 2)) == b"".join(sample.pieces[2:])
    for first, some in ((0, 2), (count - 1, 2), (-1, 2), (2, 0)):
        with pytest.raises(LocalProtocolError):
            download.read_run(first, some)
    with pytest.raises(LocalProtocolError):
        download.write_run(count - 1, 2, memoryview(sample.pieces[-1]))
    assert download.write_run(1, 1, memoryview(sample.pieces[1])) == set()
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_a_run_that_is_longer_or_shorter_than_it_says(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    two = sample.pieces[0] + sample.pieces[1]
    assert download.write_run(0, 2, memoryview(two + b"x")) == {1}
    assert download.write_run(1, 3, memoryview(sample.pieces[1] + b"x")) == {2, 3}
    assert download.write_run(0, 2, memoryview(b"")) == {0, 1}
    assert [download.has(index) for index in range(4)] == [True, True, False, False]
    download.discard()


def test_nothing_of_a_run_is_held_that_could_not_be_written(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = sample.begin(place)
    data = memoryview(b"".join(sample.pieces))
    pwrite = os.pwrite

    def full(fd: int, data: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DiskFull):
        download.write_run(0, len(sample.pieces), data)
    assert download.held_count == 0
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert download.write_run(0, len(sample.pieces), data) == set()
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_zeros_within_a_run_stay_a_hole(tmp_path: Path, place: Path) -> None:
    (tmp_path / "source").write_bytes(NOISE[:PIECE] + bytes(100 * PIECE) + NOISE[:PIECE])
    sample = Sample(tmp_path / "source")
    download = sample.begin(place)
    assert download.write_run(0, 102, memoryview(b"".join(sample.pieces))) == set()
    download.finalize()
    download.close()
    assert place.read_bytes() == (tmp_path / "source").read_bytes()
    assert place.stat().st_blocks * 512 <= 4 * PIECE


def test_a_run_with_a_damaged_piece_is_not_read(file_sample: Sample, place: Path) -> None:
    download = file_sample.begin(place)
    file_sample.fill(download)
    with open(download.part_path, "r+b") as part:
        part.seek(2 * PIECE + 7)
        part.write(bytes([file_sample.pieces[2][7] ^ 1]))
    with pytest.raises(DigestMismatch) as caught:
        download.read_run(1, 3)
    assert caught.value.pieces == (2,)
    assert file_sample.missing(download) == [2]
    download.discard()


def test_discarding_leaves_nothing(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download, [0, 2])
    download.checkpoint()
    download.discard()
    assert listing(place) == set()
    download.discard()
    with pytest.raises(StorageClosed):
        download.write_piece(1, sample.pieces[1])


def test_zeros_are_left_as_holes(tmp_path: Path, place: Path) -> None:
    (tmp_path / "source").write_bytes(bytes(64 * PIECE) + NOISE[:100] + bytes(64 * PIECE))
    sample = Sample(tmp_path / "source")
    download = sample.begin(place)
    sample.fill(download)
    assert Path(download.part_path).stat().st_blocks * 512 <= 4 * PIECE
    download.finalize()
    download.close()
    assert place.read_bytes() == sample.source.read_bytes()


ALGORITHMS = list(Algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("rest", [0, 77])
def test_what_need_not_be_fetched_is_known_by_its_digest_and_made(
    algorithm: Algorithm, rest: int, tmp_path: Path, place: Path
) -> None:
    """Zeros, the short last piece among them, and copies; what is left is as it was shared."""
    source = tmp_path / "source"
    noise = NOISE[: 2 * PIECE]
    source.write_bytes(bytes(3 * PIECE) + noise + noise[:PIECE] + bytes(2 * PIECE + rest))
    manifest = sharing.digest(str(source), algorithm, PIECE).manifest
    content = manifest_id(encode(manifest))
    download = open_part.create(str(place), manifest, content, str(tmp_path / "journal"))
    last = manifest.piece_count - 1
    zeros = (0, 1, 2, 6, 7) if rest == 0 else (0, 1, 2, 6, 7, 8)
    assert download.alike == (zeros, ((3, 5),))
    download.make_zeros(0, 3)
    download.make_zeros(6, last - 5)
    with pytest.raises(WrongPiece):
        download.make_zeros(4, 1)
    with pytest.raises(PieceNotHeld):
        download.copy_piece(5, 3)
    download.write_piece(3, noise[:PIECE])
    download.write_piece(4, noise[PIECE:])
    download.copy_piece(5, 3)
    download.finalize()
    download.close()
    assert place.read_bytes() == source.read_bytes()
    assert place.stat().st_blocks * 512 <= 4 * PIECE


def test_a_short_piece_at_the_end_is_like_no_other(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(NOISE[:PIECE] + NOISE[: PIECE // 2])
    assert disk_space.alike(sharing.digest(str(source), piece_length=PIECE).manifest) == ((), ())
    source.write_bytes(b"")
    assert disk_space.alike(sharing.digest(str(source), piece_length=PIECE).manifest) == ((), ())


def test_of_very_many_pieces_only_zeros_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(NOISE[:PIECE] * 2 + bytes(PIECE))
    manifest = sharing.digest(str(source), piece_length=PIECE).manifest
    assert disk_space.alike(manifest) == ((2,), ((0, 1),))
    monkeypatch.setattr(limits, "ALIKE_PIECES_MAX", 2)
    assert disk_space.alike(manifest) == ((2,), ())


def test_offsets_beyond_32_bits(tmp_path: Path, place: Path) -> None:
    """5 GiB of holes with some bytes near the end; the digest of the whole is left out here."""
    length = 1 << 22
    zero = Algorithm.BLAKE3.digest_of(bytes(length))
    last = NOISE[:PIECE]
    size = (5 << 30) + len(last)
    count = (5 << 30) // length
    beyond = (1 << 32) // length + 1
    solid = (NOISE * 30)[:length]
    digests = [zero] * count + [Algorithm.BLAKE3.digest_of(last)]
    digests[beyond] = Algorithm.BLAKE3.digest_of(solid)
    manifest = Manifest(
        1, Algorithm.BLAKE3, length, size, bytes(32), b"".join(digests), (Entry("", size),)
    )
    download = open_part.create(
        str(place), manifest, manifest_id(encode(manifest)), str(place.parent / "journal")
    )
    download.write_piece(beyond, solid)
    download.write_piece(count, last)
    download.write_piece(7, bytes(length))
    download.checkpoint()
    part = Path(download.part_path)
    assert part.stat().st_size == size
    assert part.stat().st_blocks * 512 < 3 * length
    with part.open("rb") as file:
        file.seek(beyond * length)
        assert file.read(length) == solid
        file.seek(5 << 30)
        assert file.read() == last
    assert download.read_piece(count) == last
    download.discard()


# -- where it may go ----------------------------------------------------------------------------


def test_a_destination_in_use_is_refused_and_left_alone(sample: Sample, place: Path) -> None:
    for name in ("name", "name.part"):
        taken = place.parent / name
        taken.write_bytes(b"mine")
        with pytest.raises(AlreadyExists, match=name):
            sample.begin(place)
        assert taken.read_bytes() == b"mine"
        assert listing(place) == {name}
        taken.unlink()
        taken.mkdir()
        with pytest.raises(AlreadyExists):
            sample.begin(place)
        taken.rmdir()


@pytest.mark.parametrize("name", ["name", "name.part"])
@pytest.mark.parametrize("kind", ["fifo", "link", "dangling", "device"])
def test_H30_a_destination_that_is_no_file_is_refused(
    name: str, kind: str, sample: Sample, place: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    planted = place.parent / name
    if kind == "fifo":
        os.mkfifo(planted)
    elif kind == "link":
        planted.symlink_to(victim)
    elif kind == "dangling":
        planted.symlink_to(tmp_path / "created")
    else:
        if os.geteuid() != 0:
            pytest.skip("making a device needs root")
        os.mknod(planted, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    for begin in (sample.begin, sample.resume):
        with pytest.raises(UnsafeDestination):
            begin(place)
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "created").exists()
    assert listing(place) <= {name, "journal"}


def test_H30_a_part_that_became_a_hard_link_is_not_written_to(
    file_sample: Sample, place: Path, tmp_path: Path
) -> None:
    download = file_sample.begin(place)
    download.close()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.unlink(download.part_path)
    os.link(victim, download.part_path)
    with pytest.raises(UnsafeDestination):
        file_sample.resume(place)
    assert victim.read_bytes() == b"precious"


def test_a_folder_that_is_missing_or_no_folder_is_refused(sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        sample.begin(tmp_path / "missing" / "name")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"):
        sample.begin(tmp_path / "file" / "name")
    with pytest.raises(ConfigError):
        open_part.create("/", sample.manifest, sample.id, str(tmp_path / "journal"))


def test_a_folder_that_may_not_be_written_to_is_refused(sample: Sample, place: Path) -> None:
    place.parent.chmod(0o555)
    if os.access(place.parent, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(ReadOnly):
        open_part.create(
            str(place), sample.manifest, sample.id, str(sample.source.parent / "journal")
        )


@pytest.mark.root
def test_a_read_only_file_system_is_refused(file_sample: Sample, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ReadOnly, match="Read-only"):
        file_sample.begin(small_disk / "name")


def test_a_link_to_the_folder_is_resolved_when_it_is_chosen_and_refused_later(
    sample: Sample, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "shortcut").symlink_to(place.parent)
    download = sample.begin(tmp_path / "shortcut" / "name")
    assert download.path == str(place)
    download.close()
    place.parent.rename(tmp_path / "moved")
    place.parent.symlink_to(tmp_path / "moved")
    with pytest.raises(UnsafeDestination):
        sample.resume(place)


@pytest.mark.parametrize("name", ["x" * 255, "é" * 127, "x" * 251, "x" * 250])
def test_the_longest_names_have_a_part_too(name: str, file_sample: Sample, place: Path) -> None:
    assert len(part_name(name).encode()) <= 255
    download = file_sample.begin(place.parent / name)
    file_sample.fill(download)
    download.finalize()
    download.close()
    assert (place.parent / name).read_bytes() == NOISE


def test_long_names_that_differ_at_their_end_have_different_parts() -> None:
    assert part_name("x" * 254 + "a") != part_name("x" * 254 + "b")


def test_what_came_under_the_final_name_meanwhile_is_not_overwritten(
    sample: Sample, place: Path
) -> None:
    download = sample.begin(place)
    sample.fill(download)
    place.write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        download.finalize()
    assert place.read_bytes() == b"mine"
    place.unlink()
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_a_file_system_without_that_rename_does_not_overwrite_either(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> int:
        syscalls.ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(syscalls, "_renameat2", unsupported)
    download = sample.begin(place)
    sample.fill(download)
    place.write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        download.finalize()
    assert place.read_bytes() == b"mine"
    place.unlink()
    download.finalize()
    download.close()
    assert listing(place) == {"name"}
    assert snapshot(place) == snapshot(sample.source)


def fill_and_finalize(sample: Sample, download: PartialContent) -> None:
    sample.fill(download)
    download.finalize()


# -- H29: links planted meanwhile ---------------------------------------------------------------


@pytest.mark.parametrize("target", ["folder", "file", "dangling"])
@pytest.mark.parametrize("where", ["sub", "sub/sub", "sub/sub/00", "big", "a", "none", "void"])
def test_H29_a_link_planted_in_the_part_leads_nowhere(
    where: str, target: str, folder_sample: Sample, place: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"precious")
    download = folder_sample.begin(place)
    planted = Path(download.part_path) / where
    planted.parent.mkdir(parents=True, exist_ok=True)
    planted.symlink_to({"folder": outside, "file": outside / "file"}.get(target, outside / "new"))
    with pytest.raises(StorageError):
        fill_and_finalize(folder_sample, download)
    download.close()
    assert snapshot(outside) == {
        ".": (stat.S_IFDIR | 0o100, b""),
        "file": (stat.S_IFREG, b"precious"),
    }
    assert not place.exists()


def test_H29_links_planted_and_removed_all_the_time_lead_nowhere(
    folder_sample: Sample, place: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    stop = threading.Event()
    download = folder_sample.begin(place)
    target = Path(download.part_path) / "sub"

    def plant() -> None:
        while not stop.is_set():
            try:
                target.symlink_to(outside)
                target.unlink()
            except OSError:
                shutil.rmtree(target, ignore_errors=True)

    planter = threading.Thread(target=plant)
    planter.start()
    try:
        for _ in range(30):
            for index, piece in enumerate(folder_sample.pieces):
                try:
                    download.write_piece(index, piece)
                except StorageError:
                    pass
    finally:
        stop.set()
        planter.join()
    download.close()
    assert list(outside.iterdir()) == []


def test_H29_a_part_that_was_swapped_is_not_published(
    sample: Sample, place: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    download = sample.begin(place)
    sample.fill(download)
    os.rename(download.part_path, tmp_path / "stolen")
    os.symlink(victim, download.part_path)
    with pytest.raises(UnsafeDestination):
        download.finalize()
    assert not place.exists()
    download.discard()
    assert victim.read_bytes() == b"precious"
    assert os.path.islink(download.part_path)


# -- resuming -----------------------------------------------------------------------------------


def test_what_was_checkpointed_is_there_after_a_restart(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download, [3, 1])
    assert download.checkpoint() == (3, 1)
    assert download.checkpoint() == ()
    sample.fill(download, [2])
    assert download.unsynced_bytes == PIECE
    download.close()

    download = sample.resume(place)
    assert download.held_count == 0
    done: list[int] = []
    assert download.recover(on_progress=done.append) == 2
    assert download.held_indexes() == [1, 3]
    assert done[-1] == len(sample.pieces[1]) + len(sample.pieces[3])
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_a_part_that_vanished_is_begun_again(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download)
    download.checkpoint()
    download.discard()
    download = sample.resume(place)
    assert download.recover() == 0
    sample.fill(download)
    download.finalize()
    download.close()


def test_a_part_that_was_just_made_is_gone_on_with(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfolder, "RESERVED_FROM_BYTES", len(NOISE))
    sample.begin(place).close()
    (place.parent / "journal").unlink()  # killed before it was written
    download = sample.resume(place)
    assert download.recover() == 0
    assert (place.parent / "journal").exists()
    sample.fill(download)
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def somebody_elses(sample: Sample, part: Path, size: int) -> Path:
    """Something with the name of a part, ``size`` bytes of it."""
    if sample.manifest.is_folder:
        part.mkdir()
        part = part / "a"
    part.write_bytes(b"mine" * (size // 4))
    return part


@pytest.mark.parametrize("size", [4, len(NOISE) // 4 * 4 + 4])
def test_a_part_that_came_before_ours_was_made_is_left_alone(
    size: int, sample: Sample, place: Path
) -> None:
    theirs = somebody_elses(sample, place.with_name("name.part"), size)
    for give_up in (False, True):
        download = sample.resume(place)  # recorded, and killed before anything was made
        if give_up:
            download.discard()
        else:
            with pytest.raises(AlreadyExists):
                download.recover()
            download.close()
        assert listing(place) == {"name.part"}
        assert theirs.read_bytes() == b"mine" * (size // 4)


def test_a_file_of_the_same_size_is_somebody_elses(file_sample: Sample, place: Path) -> None:
    theirs = place.with_name("name.part")
    theirs.write_bytes(NOISE[::-1])
    download = file_sample.resume(place)
    with pytest.raises(AlreadyExists):
        download.recover()
    download.close()
    assert theirs.read_bytes() == NOISE[::-1]
    assert listing(place) == {"name.part"}


def test_a_restart_right_after_the_rename_finds_the_content(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download)
    found = download.finalize()
    download.close()
    with pytest.raises(AlreadyExists):
        sample.resume(place)
    assert sharing.recheck(sample.manifest, str(place)) == found


def test_recovery_can_be_cancelled(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download)
    download.checkpoint()
    download.close()
    download = sample.resume(place)
    with pytest.raises(Cancelled):
        download.recover(cancelled=lambda: True)
    download.close()


def one_file_of(part: Path) -> Path:
    return part if part.is_file() else part / "big"


def offset_in_that_file(sample: Sample, piece: int) -> int:
    """Where in that file a piece that lies in it begins."""
    number = next(n for n, e in enumerate(sample.manifest.entries) if e.path in ("", "big"))
    return piece * PIECE - sum(entry.size for entry in sample.manifest.entries[:number])


def test_F22_a_truncated_part_is_noticed_and_fetched_again(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download)
    download.checkpoint()
    download.close()
    os.truncate(one_file_of(Path(download.part_path)), 2 * PIECE)
    download = sample.resume(place)
    assert 0 < download.recover() < len(sample.pieces)
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def flip_a_bit(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_F23_only_the_piece_with_the_flipped_bit_is_fetched_again(
    sample: Sample, place: Path
) -> None:
    download = sample.begin(place)
    sample.fill(download)
    download.checkpoint()
    download.close()
    flip_a_bit(one_file_of(Path(download.part_path)), offset_in_that_file(sample, 3) + 5)
    download = sample.resume(place)
    assert download.recover() == len(sample.pieces) - 1
    assert sample.missing(download) == [3]
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F23_a_bit_that_flips_before_the_whole_was_digested_is_found(
    file_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing waits in memory for its turn: the whole is digested from the disk.
    monkeypatch.setattr("peer.files.whole_digest.AHEAD_BYTES", PIECE)
    download = file_sample.begin(place)
    file_sample.fill(download, list(range(len(file_sample.pieces)))[::-1])
    flip_a_bit(Path(download.part_path), 9 * PIECE + 9)
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert caught.value.pieces == (9,)
    assert listing(place) == {"name.part", "journal"}
    assert file_sample.missing(download) == [9]
    file_sample.fill(download, [9])
    download.finalize()
    download.close()
    assert place.read_bytes() == NOISE


class Hands:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("how", ["interrupted", "slow", "slow at the end"])
def test_F23_a_bit_that_flips_while_a_download_lies_about_is_found(
    how: str, sample: Sample, place: Path
) -> None:
    clock = Hands()
    download = sample.begin(place, clock=clock)
    last = len(sample.pieces) - 1
    sample.fill(download, list(range(last)))
    download.checkpoint()
    flip_a_bit(one_file_of(Path(download.part_path)), offset_in_that_file(sample, 3) + 5)
    if how == "interrupted":
        download.invalidate()
    elif how == "slow":
        clock.now += DIGEST_TRUST_S + 1
    sample.fill(download, [last])
    if how == "slow at the end":
        clock.now += DIGEST_TRUST_S + 1
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert caught.value.pieces == (3,) == tuple(sample.missing(download))
    sample.fill(download, [3])
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F23_what_was_verified_long_before_it_could_be_renamed_is_verified_again(
    file_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Hands()
    download = file_sample.begin(place, clock=clock)
    file_sample.fill(download)

    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(syscalls, "rename_no_replace", refused)
        with pytest.raises(DiskFull):
            download.finalize()
    flip_a_bit(Path(download.part_path), 5)
    clock.now += DIGEST_TRUST_S + 1
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert caught.value.pieces == (0,)
    download.discard()


@pytest.mark.parametrize("rest", [0, 1, 2 * PIECE + 9])
def test_F22_what_was_cut_off_is_never_made_up_for_with_zeros(
    rest: int, sample: Sample, place: Path
) -> None:
    # All in one go, so that the digest of the whole is the one of what came.
    download = sample.begin(place)
    sample.fill(download)
    cut = one_file_of(Path(download.part_path))
    os.truncate(cut, rest)
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert cut.stat().st_size == rest
    first = (offset_in_that_file(sample, 0) * -1 + rest) // PIECE
    assert caught.value.pieces == tuple(sample.missing(download))
    assert caught.value.pieces[0] == first
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F22_what_was_cut_off_and_is_written_beyond_is_no_gap(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfolder, "RESERVED_FROM_BYTES", len(NOISE))
    download = sample.begin(place)
    lost, last = [2, 3, 4], 9
    sample.fill(download, [index for index in range(len(sample.pieces)) if index != last])
    cut = one_file_of(Path(download.part_path))
    os.truncate(cut, offset_in_that_file(sample, 2))
    sample.fill(download, [last])
    assert cut.stat().st_size == len(NOISE)
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert set(lost) <= set(caught.value.pieces)
    assert last not in caught.value.pieces
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F22_a_file_that_is_gone_from_a_part_is_fetched_again(
    folder_sample: Sample, place: Path
) -> None:
    download = folder_sample.begin(place)
    folder_sample.fill(download)
    (Path(download.part_path) / "sub" / "sub" / "07").unlink()
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert 0 < len(caught.value.pieces) < 3
    folder_sample.fill(download, list(caught.value.pieces))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(folder_sample.source)


def test_a_damaged_piece_does_not_leave_to_others(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download)
    flip_a_bit(one_file_of(Path(download.part_path)), PIECE + 4)
    damaged = []
    for index in range(len(sample.pieces)):
        try:
            assert download.read_piece(index) == sample.pieces[index]
        except DigestMismatch as error:
            damaged += error.pieces
    assert len(damaged) == 1
    assert sample.missing(download) == damaged
    sample.fill(download, damaged)
    download.finalize()
    download.close()


def test_a_manifest_whose_whole_digest_is_wrong_never_becomes_visible(
    file_sample: Sample, place: Path
) -> None:
    fields = {name: getattr(file_sample.manifest, name) for name in Manifest.__struct_fields__}
    liar = Manifest(**{**fields, "digest": bytes(32)})
    file_sample.manifest = liar
    download = file_sample.begin(place)
    file_sample.fill(download)
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert caught.value.pieces == ()
    assert not place.exists()
    download.discard()


@pytest.mark.parametrize("seed", range(5))
def test_F25_a_journal_of_noise_is_rebuilt_by_digesting(
    seed: int, sample: Sample, place: Path
) -> None:
    download = sample.begin(place)
    sample.fill(download, [0, 1, 4])
    download.checkpoint()
    download.close()
    journal = place.parent / "journal"
    rng = random.Random(seed)
    journal.write_bytes(rng.randbytes(rng.choice([0, 3, 44, 60, 5000])))
    download = sample.resume(place)
    download.recover()
    assert {0, 1, 4} <= set(download.held_indexes())
    missing = sample.missing(download)
    download.checkpoint()
    download.close()
    download = sample.resume(place)
    download.recover()
    assert sample.missing(download) == missing
    sample.fill(download, missing)
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_a_journal_of_another_content_is_not_believed(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    download.close()
    other = Journal.create(str(place.parent / "journal"), ContentId(bytes(32)))
    other.append([0, 1, 2])
    other.close()
    download = sample.resume(place)
    download.recover()
    assert not download.has(0)
    download.discard()


class Synced:
    """Notes which files and folders beneath ``root`` are put on the disk, by their paths."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.root = root
        self.paths: set[Path] = set()
        self.everything = 0  # how often
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, self._noting(getattr(os, name), self._one))
        monkeypatch.setattr(
            syscalls, "sync_file_system", self._noting(syscalls.sync_file_system, self._all)
        )

    def _noting(
        self, real: Callable[[int], None], note: Callable[[int], None]
    ) -> Callable[[int], None]:
        def call(fd: int) -> None:
            real(fd)
            note(fd)

        return call

    def _one(self, fd: int) -> None:
        self.paths.add(Path(os.readlink(f"/proc/self/fd/{fd}")))

    def _all(self, fd: int) -> None:
        self.everything += 1
        self.paths.update([self.root, *self.root.rglob("*")])


@pytest.fixture
def few_files_sample(tmp_path: Path) -> Sample:
    """So few that they are synced one by one."""
    root = tmp_path / "source"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "big").write_bytes(NOISE)
    (root / "none").write_bytes(b"")
    return Sample(root)


@pytest.mark.parametrize("journal", ["kept", "lost", "noise"])
@pytest.mark.parametrize("kind", ["file", "folder", "few_files"])
def test_F25_what_a_killed_process_left_unsynced_is_synced_before_it_is_visible(
    kind: str,
    journal: str,
    place: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sample: Sample = request.getfixturevalue(f"{kind}_sample")
    download = sample.begin(place)
    sample.fill(download)
    part, synced = Path(download.part_path), Synced(monkeypatch, place.parent)
    if journal == "kept":
        download.checkpoint()
    # Killed in the middle of sealing, which makes what no piece made.
    with monkeypatch.context() as killed:
        killed.setattr(type(download._files), "sync", lambda _: None)
        download._files.seal()
    download.close()
    if journal == "lost":
        (place.parent / "journal").unlink()
    elif journal == "noise":
        (place.parent / "journal").write_bytes(NOISE[:200])

    download = sample.resume(place)
    assert download.recover() == len(sample.pieces)
    unsynced: list[Path] = []

    def rename(old: str, new: str, folder_fd: int) -> None:
        unsynced.extend({part, *part.rglob("*")} - synced.paths)
        synced.paths.clear()
        os.rename(old, new, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)

    monkeypatch.setattr(syscalls, "rename_no_replace", rename)
    download.finalize()
    download.close()
    assert unsynced == []
    assert synced.paths == {place.parent}
    assert snapshot(place) == snapshot(sample.source)


def test_pieces_that_no_journal_named_are_journalled_after_a_sync(
    few_files_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = few_files_sample.begin(place)
    few_files_sample.fill(download, [0, 1])
    download.close()
    (place.parent / "journal").unlink()
    download = few_files_sample.resume(place)
    assert download.recover() == 2
    synced = Synced(monkeypatch, place.parent)
    assert set(download.checkpoint()) == {0, 1}
    part = Path(download.part_path)
    assert {part, part / "sub", part / "sub" / "big"} <= synced.paths
    assert synced.everything == 1
    few_files_sample.fill(download, [2])
    download.checkpoint()
    assert synced.everything == 1
    download.discard()


# -- the journal alone --------------------------------------------------------------------------

CONTENT = ContentId(bytes(range(32)))
pieces_lists = st.lists(st.integers(0, 99), max_size=20)
function_scoped = [HealthCheck.function_scoped_fixture]


@settings(suppress_health_check=function_scoped, max_examples=40, deadline=None)
@given(batches=st.lists(pieces_lists, max_size=4), cut=st.integers(0, 60))
def test_a_journal_cut_anywhere_gives_a_prefix(
    batches: list[list[int]], cut: int, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(str(path), CONTENT)
    written = [piece for batch in batches for piece in batch]
    for batch in batches:
        journal.append(batch)
    journal.close()
    os.truncate(path, max(0, path.stat().st_size - cut))
    journal, found = Journal.resume(str(path), CONTENT, 100)
    kept = len(written) - -(-cut // 8)
    assert found.intact == (kept >= 0)
    assert found.pieces == tuple(dict.fromkeys(written[: max(0, kept)]))
    if not found.intact:
        journal.begin()
    journal.append([7])
    journal.close()
    journal, found = Journal.resume(str(path), CONTENT, 100)
    assert 7 in found.pieces
    assert found.intact
    journal.remove()


@settings(suppress_health_check=function_scoped, max_examples=40, deadline=None)
@given(pieces=st.lists(st.integers(0, 99), min_size=1, max_size=9), data=st.data())
def test_a_journal_with_a_flipped_bit_is_not_believed(
    pieces: list[int], data: st.DataObject, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(str(path), CONTENT)
    journal.append(pieces)
    journal.close()
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    journal, found = Journal.resume(str(path), CONTENT, 100)
    assert (found.pieces, found.intact) == ((), False)
    journal.close()


@settings(suppress_health_check=function_scoped, max_examples=40, deadline=None)
@given(noise=st.binary(max_size=300))
def test_a_journal_of_noise_is_not_believed(noise: bytes, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_bytes(noise)
    journal, found = Journal.resume(str(path), CONTENT, 100)
    assert (found.pieces, found.intact) == ((), False)
    journal.close()


def test_a_journal_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "journal").symlink_to(tmp_path / "victim")
    for open_it in (
        lambda: Journal.create(str(tmp_path / "journal"), CONTENT),
        lambda: Journal.resume(str(tmp_path / "journal"), CONTENT, 1),
    ):
        with pytest.raises(UnsafeDestination):
            open_it()
    assert (tmp_path / "victim").read_bytes() == b"precious"


# -- faults of the disk -------------------------------------------------------------------------


class FaultyDisk:
    """Stands between the part's files and the system: calls fail while ``number`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.number: int | None = None
        self.calls = 0
        for name in names:
            monkeypatch.setattr(partfile.os, name, self._faulty(getattr(os, name)))
        monkeypatch.setattr(
            partfolder.syscalls, "sync_file_system", self._faulty(syscalls.sync_file_system)
        )

    def _faulty(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.number is not None:
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **options)

        return call


def test_F19_a_full_disk_stops_nothing_that_is_held(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = sample.begin(place)
    sample.fill(download, [0, 1])
    disk = FaultyDisk(monkeypatch, "pwrite")
    disk.number = errno.ENOSPC
    with pytest.raises(DiskFull) as caught:
        download.write_piece(2, sample.pieces[2])
    assert caught.value.hint
    assert not download.has(2)
    assert download.read_piece(1) == sample.pieces[1]
    with pytest.raises(DiskFull):
        download.checkpoint()
    disk.number = None
    sample.fill(download, sample.missing(download))
    assert sorted(download.checkpoint()) == list(range(len(sample.pieces)))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE, errno.EACCES])
def test_F19_a_file_that_could_not_be_made_is_not_synced(
    number: int, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few files are synced one by one: one that is not there would count as a failing disk."""
    root = tmp_path / "source"
    root.mkdir()
    (root / "a").write_bytes(NOISE[: 3 * PIECE])
    (root / "b").write_bytes(NOISE[PIECE : 2 * PIECE])
    sample = Sample(root)
    download = sample.begin(place)
    sample.fill(download, [0])
    assert download.checkpoint() == (0,)
    sample.fill(download, [1])
    with monkeypatch.context() as patch:

        def fail(folder_fd: int, name: str) -> int:
            raise OSError(number, os.strerror(number), name)

        patch.setattr(paths, "create_file", fail)
        with pytest.raises(StorageError):
            download.write_piece(3, sample.pieces[3])
    assert download.checkpoint() == (1,)
    sample.fill(download, [2, 3])
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_what_was_written_to_a_few_files_is_synced(
    folder_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = folder_sample.begin(place)
    synced: list[int] = []
    sync = os.fsync
    folder_sample.fill(download, [1])  # within one file, made and written
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), sync(fd))[1])
        download.checkpoint()
    assert 2 * PIECE - 300 in synced  # what that file has so far: "a" lies before it
    download.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_F19_after_a_sync_that_found_no_room_everything_is_written_again(
    number: int, sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = sample.begin(place)
    sample.fill(download)
    disk = FaultyDisk(monkeypatch, "fdatasync", "fsync")
    disk.number = number
    with pytest.raises(DiskFull):
        download.checkpoint()
    assert download.unsynced_bytes == len(sample.pieces) * PIECE
    disk.number = None
    writes = FaultyDisk(monkeypatch, "pwrite")
    assert len(download.checkpoint()) == len(sample.pieces)
    assert writes.calls >= len(sample.pieces)
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


@pytest.mark.parametrize("call", ["pwrite", "sync", "seal"])
def test_F21_a_disk_that_fails_never_leads_to_a_complete_file(
    call: str, sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = sample.begin(place)
    sample.fill(download, list(range(1, len(sample.pieces))))
    if call != "pwrite":
        sample.fill(download, [0])
    if call == "seal":
        download.checkpoint()
    names = ["pwrite"] if call == "pwrite" else ["fsync", "fdatasync"]
    disk = FaultyDisk(monkeypatch, *names)
    disk.number = errno.EIO
    failing: dict[str, Callable[[], object]] = {
        "pwrite": lambda: download.write_piece(0, sample.pieces[0]),
        "sync": download.checkpoint,
        "seal": download.finalize,
    }
    with pytest.raises(IOFailed):
        failing[call]()
    disk.number = None
    for again in (download.checkpoint, download.finalize):
        with pytest.raises((IOFailed, LocalProtocolError)):
            again()
    assert not place.exists()
    download.close()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.ENOMEM])
@pytest.mark.parametrize("call", ["sync of the folder", "look at the new name"])
def test_F19_what_passes_right_after_the_rename_fails_no_download(
    call: str, number: int, sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = sample.begin(place)
    sample.fill(download)
    method = {"sync of the folder": "sync", "look at the new name": "status"}[call]
    real, trouble = getattr(Destination, method), 2

    def hindered(self: Destination, *arguments: Any) -> Any:
        nonlocal trouble
        if place.exists() and trouble:
            trouble -= 1
            raise storage_error(OSError(number, ""), str(place), call)
        return real(self, *arguments)

    monkeypatch.setattr(Destination, method, hindered)
    for _ in range(2):
        with pytest.raises(TransientStorageError):
            download.finalize()
    synced = Synced(monkeypatch, place.parent)
    download.finalize()
    assert place.parent in synced.paths
    download.close()
    assert listing(place) == {"name"}
    assert snapshot(place) == snapshot(sample.source)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def take_all_room(hog: Path) -> None:
    with hog.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.root
def test_F19_a_disk_too_small_is_refused_at_once(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(NOISE * 10)
    sample = Sample(tmp_path / "source")
    with pytest.raises(DiskFull, match="bytes needed"):
        sample.begin(small_disk / "name")
    assert list(small_disk.iterdir()) == []


@pytest.mark.root
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_F19_a_disk_that_fills_up_and_is_emptied(
    kind: str, small_disk: Path, request: pytest.FixtureRequest
) -> None:
    sample: Sample = request.getfixturevalue(f"{kind}_sample")
    (small_disk / "to").mkdir()
    place = small_disk / "to" / "name"
    download = sample.begin(place)
    sample.fill(download, [0])
    hog = small_disk / "hog"
    with pytest.raises(OSError, match="No space"):
        take_all_room(hog)
    refused = []
    for index in range(1, len(sample.pieces)):
        try:
            download.write_piece(index, sample.pieces[index])
        except DiskFull:
            refused.append(index)
    assert refused
    assert sample.missing(download) == refused
    assert download.read_piece(0) == sample.pieces[0]
    hog.unlink()
    sample.fill(download, refused)
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


# -- F3: the process is killed ------------------------------------------------------------------

VICTIM = """
import random, sys
from common.manifest import encode; from common.manifest import manifest_id
from peer.files import sharing
from peer.files.open_files import HandleCache
from peer.files.library import SharedContent
from peer.files.partial_content import PartialContent

source, place, journal, piece, seed, how = sys.argv[1:]
found = sharing.digest(source, piece_length=int(piece), threads=1)
shared = SharedContent(found.manifest, found.place, HandleCache())
start = opening.create if how == "create" else opening.resume
download = start(place, found.manifest, manifest_id(encode(found.manifest)), journal)
download.recover()
print("running", *download.held_indexes(), flush=True)
missing = [i for i in range(found.manifest.piece_count) if not download.has(i)]
random.Random(int(seed)).shuffle(missing)
for count, index in enumerate(missing):
    download.write_piece(index, shared.read_run(index, 1))
    if count % 3 == 2:
        print("durable", *download.checkpoint(), flush=True)
print("complete", flush=True)
download.finalize()
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_F3_after_kills_everything_acknowledged_is_there(
    kind: str, place: Path, request: pytest.FixtureRequest
) -> None:
    sample: Sample = request.getfixturevalue(f"{kind}_sample")
    rng = random.Random(20)
    acknowledged: set[int] = set()
    journal = place.parent / "journal"
    for attempt in range(4):
        how = "create" if attempt == 0 else "resume"
        arguments = [sample.source, place, journal, str(PIECE), str(attempt), how]
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert process.stdout is not None
        patience = rng.randrange(1, 5)
        for line in process.stdout:
            word, *indexes = line.split()
            if word == "running":
                assert acknowledged <= set(map(int, indexes))
            elif word == "durable":
                acknowledged |= set(map(int, indexes))
            patience -= word != "running"
            if word == "complete" or patience == 0:
                break
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        if place.exists():
            break
    if not place.exists():
        download = sample.resume(place)
        download.recover()
        assert acknowledged <= set(download.held_indexes())
        sample.fill(download, sample.missing(download))
        download.finalize()
        download.close()
    assert snapshot(place) == snapshot(sample.source)


# -- finishing twice ----------------------------------------------------------------------------


def test_two_threads_that_finish_a_download_find_it_in_one_place(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = sample.begin(place)
    sample.fill(download)
    real, found = Destination.publish, []

    def finalize() -> None:
        found.append(download.finalize())

    second = threading.Thread(target=finalize)

    def publish(self: Destination, *words: Any) -> None:
        if second.ident is None:
            second.start()
            second.join(MEANWHILE_S)
        real(self, *words)

    monkeypatch.setattr(Destination, "publish", publish)
    finalize()
    second.join()
    assert len(found) == 2
    assert found[0] == found[1]
    place.rename(place.with_name("elsewhere"))
    assert download.finalize() == found[0]  # where it was put, not where it is by now
    download.close()


# -- closing ------------------------------------------------------------------------------------


def test_closing_waits_for_calls_inside_and_refuses_later_ones() -> None:
    gate = InUseGuard()
    entered, leave = threading.Event(), threading.Event()
    closed: list[bool] = []

    def inside() -> None:
        with gate:
            entered.set()
            assert leave.wait(10)
            assert not closed

    worker = threading.Thread(target=inside)
    worker.start()
    assert entered.wait(10)
    closer = threading.Thread(target=lambda: closed.append(gate.close()))
    closer.start()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            with gate:
                pass
        except StorageClosed:
            break
    leave.set()
    worker.join()
    closer.join()
    assert closed == [True]
    assert gate.close() is False


@pytest.mark.parametrize("path", ["/", "//", "/.", "/..", "."])
def test_a_destination_is_always_a_new_name(path: str, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, AlreadyExists)):
        open_part.create(path, sample.manifest, sample.id, str(tmp_path / "journal"))
