"""Destinations of downloads: names in use, planted links, folders that refuse."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import pytest

from common.errors import ConfigError, StorageError
from peer.files import open_part, syscalls
from peer.files.destination import part_name
from peer.files.errors import (
    AlreadyExists,
    ReadOnly,
    UnsafeDestination,
)
from peer.files.partial_content import PartialContent
from tests.support.data_paths import module_on_both_paths
from tests.support.partial_downloads import (
    NOISE,
    Sample,
    listing,
    snapshot,
)

pytestmark = [*module_on_both_paths, pytest.mark.usefixtures("no_leaks")]


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


def test_a_final_name_taken_meanwhile_is_not_overwritten(sample: Sample, place: Path) -> None:
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


@pytest.mark.parametrize("path", ["/", "//", "/.", "/..", "."])
def test_a_destination_is_always_a_new_name(path: str, sample: Sample, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, AlreadyExists)):
        open_part.create(path, sample.manifest, sample.id, str(tmp_path / "journal"))
