"""Downloads of readers: when they begin, rest and go, over a list of our own."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common import limits
from common.errors import Refused
from common.ids import ContentId, GroupId
from common.messages import control
from common.messages.refusals import Code
from peer.downloads.job import DownloadJob
from peer.reading import manager as readers
from peer.reading import read_downloads
from peer.reading.manager import Reading
from peer.reading.read_downloads import ReadDownloads
from peer.records import DownloadRecord, DownloadState
from peer.serving.inventory import Inventory
from peer.workers import Workers

A, B = ContentId(b"a" * 32), ContentId(b"b" * 32)


def target(content: ContentId, tag: str = "t") -> Any:
    return SimpleNamespace(
        group=GroupId("films"), name="n", version=2, content=content, tag=tag, size=10
    )


class FakeDownloads:
    """The list of downloads, with the commands that readers give."""

    def __init__(self) -> None:
        self.jobs: dict[str, DownloadJob] = {}
        self.calls: list[tuple[str, str]] = []
        self.for_follows = self

    def all(self) -> list[DownloadJob]:
        return list(self.jobs.values())

    def contents(self) -> set[ContentId]:
        return {job.content for job in self.jobs.values()}

    def add(self, content: ContentId, path: str, size: int = 10, **fields: Any) -> DownloadJob:
        record = DownloadRecord(
            "ann", "films", "n", content, os.fsencode(path), size, "", "read", len(self.jobs)
        )
        job = DownloadJob(path, record)
        job._replace(**fields)
        self.jobs[path] = job
        return job

    async def begin(self, command: control.DownloadFile, report: Any) -> str:
        assert (command.pick, command.wait, command.name) == ("read", False, "n@2")
        os.makedirs(command.dest)
        content = ContentId(bytes.fromhex(os.path.basename(command.dest.rstrip("/"))))
        self.calls.append(("begin", command.dest))
        return self.add(content, f"{command.dest}n").key

    async def pause(self, group: str, path: str) -> None:
        self.calls.append(("pause", path))
        self.jobs[path].set_paused("by its user", by_user=True)

    async def resume(self, group: str, path: str) -> None:
        self.calls.append(("resume", path))
        self.jobs[path].set_active(by_user=True)

    async def cancel(self, group: str, path: str) -> bool:
        self.calls.append(("cancel", path))
        del self.jobs[path]
        return False

    async def discard(self, key: str) -> None:
        self.calls.append(("discard", key))
        del self.jobs[key]


class FakeShares:
    def __init__(self) -> None:
        self.stopped: list[str] = []
        self.paths: list[str] = []

    def all(self) -> list[Any]:
        return [
            SimpleNamespace(record=SimpleNamespace(place=SimpleNamespace(path=path), version=1))
            for path in self.paths
        ]

    async def stop_at(self, path: str, version: int) -> None:
        self.stopped.append(path)


class Rig:
    def __init__(self, home: Path) -> None:
        self.downloads, self.shares = FakeDownloads(), FakeShares()
        self.workers = Workers(1, "worker")
        self.fetches = ReadDownloads(
            home,
            self.downloads,  # type: ignore[arg-type]
            self.shares,  # type: ignore[arg-type]
            self.workers,
        )
        self.root = home / "reads"

    def path(self, content: ContentId) -> str:
        return str(self.root / content.hex() / "n")


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_a_download_begins_once_rests_and_is_resumed(tmp_path: Path, monkeypatch: Any) -> None:
    async def talk() -> None:
        rig = Rig(tmp_path)
        await rig.fetches.want(target(A), 0, again=True)
        await rig.fetches.want(target(A), 0, again=False)
        await rig.fetches.tidy({A})
        await rig.fetches.tidy(())  # a program that reads ranges comes back
        assert [call for call, _ in rig.downloads.calls] == ["begin"]
        assert rig.root.stat().st_mode & 0o777 == 0o700
        monkeypatch.setattr(read_downloads, "RESTS_AFTER_S", -1.0)
        await rig.fetches.tidy({A})
        await rig.fetches.tidy(())
        await rig.fetches.tidy(())
        await rig.fetches.want(target(A), 0, again=False)
        assert [call for call, _ in rig.downloads.calls] == ["begin", "pause", "resume"]

    run(talk())


def test_a_download_of_its_user_is_used_and_left_alone(tmp_path: Path, monkeypatch: Any) -> None:
    async def talk() -> None:
        monkeypatch.setattr(read_downloads, "RESTS_AFTER_S", -1.0)
        monkeypatch.setattr(limits, "READS_BYTES_MAX", 0)
        rig = Rig(tmp_path)
        mine = rig.downloads.add(A, "/data/n")
        await rig.fetches.want(target(A), 0, again=True)
        await rig.fetches.tidy(())
        assert rig.downloads.calls == []
        mine.set_paused("by its user", by_user=True)
        await rig.fetches.want(target(A), 0, again=True)
        assert rig.downloads.calls == [("begin", f"{rig.root}/{A.hex()}/")]
        rig.downloads.add(B, "/data/m", files=["x"])  # of some files
        await rig.fetches.want(target(B), 0, again=True)
        assert len(rig.downloads.calls) == 2

    run(talk())


def test_a_failed_one_is_tried_once_more_by_each_reader(tmp_path: Path) -> None:
    async def talk() -> None:
        rig = Rig(tmp_path)
        job = rig.downloads.add(A, rig.path(A), state=DownloadState.FAILED, reason="no")
        with pytest.raises(Refused, match="no"):
            await rig.fetches.want(target(A), 0, again=False)
        await rig.fetches.want(target(A), 0, again=True)
        assert (rig.downloads.calls, job.unfinished) == ([("resume", rig.path(A))], True)

    run(talk())


def test_h141_the_content_that_was_read_longest_ago_goes_first(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async def talk() -> None:
        monkeypatch.setattr(limits, "READS_BYTES_MAX", 150)
        rig = Rig(tmp_path)
        rig.downloads.add(B, rig.path(B), size=100, state=DownloadState.COMPLETE)
        rig.downloads.add(A, rig.path(A), size=100)
        for content in (A, B):
            os.makedirs(os.path.dirname(rig.path(content)))
        rig.fetches.used(A)
        await rig.fetches.tidy({A, B})
        assert rig.downloads.calls == []  # both are read
        rig.fetches.used(B)
        rig.fetches.used(A)
        await rig.fetches.tidy(())
        assert rig.downloads.calls == [("cancel", rig.path(B))]
        assert rig.shares.stopped == [rig.path(B)]
        assert [folder.name for folder in rig.root.iterdir()] == [A.hex()]

    run(talk())


def test_a_content_that_its_user_takes_off_the_list_is_removed(
    tmp_path: Path, monkeypatch: Any
) -> None:
    async def talk() -> None:
        rig = Rig(tmp_path)
        await rig.fetches.tidy(())  # without the folder
        rig.downloads.add(B, "/data/n")
        for content in (A, B):
            os.makedirs(os.path.dirname(rig.path(content)))
        rig.shares.paths = [rig.path(A), "/data/n"]
        await rig.fetches.tidy(())
        assert rig.shares.stopped == []  # it may be one that is being created
        monkeypatch.setattr(read_downloads, "YOUNG_S", -5.0)
        await rig.fetches.tidy(())
        assert rig.shares.stopped == [rig.path(A)]
        assert [folder.name for folder in rig.root.iterdir()] == [B.hex()]

    run(talk())


class Opened(Reading):
    """The readers of a peer whose only share is `content`."""

    content, tag = A, "t"

    async def find(self, group: str, name: str, entry: str) -> Any:
        await asyncio.sleep(0)  # as the tracker is asked
        return target(self.content, self.tag)


def opened(rig: Rig, home: Path) -> Opened:
    services = SimpleNamespace(
        home=home, shares=rig.shares, workers=rig.workers, inventory=Inventory()
    )
    return Opened(services, rig.downloads)  # type: ignore[arg-type]


def test_reads_at_once_by_one_name_open_one_reader(tmp_path: Path) -> None:
    async def talk() -> None:
        reading = opened(Rig(tmp_path), tmp_path)
        command = control.ReadFile("films", "n", "", "x", 10, 5, "")
        await asyncio.gather(*(reading.read(command, lambda _: None) for _ in range(3)))
        assert reading.count == 1
        reading.close()

    run(talk())


def test_f129_a_reader_whose_program_is_gone_ends_and_may_come_back(
    tmp_path: Path, monkeypatch: Any
) -> None:
    def read_file(reader: str, size: int = 5, tag: str = "") -> control.ReadFile:
        return control.ReadFile("films", "n", "", reader, 10, size, tag)

    async def talk() -> None:
        monkeypatch.setattr(readers, "TIDY_S", 0.001)
        monkeypatch.setattr(limits, "READER_IDLE_S", -1.0)
        monkeypatch.setattr(limits, "READERS_MAX", 2)
        reading = opened(Rig(tmp_path), tmp_path)
        assert (await reading.read(read_file("x"), lambda _: None)).size_bytes == 10
        await reading.read(read_file("y"), lambda _: None)
        with pytest.raises(Refused) as busy:
            await reading.read(read_file("z"), lambda _: None)
        assert busy.value.code is Code.BUSY
        await reading.read(read_file("y", 0), lambda _: None)  # it ends
        await reading.read(read_file("z"), lambda _: None)
        tidying = asyncio.create_task(reading.keep_tidy())
        while reading.count:
            await asyncio.wait({tidying}, timeout=0.001)
        tidying.cancel()
        await reading.read(read_file("x", tag="t"), lambda _: None)
        reading.close()
        assert reading.count == 0
        reading.tag = "other"
        with pytest.raises(Refused) as changed:
            await reading.read(read_file("x", tag="t"), lambda _: None)
        assert changed.value.code is Code.CHANGED

    run(talk())
