"""Downloads on disks that are full or fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import LocalProtocolError, StorageError
from peer.files import partfile, partfolder, paths, syscalls
from peer.files.destination import Destination
from peer.files.errors import (
    DiskFull,
    IOFailed,
    TransientStorageError,
    storage_error,
)
from peer.native.folder import CompiledFolder
from tests.support.data_paths import module_on_both_paths
from tests.support.partial_downloads import (
    NOISE,
    PIECE,
    Sample,
    Synced,
    listing,
    snapshot,
)

pytestmark = [*module_on_both_paths, pytest.mark.usefixtures("no_leaks")]


class FaultyDisk:
    """Layer between the files of a part and the system; its calls fail while ``number`` is set.

    The compiled data path leaves a file that fails to Python, as it does on a disk that fails.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.number: int | None = None
        self.calls = 0
        for name in names:
            monkeypatch.setattr(partfile.os, name, self._faulty(getattr(os, name)))
        if "pwrite" in names:
            monkeypatch.setattr(CompiledFolder, "write", self._leaving(CompiledFolder.write))
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

    def _leaving(self, real: Callable[..., tuple[int, bool]]) -> Callable[..., tuple[int, bool]]:
        def write(*arguments: Any) -> tuple[int, bool]:
            self.calls += 1
            return real(*arguments) if self.number is None else (0, False)

        return write


def test_F19_a_full_disk_does_not_affect_held_pieces(
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
    """Few files are synced one by one: a missing file would count as a failing disk."""
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
        patch.setattr(CompiledFolder, "write", lambda *_: (0, False))
        with pytest.raises(StorageError):
            download.write_piece(3, sample.pieces[3])
    assert download.checkpoint() == (1,)
    sample.fill(download, [2, 3])
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_writes_to_a_few_files_are_synced(
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
def test_F19_a_transient_error_after_the_rename_fails_no_download(
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


def take_all_room(hog: Path) -> None:
    with hog.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


@pytest.mark.root
def test_F19_a_disk_too_small_is_refused_at_once(small_disk: Path, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(NOISE * 10)
    sample = Sample(tmp_path / "source")
    with pytest.raises(DiskFull, match=" needed, "):
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
