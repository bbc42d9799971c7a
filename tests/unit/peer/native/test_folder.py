"""Files of a folder by the compiled data path: what it does, and what it leaves to Python."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.manifest import Entry, EntryKind
from peer.files.fingerprint import Fingerprint
from peer.native.folder import CompiledFolder, compiled_folder
from tests.support.data_paths import COMPILED, needs_library, using

pytestmark = [needs_library, pytest.mark.usefixtures("compiled")]

SIZES = {"a": 10, "sub/b": 0, "sub/c": 20, "sub/deep/d": 5, "z": 7}
DATA = random.Random(19).randbytes(sum(SIZES.values()))


@pytest.fixture(autouse=True)
def compiled() -> Iterator[str]:
    yield from using(COMPILED)


@pytest.fixture
def top(tmp_path: Path) -> Iterator[int]:
    """The folder ``within``, open."""
    (tmp_path / "within").mkdir()
    fd = os.open(tmp_path / "within", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def table(sizes: dict[str, int] = SIZES, **options: object) -> CompiledFolder:
    entries = [Entry(path, size) for path, size in sizes.items()]
    found = compiled_folder(entries, **options)  # type: ignore[arg-type]
    assert found is not None
    return found


def contents(root: Path) -> dict[str, bytes]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_range_is_written_file_by_file_and_read_back(tmp_path: Path, top: int) -> None:
    folder = table(times=[3_000_000_001] * len(SIZES))
    assert folder.write(top, 0, DATA) == (len(DATA), True)
    assert contents(tmp_path / "within") == {
        "a": DATA[:10],
        "sub/c": DATA[10:30],
        "sub/deep/d": DATA[30:35],
        "z": DATA[35:],
    }
    assert (tmp_path / "within/sub/c").stat().st_mtime_ns == 3_000_000_001
    back = bytearray(len(DATA))
    assert folder.read(top, 0, memoryview(back)) == len(DATA)
    assert back == DATA
    assert folder.write(top, 0, DATA) == (len(DATA), False)
    seen = folder.look(top)
    assert [(one[-1] != 0, one[0]) for one in seen] == [
        (path != "sub/b", size) for path, size in SIZES.items()
    ]
    status = (tmp_path / "within/z").stat()
    assert Fingerprint(*seen[-1][:4]) == Fingerprint.of(status)
    assert seen[-1][-1] == status.st_mode


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 500), max_size=6),
    seed=st.integers(0, 1 << 32),
)
def test_ranges_in_any_order_make_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cuts: list[int], seed: int
) -> None:
    top = tmp_path_factory.mktemp("folder")
    rng = random.Random(seed)
    named = {f"{number % 3}/{number:02}": size for number, size in enumerate(sizes)}
    whole = rng.randbytes(sum(sizes))
    ends = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    ranges = list(pairwise(ends))
    rng.shuffle(ranges)
    folder = table(named)
    fd = os.open(top, os.O_RDONLY)
    try:
        for begin, end in ranges:
            assert folder.write(fd, begin, whole[begin:end])[0] == end - begin
        for begin, end in ranges:
            view = bytearray(end - begin)
            assert folder.read(fd, begin, memoryview(view)) == end - begin
            assert view == whole[begin:end]
    finally:
        os.close(fd)
    assert b"".join((top / name).read_bytes() for name, size in named.items() if size) == whole


@pytest.mark.parametrize("name", ["../out", "/out", "x/../../out", "x//y", ".", "..", "x/.", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, top: int, name: str) -> None:
    folder = table({"before": 3, name: 3, "zz": 3})
    assert folder.write(top, 0, b"123456789") == (3, True)
    assert contents(tmp_path) == {"within/before": b"123"}
    assert folder.read(top, 0, memoryview(bytearray(9))) == 3
    assert [one[-1] != 0 for one in folder.look(top)] == [True, False, False]


@pytest.mark.parametrize("planted", ["link", "dangling", "folder", "fifo", "second name"])
def test_anything_in_the_place_of_a_file_is_left_to_python(
    tmp_path: Path, top: int, planted: str
) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"untouched")
    place = tmp_path / "within" / "sub"
    place.mkdir()
    place /= "c"
    if planted == "link":
        place.symlink_to(outside)
    elif planted == "dangling":
        place.symlink_to(tmp_path / "new")
    elif planted == "folder":
        place.mkdir()
    elif planted == "fifo":
        os.mkfifo(place)
    else:
        os.link(outside, place)
    folder = table()
    assert folder.write(top, 0, DATA) == (10, True)
    assert folder.read(top, 0, memoryview(bytearray(len(DATA)))) == 10
    assert outside.read_bytes() == b"untouched"
    assert not (tmp_path / "new").exists()


def test_a_link_in_the_place_of_a_folder_is_left_to_python(tmp_path: Path, top: int) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "within" / "sub").symlink_to(tmp_path / "outside")
    folder = table()
    assert folder.write(top, 0, DATA) == (10, True)
    assert folder.read(top, 0, memoryview(bytearray(len(DATA)))) == 10
    assert [one[-1] != 0 for one in folder.look(top)] == [True, False, False, False, False]
    assert not list((tmp_path / "outside").iterdir())


@pytest.mark.parametrize("change", ["longer", "shorter", "time", "another file", "gone"])
def test_a_file_that_was_changed_is_not_read(tmp_path: Path, top: int, change: str) -> None:
    assert table().write(top, 0, DATA)[0] == len(DATA)
    files = [tmp_path / "within" / name for name in SIZES]
    files[1].write_bytes(b"")
    prints = [Fingerprint.of(file.stat()).fields for file in files]
    folder = table(prints=prints)
    view = bytearray(len(DATA))
    assert folder.read(top, 0, memoryview(view)) == len(DATA)
    assert view == DATA
    changed = tmp_path / "within" / "sub" / "c"
    if change == "longer":
        changed.write_bytes(changed.read_bytes() + b"!")
    elif change == "shorter":
        os.truncate(changed, 19)
    elif change == "time":
        os.utime(changed, ns=(1, 1))
    elif change == "another file":
        changed.rename(changed.with_name("old"))
        changed.write_bytes(DATA[10:30])
    else:
        changed.unlink()
    assert folder.read(top, 0, memoryview(view)) == 10


def test_an_entry_without_a_fingerprint_is_not_read(top: int) -> None:
    folder = table({"a": 3}, prints=[None])
    assert table({"a": 3}).write(top, 0, b"abc")[0] == 3
    assert folder.read(top, 0, memoryview(bytearray(3))) == 0


def test_a_file_that_lost_its_reserved_size_is_left_to_python(tmp_path: Path, top: int) -> None:
    folder = table({"a": 4, "b": 8}, reserved_from=8)
    assert folder.write(top, 0, b"aaaabbbbbbbb") == (4, True)
    os.truncate(tmp_path / "within" / "b", 7)
    assert folder.write(top, 0, b"aaaabbbbbbbb") == (4, False)
    os.truncate(tmp_path / "within" / "b", 8)
    assert folder.write(top, 0, b"aaaabbbbbbbb") == (12, False)


def test_names_that_do_not_fit_make_no_table() -> None:
    assert compiled_folder([]) is None
    assert compiled_folder([Entry("a\0b", 1), Entry("c", 1)]) is None
    assert compiled_folder([Entry("x" * 5000, 1)]) is not None


def test_a_name_too_long_for_any_file_system_is_left_to_python(top: int) -> None:
    folder = table({"a": 1, "b" * 300: 1, "c" * 200 + "/" + "d" * 256: 1})
    assert folder.write(top, 0, b"abc") == (1, True)
    assert [one[-1] != 0 for one in folder.look(top)] == [True, False, False]


def test_a_folder_among_the_entries_has_no_bytes(tmp_path: Path, top: int) -> None:
    entries = [Entry("empty", 0, EntryKind.FOLDER), Entry("full", 2)]
    folder = compiled_folder(entries)
    assert folder is not None
    assert folder.write(top, 0, b"ab") == (2, True)
    assert contents(tmp_path) == {"within/full": b"ab"}
