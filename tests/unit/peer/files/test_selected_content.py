"""Selected files of a folder: fetched alone, added to, and completed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import StorageError
from peer.files import addition, open_part
from peer.files.errors import AlreadyExists, DigestMismatch
from peer.files.part_resources import Fit
from peer.files.partial_content import PartialContent
from peer.files.replacement import Replaces
from peer.files.selected_content import selected_at
from peer.files.selection import Selection, select
from peer.files.unverified_part import UnverifiedPart
from tests.support.data_paths import module_on_both_paths
from tests.support.partial_downloads import Sample, listing, snapshot

pytestmark = [*module_on_both_paths, pytest.mark.usefixtures("no_leaks")]


class Ended(BaseException):
    """The end of the process."""


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


class Stage:
    """Downloads of selections of the folder sample to one place."""

    def __init__(self, sample: Sample, place: Path) -> None:
        self.sample, self.place = sample, place
        self.there = select(sample.manifest, ["\n"])  # nothing yet

    def fit(self, *patterns: str, overwrite: bool = False) -> Fit:
        wanted = select(self.sample.manifest, patterns)
        there = self.there
        return Fit(
            Replaces() if overwrite else None,
            wanted - there,
            there | wanted,
            adds=bool(there.entries),
        )

    def begin(self, *patterns: str, **more: Any) -> PartialContent:
        return self.sample.begin(self.place, fit=self.fit(*patterns, **more))

    def resume(self, fit: Fit, **more: Any) -> UnverifiedPart:
        journal = str(self.place.parent / "journal")
        sample = self.sample
        return open_part.resume(
            str(self.place), sample.manifest, sample.id, journal, fit=fit, **more
        )

    def fill(self, part: PartialContent) -> None:
        assert part.wanted is not None
        self.sample.fill(part, part.wanted)

    def fetch(self, *patterns: str, **more: Any) -> None:
        part = self.begin(*patterns, **more)
        try:
            self.fill(part)
            part.finalize()
        finally:
            part.close()
        self.there |= select(self.sample.manifest, patterns)

    def expected(self, selection: Selection | None = None) -> dict[str, bytes]:
        entries = (selection or self.there).entries
        paths = {self.sample.manifest.entries[number].path for number in entries}
        return {p: b for p, b in files_of(self.sample.source).items() if p in paths}


@pytest.fixture
def stage(folder_sample: Sample, place: Path) -> Stage:
    return Stage(folder_sample, place)


def test_selected_files_are_made_and_no_others(stage: Stage) -> None:
    part = stage.begin("sub/sub/0*", "run", "none")
    assert part.wanted is not None
    assert len(part.wanted) < stage.sample.manifest.piece_count
    stage.fill(part)
    assert part.is_complete
    for index in part.wanted:  # others are served whole pieces
        assert bytes(part.read_piece(index)) == stage.sample.pieces[index]
    location = part.finalize()
    part.close()
    selection = select(stage.sample.manifest, ["sub/sub/0*", "run", "none"])
    assert files_of(stage.place) == stage.expected(selection)
    assert not (stage.place / "void").exists()
    assert os.access(stage.place / "run", os.X_OK)
    assert listing(stage.place) == {"name"}
    assert sum(found is not None for found in location.fingerprints) == len(selection.entries)
    times = [(stage.place / "sub" / "sub").stat().st_mtime_ns, (stage.place / "run").stat()]
    assert times[0] == (stage.sample.source / "sub" / "sub").stat().st_mtime_ns


def test_an_empty_folder_and_an_empty_file_need_no_piece(stage: Stage) -> None:
    stage.fetch("void/", "none")
    assert (stage.place / "void" / "inner").is_dir()
    assert files_of(stage.place) == {"none": b""}


def test_more_files_are_added_and_complete_the_folder(stage: Stage) -> None:
    stage.fetch("sub/sub/0*")
    first = stage.place / "sub" / "sub" / "00"
    inode = first.stat().st_ino
    (stage.place / "notes").write_bytes(b"mine")
    stage.fetch("sub/sub/1*", "big")
    assert files_of(stage.place) == stage.expected() | {"notes": b"mine"}
    part = stage.begin()
    assert files_of(stage.place) == stage.expected() | {"notes": b"mine"}
    stage.fill(part)
    location = part.finalize()
    part.close()
    (stage.place / "notes").unlink()
    assert snapshot(stage.place) == snapshot(stage.sample.source)
    assert all(found is not None for found in location.fingerprints if found is not None)
    assert first.stat().st_ino == inode
    assert listing(stage.place) == {"name"}


def test_any_selections_in_any_order_complete_the_folder(
    folder_sample: Sample, place: Path
) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    paths = [entry.path for entry in folder_sample.manifest.entries]
    for _ in range(5):
        stage = Stage(folder_sample, place)
        rng.shuffle(paths)
        cuts = sorted(rng.sample(range(1, len(paths)), 2))
        for chosen in (paths[: cuts[0]], paths[cuts[0] : cuts[1]]):
            stage.fetch(*(f"/{path}" for path in chosen))
            assert files_of(place) == stage.expected()
        stage.fetch()
        assert snapshot(place) == snapshot(folder_sample.source)
        shutil.rmtree(place)


def test_f123_a_selection_goes_on_after_a_restart(stage: Stage) -> None:
    """Pieces that it shares with other files are kept like others."""
    fit = stage.fit("sub/sub/0*", "a")
    part = stage.sample.begin(stage.place, fit=fit)
    assert part.wanted is not None
    stage.sample.fill(part, part.wanted[:-1])
    part.checkpoint()
    part.close()
    part = stage.resume(fit).recover()
    assert stage.sample.missing(part)[-1:] != part.wanted[-1:] or part.held_count
    assert [index for index in part.wanted or [] if not part.has(index)] == (part.wanted or [])[-1:]
    stage.fill(part)
    part.finalize()
    part.close()
    assert files_of(stage.place) == stage.expected(fit.selection)


def test_f123_a_damaged_journal_costs_no_piece_of_a_selection(stage: Stage) -> None:
    fit = stage.fit("sub/sub/0*", "big")
    part = stage.sample.begin(stage.place, fit=fit)
    stage.fill(part)
    part.checkpoint()
    part.close()
    (stage.place.parent / "journal").write_bytes(b"noise")
    part = stage.resume(fit).recover()
    assert part.is_complete
    part.finalize()
    part.close()
    assert files_of(stage.place) == stage.expected(fit.selection)


@pytest.mark.parametrize("moves", range(0, 12, 3))
def test_f122_files_are_added_although_the_process_ends_meanwhile(
    stage: Stage, moves: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.fetch("sub/sub/0*")
    fit = stage.fit("sub/sub/1*")
    part = stage.sample.begin(stage.place, fit=fit)
    stage.fill(part)
    left = [moves]
    with monkeypatch.context() as patched:
        patched.setattr(addition, "_move", ending(addition._move, left))
        ended = False
        try:
            part.finalize()
        except Ended:
            ended = True
        part.close()
    assert ended == (moves < 10)
    before = files_of(stage.place)
    assert stage.expected().items() <= before.items()  # all of the files that were there …
    assert before.items() <= stage.expected(fit.leaves).items()  # … and whole new ones alone
    if ended:
        with pytest.raises(AlreadyExists):
            stage.resume(fit)
    assert open_part.finish_addition(str(stage.place), stage.sample.manifest, fit) == ended
    assert files_of(stage.place) == stage.expected(fit.leaves)
    assert listing(stage.place) - {"journal"} == {"name"}


def ending(real: Callable[..., None], left: list[int]) -> Callable[..., None]:
    def call(*arguments: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Ended
        real(*arguments)

    return call


def test_a_file_in_the_way_is_left_alone(stage: Stage) -> None:
    stage.fetch("sub/sub/0*")
    mine = stage.place / "sub" / "sub" / "11"
    mine.write_bytes(b"mine")
    fit = stage.fit("sub/sub/1*")
    assert fit.selection is not None
    with pytest.raises(AlreadyExists, match="11"):
        open_part.refuse_in_the_way(str(stage.place), stage.sample.manifest, fit.selection)
    with pytest.raises(AlreadyExists):
        stage.fetch("sub/sub/1*")
    assert mine.read_bytes() == b"mine"
    assert listing(stage.place) - {"journal"} == {"name", "name.part"}
    assert not (stage.place / "sub" / "sub" / "10").exists()
    mine.unlink()
    part = stage.resume(fit).recover()
    assert part.is_complete
    part.finalize()
    part.close()
    assert files_of(stage.place) == stage.expected(fit.leaves)


def test_the_rest_of_an_addition_goes_when_it_is_given_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.fetch("sub/sub/0*")
    part = stage.begin("sub/sub/1*")
    stage.fill(part)
    with monkeypatch.context() as patched:
        patched.setattr(addition, "_move", ending(addition._move, [3]))
        with pytest.raises(Ended):
            part.finalize()
    part.close()
    assert "name.adding" in listing(stage.place)
    open_part.remove_addition(str(stage.place))
    assert listing(stage.place) - {"journal"} == {"name"}
    assert stage.expected().items() <= files_of(stage.place).items()


def test_a_file_in_the_way_is_replaced_for_those_who_say_so(stage: Stage) -> None:
    stage.fetch("sub/sub/0*")
    (stage.place / "sub" / "sub" / "11").write_bytes(b"mine")
    stage.fetch("sub/sub/1*", overwrite=True)
    assert files_of(stage.place) == stage.expected()


def test_h127_links_in_the_folder_lead_no_added_file_elsewhere(
    stage: Stage, tmp_path: Path
) -> None:
    stage.fetch("a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (stage.place / "sub").symlink_to(outside)
    with pytest.raises(StorageError):
        stage.fetch("sub/sub/0*")
    assert os.listdir(outside) == []


def test_a_changed_file_keeps_the_folder_from_being_complete(stage: Stage) -> None:
    stage.fetch("big")
    big = stage.place / "big"
    big.write_bytes(bytes(big.stat().st_size))
    with pytest.raises(DigestMismatch, match="not as they were") as caught:
        stage.fetch()
    assert not caught.value.pieces


def test_the_files_of_a_selection_are_found_in_place(stage: Stage) -> None:
    selection = select(stage.sample.manifest, ["big", "a"])
    stage.fetch("big", "a")
    found = selected_at(stage.sample.manifest, str(stage.place), selection)
    assert found is not None
    more = select(stage.sample.manifest, ["sub"])
    assert selected_at(stage.sample.manifest, str(stage.place), more) is None
    big = stage.place / "big"
    big.write_bytes(bytes(big.stat().st_size))
    assert selected_at(stage.sample.manifest, str(stage.place), selection) is None


def test_an_entry_with_the_name_of_the_rest_is_an_ordinary_file(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in (".rest", ".REST-", "a", "b"):
        (source / name).write_bytes(name.encode() * 3000)
    (tmp_path / "to").mkdir()
    stage = Stage(Sample(source), tmp_path / "to" / "name")
    stage.fetch("a", ".rest")
    assert files_of(stage.place) == stage.expected()
    stage.fetch()
    assert snapshot(stage.place) == snapshot(source)
