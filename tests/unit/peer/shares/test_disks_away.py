"""F86: disks that go and come back below shares and downloads."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from peer.downloads import manager as downloads_manager
from peer.files import folder_identity
from peer.records import DownloadRecord
from peer.shares import watching
from tests.support.peer_fakes import until
from tests.unit.peer.downloads.test_lifecycle import Stage, staged
from tests.unit.peer.shares.test_manager import ALICE, Town


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FOLDERS_INTERVAL_S", 0.01)
    monkeypatch.setattr(downloads_manager, "FOLDERS_INTERVAL_S", 0.01)


def renamed(folder: Path) -> Callable[[], None]:
    """Take the folder away; return the function that brings it back."""
    away = folder.with_name("elsewhere")
    folder.rename(away)

    def back() -> None:
        if folder.exists():
            folder.rmdir()
        away.rename(folder)

    return back


def another(folder: Path) -> Callable[[], None]:
    """Put another, empty folder in its place, like a mount point without its disk."""
    back = renamed(folder)
    folder.mkdir()
    return back


WAYS = [renamed, another]


async def shared(town: Town, kind: str) -> Path:
    """A shared file, in a folder that can be taken away."""
    (town.files / "disk").mkdir()
    if kind == "file":
        return await town.share("disk/film")
    (town.files / "disk" / "film").mkdir()
    (town.files / "disk" / "film" / "reel").write_bytes(b"reel" * 1000)
    path = town.files / "disk" / "film"
    await town.upload(path)
    return path


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("way", WAYS)
async def test_f86_a_share_is_served_again_when_its_folder_is_back(
    town: Town, way: Any, kind: str
) -> None:
    path = await shared(town, kind)
    watching = asyncio.create_task(town.shares.watch_files())
    back = way(path.parent)
    await until(town.shares.away, "that it is away")
    assert town.served() == set()
    assert set(town.listed) == {("films", "film")}
    assert list(town.shares.away()) == [("films", "film", 1)]
    assert len(town.notices) == 1
    back()
    await until(town.served, "that it is served again")
    assert not town.shares.away()
    # A file missing from a folder that is there was deleted.
    shutil.rmtree(path) if kind == "folder" else path.unlink()
    town.inventory.changed(next(iter(town.shares.contents())))
    await until(lambda: not town.listed, "the end of the share")
    watching.cancel()


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("way", WAYS)
async def test_f86_a_start_without_the_disk_forgets_no_share(
    town: Town, way: Any, kind: str
) -> None:
    path = await shared(town, kind)
    back = way(path.parent)
    for _ in range(2):
        town.end()
        town.start()
        await town.shares.activate(ALICE)
        await until(town.shares.away, "that it is away")
        await town.shares.reconcile()
        assert set(town.listed) == {("films", "film")}
    back()
    town.end()
    town.start()
    await town.shares.activate(ALICE)
    await until(town.served, "that it is served again")


NOT_GONE = [
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV),
    *(errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOMEDIUM, errno.EREMOTEIO, errno.EINVAL),
]


@pytest.mark.parametrize("number", NOT_GONE, ids=errno.errorcode.__getitem__)
@pytest.mark.parametrize("where", ["walk", "look"])
async def test_f86_only_absence_counts_as_a_changed_file(
    monkeypatch: pytest.MonkeyPatch, town: Town, number: int, where: str
) -> None:
    path = await shared(town, "file")
    town.end()
    town.start()
    real = os.open if where == "walk" else os.stat

    def refused(name: Any, *words: Any, **more: Any) -> Any:
        wanted = "disk" if where == "walk" else "film"
        if name == wanted and more.get("dir_fd") is not None:
            raise OSError(number, os.strerror(number))
        return real(name, *words, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, real.__name__, refused)
        await town.shares.activate(ALICE)
        await until(town.shares.away, "that it is away")
        await town.shares.reconcile()
    assert set(town.listed) == {("films", "film")}
    assert path.exists()
    await town.shares.activate(ALICE)
    await until(town.served, "that it is served again")


async def test_f86_another_disk_with_other_content_proves_nothing(town: Town) -> None:
    path = await shared(town, "file")
    town.end()
    back = another(path.parent)
    path.write_bytes(b"of another disk")
    town.start()
    await town.shares.activate(ALICE)
    await until(town.shares.away, "that it is away")
    path.unlink()
    back()
    await town.shares.activate(ALICE)
    await until(town.served, "that it is served again")


async def test_f86_a_record_without_a_folder_gets_one_and_an_empty_one_is_a_mount_point(
    town: Town,
) -> None:
    path = await shared(town, "file")
    (key, record), *_ = town.shares._records._all.items()
    old = type(record)(
        **{
            **{field: getattr(record, field) for field in record.__struct_fields__},
            "place": type(record.place)(record.place.root, record.place.fingerprints),
        }
    )
    town.end()
    town.shares._records._files.put(key, old)
    back = another(path.parent)
    town.start()
    await town.shares.activate(ALICE)
    await until(town.shares.away, "that it is away")
    back()
    await town.shares.activate(ALICE)
    await until(town.served, "that it is served again")
    assert town.shares._records._files.load()[key].place.where is not None


# -- downloads ------------------------------------------------------------------------------------


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as stage:
        yield stage


def journal_of(stage: Stage) -> bytes:
    return (stage.home / "journals" / "film").read_bytes()


def record_of(stage: Stage) -> DownloadRecord:
    return stage.downloads._jobs["film"].record


@pytest.mark.parametrize("known", [True, False], ids=["folder known", "old record"])
@pytest.mark.parametrize("way", WAYS)
async def test_f86_a_download_waits_for_its_folder_and_loses_nothing(
    stage: Stage, way: Any, known: bool
) -> None:
    folder = folder_identity.Folder.at(str(stage.place)) if known else None
    stage.remembers(2, folder=folder)
    before = journal_of(stage)
    back = way(stage.place)
    await stage.start()
    await until(lambda: stage.state() == "P", "the pause")
    assert "folder" in (record_of(stage).reason or "")
    await asyncio.sleep(0.05)
    assert journal_of(stage) == before
    assert not list(stage.place.iterdir()) if stage.place.exists() else True
    back()
    await until(lambda: stage.downloads._jobs["film"].transfer is not None, "that it goes on")
    assert stage.downloads._jobs["film"].part.held_count == 2
    assert record_of(stage).folder == folder_identity.Folder.at(str(stage.place))
    assert len(stage.notices) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_f86_a_running_download_rests_while_its_folder_is_away(
    stage: Stage, way: Any
) -> None:
    stage.remembers(1, folder=folder_identity.Folder.at(str(stage.place)))
    await stage.start()
    await until(lambda: stage.downloads._jobs["film"].transfer is not None, "that it runs")
    job = stage.downloads._jobs["film"]
    job.part.write_piece(1, stage.piece(1))
    back = way(stage.place)
    await until(lambda: stage.state() == "P", "the pause")
    await until(lambda: not job.busy, "the rest")
    assert job.transfer is None
    back()
    await until(lambda: job.transfer is not None, "that it goes on")
    assert job.part.held_count == 2
    for index in (2, 3):
        job.part.write_piece(index, stage.piece(index))
    job.transfer._ended.set()
    await until(lambda: stage.state() == "C", "its end")
    assert stage.path.read_bytes() == stage.data


@pytest.mark.parametrize("number", [errno.EIO, errno.ENODEV, errno.ESTALE])
async def test_f86_a_disk_unplugged_during_a_write_fails_no_download(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, number: int
) -> None:
    stage.remembers(1, folder=folder_identity.Folder.at(str(stage.place)))
    await stage.start()
    job = stage.downloads._jobs["film"]
    await until(lambda: job.transfer is not None, "that it runs")
    back = renamed(stage.place)

    def fails(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", fails)
        with pytest.raises(Exception, match=os.strerror(number)) as failed:
            job.part.write_piece(1, stage.piece(1))
        job.transfer._writer.pause_for(failed.value)
        await until(lambda: stage.state() == "P", "the pause")
        await until(lambda: not job.busy, "the rest")
    back()
    await until(lambda: job.transfer is not None, "that it goes on")
    assert job.part.held_count == 1
