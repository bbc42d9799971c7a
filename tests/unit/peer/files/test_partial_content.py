"""Downloads on disk from begin to end: held pieces are right, visible content is complete."""

from __future__ import annotations

import errno
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from common import limits
from common.digests import Algorithm
from common.errors import LocalProtocolError
from common.manifest import Entry, Manifest, encode, manifest_id
from peer.files import disk_space, open_part, sharing
from peer.files.destination import Destination
from peer.files.errors import (
    DigestMismatch,
    DiskFull,
    PieceNotHeld,
    StorageClosed,
    WrongPiece,
)
from peer.native.folder import CompiledFolder, Status
from tests.support.data_paths import PYTHON, module_on_both_paths
from tests.support.partial_downloads import (
    NOISE,
    PIECE,
    Sample,
    listing,
    snapshot,
)

pytestmark = [*module_on_both_paths, pytest.mark.usefixtures("no_leaks")]
MEANWHILE_S = 0.2  # time for another thread, which needs next to none unless a lock stops it


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
    assert found == sharing.location_of(sample.manifest, str(place))
    assert download.read_piece(0) == sample.pieces[0]
    download.close()


def test_a_finished_folder_is_looked_at_once(
    data_path: str, sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status that sealed its files is their fingerprint: an edit in between is noticed."""
    if data_path == PYTHON or not sample.manifest.is_folder:
        pytest.skip("Python looks at each file for itself")
    download, looks = sample.begin(place), []
    look = CompiledFolder.look

    def counted(table: CompiledFolder, fd: int) -> list[Status]:
        looks.append(fd)
        return look(table, fd)

    monkeypatch.setattr(CompiledFolder, "look", counted)
    sample.fill(download)
    found = download.finalize()
    assert len(looks) == 1
    assert found == sharing.location_of(sample.manifest, str(place))
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

    def full(fd: int, data: Any, offset: int) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        patch.setattr(CompiledFolder, "write", lambda *_: (0, False))
        with pytest.raises(DiskFull):
            download.write_run(0, len(sample.pieces), data)
    assert download.held_count == 0
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
def test_zeros_and_copies_are_known_by_digest_and_made(
    algorithm: Algorithm, rest: int, tmp_path: Path, place: Path
) -> None:
    """Zeros, among them the short last piece, and copies; the result equals the source."""
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


def test_only_zeros_are_looked_for_among_very_many_pieces(
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
    assert download.finalize() == found[0]  # the place of the rename, not the place by now
    download.close()
