"""F85: destinations that are no Linux disk and refuse some calls.

Verified content gets its final name all the same, no file stays open, and each refusal is logged
once.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import StorageError
from common.host.atomic_files import atomic_write
from peer.files import open_part, optional_steps
from peer.files.destination import short_part_name
from peer.files.errors import AlreadyExists, IOFailed, NameTooLong, NeverNamed, ReadOnly
from tests.support.data_paths import module_on_both_paths
from tests.support.descriptors import open_files
from tests.support.partial_downloads import NOISE, PIECE, Sample, snapshot
from tests.support.refusing_disk import RefusingDisk, refusing_disk

pytestmark = module_on_both_paths

REFUSALS = (
    *(errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOTTY),
    *(errno.EOPNOTSUPP, errno.EROFS, errno.EXDEV, errno.EBADF),
)
CALLS = (
    *("chmod", "utimens", "fsync", "fsyncdir", "link", "rename_noreplace", "fallocate"),
    *("statfs", "open_nofollow", "open_nonblock", "truncate"),
)
_numbers = itertools.count()


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RefusingDisk]:
    with refusing_disk(tmp_path_factory.mktemp("refusing")) as disk:
        yield disk


@pytest.fixture
def disk(mounted: RefusingDisk) -> Iterator[RefusingDisk]:
    optional_steps._told.clear()
    yield mounted
    mounted.refuse()
    assert not open_files(mounted.path)
    assert not mounted.still_open()


@pytest.fixture
def place(disk: RefusingDisk) -> Path:
    folder = disk.path / f"to{next(_numbers)}"
    folder.mkdir()
    return folder / "name"


@pytest.fixture(params=["file", "folder"])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    source = tmp_path / "source"
    if request.param == "file":
        source.write_bytes(bytes(2 * PIECE) + NOISE)
        source.chmod(0o755)
        return Sample(source)
    (source / "sub" / "void").mkdir(parents=True)
    (source / "big").write_bytes(NOISE)
    (source / "none").write_bytes(b"")
    (source / "sub" / "run").write_bytes(b"#!/bin/sh")
    (source / "sub" / "run").chmod(0o755)
    (source / "zeros").write_bytes(bytes(3 * PIECE))
    return Sample(source)


def fetch(sample: Sample, place: Path) -> None:
    """From begin to end, with a rest in between."""
    journal = sample.source.with_name(f"journal{next(_numbers)}")
    first = open_part.create(str(place), sample.manifest, sample.id, str(journal))
    half = len(sample.pieces) // 2
    try:
        sample.fill(first, list(range(half)))
        first.checkpoint()
    finally:
        first.close()
    again = open_part.resume(str(place), sample.manifest, sample.id, str(journal)).recover()
    try:
        assert again.held_count == half
        sample.fill(again, list(range(half, len(sample.pieces))))
        again.finalize()
    finally:
        again.close()


def content(root: Path) -> dict[str, tuple[int, bytes]]:
    """A snapshot without the permission to execute, which not every disk keeps."""
    return {path: (mode & ~0o100, data) for path, (mode, data) in snapshot(root).items()}


def arrived(sample: Sample, place: Path, disk: RefusingDisk) -> None:
    disk.refuse()
    assert os.listdir(place.parent) == [place.name]
    assert content(place) == content(sample.source)


@pytest.mark.parametrize("number", REFUSALS[::3], ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("call", CALLS)
def test_f85_a_call_that_is_refused_keeps_no_content_from_its_name(
    call: str, number: int, disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    disk.refuse(**{call: number})
    fetch(sample, place)
    arrived(sample, place, disk)


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.__getitem__)
def test_f85_all_calls_refused_at_once(
    number: int,
    disk: RefusingDisk,
    place: Path,
    sample: Sample,
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk.refuse(**dict.fromkeys(CALLS, number))
    with caplog.at_level(logging.WARNING):
        fetch(sample, place)
        fetch(sample, place.with_name("second"))
    disk.refuse()
    assert content(place) == content(place.with_name("second")) == content(sample.source)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(set(said))
    assert any("change permissions" in line for line in said)


def test_f85_calls_that_the_disk_lacks(
    tmp_path_factory: pytest.TempPathFactory, sample: Sample
) -> None:
    """The kernel remembers ENOSYS for as long as it is mounted: hence a disk of its own."""
    known = [call for call in CALLS if not call.startswith("open")]
    with refusing_disk(tmp_path_factory.mktemp("knowing-little")) as disk:
        disk.refuse(**dict.fromkeys(known, errno.ENOSYS))
        place = disk.path / "to" / "name"
        place.parent.mkdir()
        fetch(sample, place)
        arrived(sample, place, disk)
        assert not disk.still_open()


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.__getitem__)
def test_f85_a_rename_that_is_refused_altogether_is_done_by_a_link(
    number: int, disk: RefusingDisk, place: Path, tmp_path: Path
) -> None:
    (tmp_path / "source").write_bytes(NOISE)
    sample = Sample(tmp_path / "source")
    disk.refuse(rename=number, rename_noreplace=number)
    fetch(sample, place)
    arrived(sample, place, disk)


@pytest.mark.parametrize("number", REFUSALS, ids=errno.errorcode.__getitem__)
def test_f85_the_error_names_the_content_if_nothing_can_be_renamed(
    number: int, disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    disk.refuse(rename=number, rename_noreplace=number, link=number)
    with pytest.raises(NeverNamed) as refused:
        fetch(sample, place)
    part = place.with_name("name.part")
    assert str(part) in (refused.value.hint or "")
    assert os.listdir(place.parent) == [part.name]
    assert content(part) == content(sample.source)


@pytest.mark.parametrize("way", ["rename_noreplace", "link"])
def test_f85_no_way_to_rename_overwrites_a_file(
    way: str, disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    refused = ["rename_noreplace"] if way == "link" else ["rename_noreplace", "link"]
    journal = str(sample.source.with_name("journal"))
    download = open_part.create(str(place), sample.manifest, sample.id, journal)
    sample.fill(download)
    place.write_bytes(b"mine")
    disk.refuse(**dict.fromkeys(refused, errno.EPERM))
    with pytest.raises(AlreadyExists):
        download.finalize()
    assert place.read_bytes() == b"mine"
    place.unlink()
    download.finalize()
    download.close()
    arrived(sample, place, disk)


@pytest.mark.parametrize("length", [5, 12, 13, 14, 16, 21, 22, 143])
@pytest.mark.parametrize("told", [True, False])
def test_f85_names_may_be_short_on_a_disk(
    length: int, told: bool, disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    """A name of the greatest length that the disk takes leaves no room for a suffix."""
    longest = max(length, len(short_part_name("x")))
    rules = {"name_max": longest}
    if told:
        rules["told_name_max"] = longest
    disk.refuse(**rules)
    place = place.with_name("n" * length)
    fetch(sample, place)
    arrived(sample, place, disk)


def test_f85_a_name_that_the_disk_refuses_is_found_before_any_fetch(
    disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    disk.refuse(name_max=100)
    with pytest.raises(NameTooLong):
        open_part.create(str(place.with_name("n" * 101)), sample.manifest, sample.id, "journal")
    assert not list(place.parent.iterdir())


@pytest.mark.parametrize("call", ["fsyncdir", "fsync", "write", "truncate", "create", "mkdir"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_f85_a_failure_at_the_start_leaves_nothing_behind(
    call: str, number: int, disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    disk.refuse(**{call: number})
    journal = sample.source.with_name("journal")
    with contextlib.suppress(StorageError):
        open_part.create(str(place), sample.manifest, sample.id, str(journal)).discard()
    assert not list(place.parent.iterdir())


def test_f85_a_failing_disk_does_not_count_as_a_refusing_one(
    disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    journal = str(sample.source.with_name("journal"))
    download = open_part.create(str(place), sample.manifest, sample.id, journal)
    sample.fill(download)
    disk.refuse(fsync=errno.EIO, fsyncdir=errno.EIO)
    with pytest.raises(IOFailed):
        download.finalize()
    disk.refuse()
    download.close()
    assert not place.exists()


def test_f85_a_home_may_lie_there_too(disk: RefusingDisk, place: Path) -> None:
    disk.refuse(fsync=errno.EINVAL, fsyncdir=errno.EINVAL, chmod=errno.EPERM)
    atomic_write(place, b"kept")
    assert place.read_bytes() == b"kept"


def test_f85_a_file_that_may_not_be_made_is_refused_at_once(
    disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    disk.refuse(create=errno.EROFS, mkdir=errno.EROFS)
    with pytest.raises(ReadOnly):
        open_part.create(str(place), sample.manifest, sample.id, "journal")


def test_f85_a_process_that_ends_between_link_and_unlink_has_completed_it(
    disk: RefusingDisk, place: Path, sample: Sample
) -> None:
    if sample.manifest.is_folder:
        pytest.skip("folders are never linked")
    journal = str(sample.source.with_name("journal"))
    download = open_part.create(str(place), sample.manifest, sample.id, journal)
    sample.fill(download)
    download.checkpoint()
    download.close()
    os.link(place.with_name("name.part"), place)
    with pytest.raises(AlreadyExists):
        open_part.resume(str(place), sample.manifest, sample.id, journal)
    arrived(sample, place, disk)
