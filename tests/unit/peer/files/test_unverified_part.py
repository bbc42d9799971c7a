"""Downloads after a restart: verified pieces are held, damaged ones are fetched again."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from common.ids import ContentId
from common.manifest import Manifest
from peer.files import partfolder, sharing, syscalls
from peer.files.errors import (
    AlreadyExists,
    Cancelled,
    DigestMismatch,
    DiskFull,
)
from peer.files.journal import Journal
from peer.files.whole_digest import DIGEST_TRUST_S
from tests.support.data_paths import module_on_both_paths
from tests.support.partial_downloads import (
    NOISE,
    PIECE,
    Sample,
    Synced,
    flip_a_bit,
    listing,
    offset_in_file,
    one_file_of,
    snapshot,
)

pytestmark = [*module_on_both_paths, pytest.mark.usefixtures("no_leaks")]


def test_checkpointed_pieces_are_held_after_a_restart(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download, [3, 1])
    assert download.checkpoint() == (3, 1)
    assert download.checkpoint() == ()
    sample.fill(download, [2])
    assert download.unsynced_bytes == PIECE
    download.close()

    done: list[int] = []
    download = sample.resume(place).recover(on_progress=done.append)
    assert download.held_count == 2
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
    download = sample.recover(place)
    assert download.held_count == 0
    sample.fill(download)
    download.finalize()
    download.close()


def test_a_part_that_was_just_made_is_resumed(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfolder, "RESERVED_FROM_BYTES", len(NOISE))
    sample.begin(place).close()
    (place.parent / "journal").unlink()  # killed before it was written
    download = sample.recover(place)
    assert download.held_count == 0
    assert (place.parent / "journal").exists()
    sample.fill(download)
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def foreign_part(sample: Sample, part: Path, size: int) -> Path:
    """A file with the name of a part, of ``size`` bytes."""
    if sample.manifest.is_folder:
        part.mkdir()
        part = part / "a"
    part.write_bytes(b"mine" * (size // 4))
    return part


@pytest.mark.parametrize("size", [4, len(NOISE) // 4 * 4 + 4])
def test_a_part_that_came_before_ours_was_made_is_left_alone(
    size: int, sample: Sample, place: Path
) -> None:
    theirs = foreign_part(sample, place.with_name("name.part"), size)
    for give_up in (False, True):
        part = sample.resume(place)  # recorded, and killed before anything was made
        if give_up:
            part.discard()
        else:
            with pytest.raises(AlreadyExists):
                part.recover()
            part.close()
        assert listing(place) == {"name.part"}
        assert theirs.read_bytes() == b"mine" * (size // 4)


def test_a_foreign_file_of_the_same_size_is_left_alone(file_sample: Sample, place: Path) -> None:
    theirs = place.with_name("name.part")
    theirs.write_bytes(NOISE[::-1])
    part = file_sample.resume(place)
    with pytest.raises(AlreadyExists):
        part.recover()
    part.close()
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
    part = sample.resume(place)
    with pytest.raises(Cancelled):
        part.recover(cancelled=lambda: True)
    part.close()


def test_F22_a_truncated_part_is_noticed_and_fetched_again(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    sample.fill(download)
    download.checkpoint()
    download.close()
    os.truncate(one_file_of(Path(download.part_path)), 2 * PIECE)
    download = sample.recover(place)
    assert 0 < download.held_count < len(sample.pieces)
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F23_only_the_piece_with_the_flipped_bit_is_fetched_again(
    sample: Sample, place: Path
) -> None:
    download = sample.begin(place)
    sample.fill(download)
    download.checkpoint()
    download.close()
    flip_a_bit(one_file_of(Path(download.part_path)), offset_in_file(sample, 3) + 5)
    download = sample.recover(place)
    assert download.held_count == len(sample.pieces) - 1
    assert sample.missing(download) == [3]
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F23_a_bit_that_flips_before_the_whole_was_digested_is_found(
    file_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing waits in memory for its turn: Python digests the whole from the disk.
    monkeypatch.setattr("peer.files.direct_part.placing", lambda _: None)
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


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("how", ["interrupted", "slow", "slow at the end"])
def test_F23_a_bit_that_flips_during_an_idle_time_is_found(
    how: str, sample: Sample, place: Path
) -> None:
    clock = ManualClock()
    download = sample.begin(place, clock=clock)
    last = len(sample.pieces) - 1
    sample.fill(download, list(range(last)))
    download.checkpoint()
    flip_a_bit(one_file_of(Path(download.part_path)), offset_in_file(sample, 3) + 5)
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


def test_F23_content_verified_long_before_its_rename_is_verified_again(
    file_sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
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
def test_F22_a_truncated_part_is_never_filled_up_with_zeros(
    rest: int, sample: Sample, place: Path
) -> None:
    # All at once, so that the digest of the whole comes from the received bytes.
    download = sample.begin(place)
    sample.fill(download)
    cut = one_file_of(Path(download.part_path))
    os.truncate(cut, rest)
    with pytest.raises(DigestMismatch) as caught:
        download.finalize()
    assert cut.stat().st_size == rest
    first = (offset_in_file(sample, 0) * -1 + rest) // PIECE
    assert caught.value.pieces == tuple(sample.missing(download))
    assert caught.value.pieces[0] == first
    sample.fill(download, sample.missing(download))
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_F22_a_write_beyond_a_truncation_leaves_no_gap(
    sample: Sample, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partfolder, "RESERVED_FROM_BYTES", len(NOISE))
    download = sample.begin(place)
    lost, last = [2, 3, 4], 9
    sample.fill(download, [index for index in range(len(sample.pieces)) if index != last])
    cut = one_file_of(Path(download.part_path))
    os.truncate(cut, offset_in_file(sample, 2))
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
    download = sample.recover(place)
    assert {0, 1, 4} <= set(download.held_indexes())
    missing = sample.missing(download)
    download.checkpoint()
    download.close()
    download = sample.recover(place)
    assert sample.missing(download) == missing
    sample.fill(download, missing)
    download.finalize()
    download.close()
    assert snapshot(place) == snapshot(sample.source)


def test_a_journal_of_another_content_is_not_trusted(sample: Sample, place: Path) -> None:
    download = sample.begin(place)
    download.close()
    other = Journal.create(str(place.parent / "journal"), ContentId(bytes(32)))
    other.append([0, 1, 2])
    other.close()
    download = sample.recover(place)
    assert not download.has(0)
    download.discard()


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
def test_F25_unsynced_pieces_of_a_killed_process_are_synced_before_publishing(
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
    # Killed during sealing, which makes empty files and folders.
    with monkeypatch.context() as killed:
        killed.setattr(type(download._files), "sync", lambda _: None)
        download._files.seal()
    download.close()
    if journal == "lost":
        (place.parent / "journal").unlink()
    elif journal == "noise":
        (place.parent / "journal").write_bytes(NOISE[:200])

    download = sample.recover(place)
    assert download.held_count == len(sample.pieces)
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
    download = few_files_sample.recover(place)
    assert download.held_count == 2
    synced = Synced(monkeypatch, place.parent)
    assert set(download.checkpoint()) == {0, 1}
    part = Path(download.part_path)
    assert {part, part / "sub", part / "sub" / "big"} <= synced.paths
    assert synced.everything == 1
    few_files_sample.fill(download, [2])
    download.checkpoint()
    assert synced.everything == 1
    download.discard()
