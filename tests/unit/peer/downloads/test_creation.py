"""Creation of downloads: folders that are made for them, and waits that are bounded."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from common.errors import StorageError, TimedOut
from common.messages import control
from peer.downloads import creation
from peer.files import open_part
from peer.files.errors import AlreadyExists, DiskFull, UnsafeDestination
from tests.support.peer_fakes import until
from tests.support.waiting import PATIENCE_S
from tests.unit.peer.downloads.test_lifecycle import Stage


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> Stage:
    """The stage, started, with a manifest to fetch."""

    async def fetch(*_: Any) -> bytes:
        return stage.encoded

    monkeypatch.setattr(creation, "fetch_manifest", fetch)
    await stage.start()
    return stage


async def begin(stage: Stage, dest: object, **options: Any) -> str:
    command = control.DownloadFile("films", "film", str(dest), **options)
    return await stage.downloads.begin(command, lambda _: None)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


async def test_missing_folders_are_made_and_go_when_it_is_cancelled(stage: Stage) -> None:
    key = await begin(stage, f"{stage.place}/a/b/")
    assert stage.downloads.path_of(key) == f"{stage.place}/a/b/film"
    assert names_in(stage.place) == ["a", "a/b", "a/b/film.part"]
    await stage.downloads.cancel("films", "film")
    assert names_in(stage.place) == []


async def test_a_made_folder_stays_when_something_else_is_in_it(stage: Stage) -> None:
    await begin(stage, stage.place / "a" / "b" / "other")
    (stage.place / "a" / "mine").write_bytes(b"")
    await stage.downloads.cancel("films", "film")
    assert names_in(stage.place) == ["a", "a/mine"]


async def test_made_folders_go_when_the_part_cannot_be_made(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise DiskFull("no space left")

    monkeypatch.setattr(open_part, "create", full)
    with pytest.raises(DiskFull):
        await begin(stage, stage.place / "a" / "b" / "film")
    assert names_in(stage.place) == []
    assert stage.records.load() == {}


async def test_f120_folders_are_made_after_a_process_ended_before_they_were(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        """The end of the process."""

    def end(_: Any) -> None:
        raise Ended

    with monkeypatch.context() as patched:
        patched.setattr(creation, "make_folders", end)
        with pytest.raises(Ended):
            await begin(stage, f"{stage.place}/a/b/")
    assert names_in(stage.place) == []
    (record,) = stage.records.load().values()
    assert record.folder is None
    downloads = await stage.start()
    await until(lambda: names_in(stage.place) == ["a", "a/b", "a/b/film.part"])
    await downloads.cancel("films", "film")
    assert names_in(stage.place) == []


@pytest.mark.parametrize("kind", ["file", "dangling", "loop"])
async def test_h126_a_folder_is_made_in_folders_alone(stage: Stage, kind: str) -> None:
    there, elsewhere = stage.place / "there", stage.home / "elsewhere"
    if kind == "file":
        there.write_bytes(b"mine")
    else:
        there.symlink_to(elsewhere if kind == "dangling" else there)
    with pytest.raises(UnsafeDestination, match="there"):
        await begin(stage, there / "a" / "film")
    assert not elsewhere.exists()
    assert names_in(stage.place) == ["there"]
    assert stage.records.load() == {}


async def test_h126_a_link_to_a_folder_is_resolved_once(stage: Stage) -> None:
    elsewhere = stage.home / "elsewhere"
    elsewhere.mkdir()
    (stage.place / "link").symlink_to(elsewhere)
    key = await begin(stage, stage.place / "link" / "a" / "film")
    assert stage.downloads.path_of(key) == f"{elsewhere}/a/film"
    assert names_in(elsewhere) == ["a", "a/film.part"]


def test_h126_a_link_planted_among_the_made_folders_leads_nowhere(tmp_path: Path) -> None:
    outside, place = tmp_path / "outside", tmp_path / "place"
    outside.mkdir()
    place.mkdir()
    missing = open_part.admit(str(place / "a" / "b" / "film")).missing
    assert len(missing) == 2
    (place / "a").symlink_to(outside)
    with pytest.raises(StorageError):
        creation.make_folders(missing)
    assert os.listdir(outside) == []
    assert os.listdir(place) == ["a"]


async def test_a_bounded_wait_ends_and_the_download_goes_on(stage: Stage) -> None:
    key = await begin(stage, stage.place)
    with pytest.raises(TimedOut, match="goes on") as caught:
        await stage.downloads.wait(key, lambda _: None, 0.01)
    assert "cancel films film" in str(caught.value.hint)
    assert [row.state for row in stage.downloads.rows()] == ["downloading"]


async def test_a_bounded_search_for_the_share_begins_nothing(stage: Stage) -> None:
    async def never(*_: Any) -> None:
        await asyncio.Event().wait()

    stage.link.request = never  # type: ignore[method-assign, assignment]
    with pytest.raises(TimedOut, match="nothing was begun"):
        await begin(stage, stage.place, timeout_s=0.01)
    assert stage.records.load() == {}


async def fetched(stage: Stage, key: str) -> control.Downloaded:
    """The result of a download, whose pieces come without a network."""
    job = stage.downloads._jobs[key]
    await until(lambda: job.complete or job.transfer is not None)
    if job.part is not None:
        assert job.transfer is not None
        for index in range(stage.manifest.piece_count):
            job.part.write_piece(index, stage.piece(index))
        job.transfer._ended.set()
    return await asyncio.wait_for(stage.downloads.wait(key, lambda _: None), PATIENCE_S)


async def test_the_same_content_in_place_is_success(stage: Stage) -> None:
    stage.path.write_bytes(stage.data)
    inode = stage.path.stat().st_ino
    for overwrite in (False, True):
        key = await begin(stage, stage.place, overwrite=overwrite)
        done = await fetched(stage, key)
        assert (done.in_place, done.path, done.sources) == (True, str(stage.path), [])
    assert stage.path.stat().st_ino == inode
    assert [record.path for record in stage.records.load().values()] == [bytes(stage.path)]
    assert names_in(stage.place) == ["film"]
    assert [row.state for row in stage.downloads.rows()] == ["complete"]
    assert [share.name for share, *_ in stage.adopted] == ["film", "film"]


async def test_another_content_is_replaced_for_those_who_say_so(stage: Stage) -> None:
    stage.path.write_bytes(bytes(len(stage.data)))
    with pytest.raises(AlreadyExists, match="another content") as caught:
        await begin(stage, stage.place, pick="sequential")
    assert f"download-file --overwrite --pick sequential films film {stage.place}" in str(
        caught.value.hint
    )
    assert stage.records.load() == {}
    key = await begin(stage, stage.place, overwrite=True)
    assert stage.path.read_bytes() == bytes(len(stage.data))
    done = await fetched(stage, key)
    assert (done.in_place, stage.path.read_bytes()) == (False, stage.data)
    assert names_in(stage.place) == ["film"]


@pytest.mark.parametrize("held", [0, 4])
@pytest.mark.parametrize("renamed", [False, True])
async def test_f121_a_replacement_goes_on_after_a_restart(
    stage: Stage, held: int, renamed: bool
) -> None:
    """The process ended while it fetched, or after the rename and before the record."""
    stage.remembers(held, overwrite=True)
    part = stage.path.with_suffix(".part")
    stage.path.write_bytes(b"old")
    if renamed:
        part.write_bytes(stage.data)
        part.rename(stage.path)
    downloads = await stage.start()
    job = downloads._jobs["film"]
    await until(lambda: job.complete or (job.transfer is not None and not renamed))
    if stage.state() != "C":
        done = await fetched(stage, "film")
        assert done.path == str(stage.path)
    assert stage.path.read_bytes() == stage.data
    assert names_in(stage.place) == ["film"]
    assert [row.state for row in downloads.rows()] == ["complete"]


async def test_f121_a_part_that_is_gone_is_made_anew_beside_the_old_content(stage: Stage) -> None:
    stage.remembers(4, overwrite=True)
    stage.path.with_suffix(".part").unlink()
    stage.path.write_bytes(b"old")
    await stage.start()
    await until(lambda: stage.downloads._jobs["film"].part is not None)
    assert stage.path.read_bytes() == b"old"
    await fetched(stage, "film")
    assert stage.path.read_bytes() == stage.data
