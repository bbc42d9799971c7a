"""Times of modification: kept by a download, unless its user wants none of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common import manifest
from common.errors import LocalProtocolError, RemoteProtocolError
from common.manifest import Entry, Manifest, decode, encode, manifest_id
from peer.files import open_part, sharing
from peer.files.partial_content import PartialContent
from tests.support.data_paths import module_on_both_paths

pytestmark = module_on_both_paths

PIECE = 16 * 1024


def tree(root: Path) -> Path:
    for name in ("a", "b/c/d", "b/e", "nothing"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"" if name == "nothing" else name.encode() * 9000)
    (root / "b" / "e").chmod(0o755)
    (root / "empty").mkdir()
    for number, path in enumerate(sorted([root, *root.rglob("*")], reverse=True), 1):
        os.utime(path, ns=(5, number * 10**15 + 123456789))
    return root


def times(root: Path) -> dict[str, int]:
    found = [root, *root.rglob("*")]
    return {str(path.relative_to(root)): path.stat().st_mtime_ns for path in found}


def fetch(source: Path, place: Path, *, break_off: bool = False, **options: bool) -> None:
    made = sharing.digest(str(source), piece_length=PIECE)
    content = manifest_id(encode(made.manifest))
    journal = str(place.parent / "journal")
    download = open_part.create(str(place), made.manifest, content, journal, **options)
    stream = b"".join(
        (source / entry.path).read_bytes()
        for entry in made.manifest.entries
        if entry.kind is not manifest.EntryKind.FOLDER
    )
    for index in range(made.manifest.piece_count):
        if break_off and index == made.manifest.piece_count // 2:
            download.checkpoint()
            download.close()
            part = open_part.resume(str(place), made.manifest, content, journal, **options)
            download = part.recover()
        download.write_piece(index, stream[index * PIECE : (index + 1) * PIECE])
    finish(download)


def finish(download: PartialContent) -> None:
    place = download.finalize()
    sharing.verify(download.manifest, place)
    download.close()


@pytest.mark.parametrize("break_off", [False, True])
def test_files_and_folders_have_their_times(tmp_path: Path, break_off: bool) -> None:
    source = tree(tmp_path / "source")
    fetch(source, tmp_path / "got", break_off=break_off)
    assert times(tmp_path / "got") == times(source)


@pytest.mark.parametrize("break_off", [False, True])
def test_a_file_has_its_time(tmp_path: Path, break_off: bool) -> None:
    source = tree(tmp_path / "source") / "b" / "e"
    fetch(source, tmp_path / "got", break_off=break_off)
    assert times(tmp_path / "got") == times(source)


def test_without_times_no_file_gets_them(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    fetch(source, tmp_path / "got", times=False)
    assert not set(times(tmp_path / "got").values()) & set(times(source).values())


def test_a_content_without_times_keeps_its_id(tmp_path: Path) -> None:
    source = tree(tmp_path / "source")
    plain = sharing.digest(str(source), piece_length=PIECE, times=False).manifest
    timed = sharing.digest(str(source), piece_length=PIECE).manifest
    encoded = encode(plain)
    assert encoded[:2] == b"\x97\x01"
    assert encode(timed)[:2] == b"\x98\x02"
    assert decode(encoded, manifest_id(encoded)) == plain
    assert (plain.pieces, plain.entries) == (timed.pieces, timed.entries)


@pytest.mark.parametrize(
    ("entries", "right"),
    [
        ([Entry("", 5)], 1),
        ([], 1),
        ([Entry("a", 5)], 2),
        ([Entry("a/b", 5), Entry("a/c/d", 0), Entry("e/f", 0)], 7),
        ([Entry("a", 0, manifest.EntryKind.FOLDER)], 2),
    ],
)
def test_h82_the_number_of_times_is_that_of_files_and_folders(
    entries: list[Entry], right: int
) -> None:
    for count in range(right + 3):
        size = sum(entry.size for entry in entries)
        pieces = bytes(32 * (size > 0))
        made = Manifest(
            2, manifest.Algorithm.BLAKE3, PIECE, size, bytes(32), pieces, tuple(entries),
            tuple(range(count)),
        )  # fmt: skip
        if count == right:
            assert decode(encode(made), manifest_id(encode(made))) == made
            continue
        with pytest.raises(LocalProtocolError):
            encode(made)
        lie = manifest._encoder.encode(made)
        with pytest.raises(RemoteProtocolError):
            decode(lie, manifest_id(lie))


@pytest.mark.parametrize("time_ns", [-1, 1 << 63, (1 << 64) - 1])
def test_h82_a_time_out_of_range_is_refused(time_ns: int) -> None:
    made = Manifest(
        2, manifest.Algorithm.BLAKE3, PIECE, 0, bytes(32), b"", (Entry("", 0),), (time_ns,)
    )
    lie = manifest._encoder.encode(made)
    with pytest.raises(RemoteProtocolError):
        decode(lie, manifest_id(lie))


def test_h82_times_in_a_manifest_that_has_none_are_refused() -> None:
    made = Manifest(1, manifest.Algorithm.BLAKE3, PIECE, 0, bytes(32), b"", (Entry("", 0),), (5,))
    lie = manifest._encoder.encode(made)
    with pytest.raises(RemoteProtocolError):
        decode(lie, manifest_id(lie))


def test_h82_very_many_folders_in_few_paths_cost_little() -> None:
    deep = "/".join("d" * 63)
    entries = tuple(Entry(f"{number:06}/{deep}", 0) for number in range(2000))
    made = Manifest(2, manifest.Algorithm.BLAKE3, PIECE, 0, bytes(32), b"", entries, (5,) * 2001)
    lie = manifest._encoder.encode(made)
    with pytest.raises(RemoteProtocolError, match="number of times"):
        decode(lie, manifest_id(lie))
