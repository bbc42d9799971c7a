"""The list of downloads, when the user logs out during a command."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common import limits, manifest
from common.digests import Algorithm
from common.errors import Refused
from common.ids import GroupId, UserId
from common.messages import control, tracker
from common.messages.refusals import Code
from peer.downloads import active_transfers, creation
from peer.downloads.counts import DownloadCounts
from peer.downloads.job import DownloadJob
from peer.downloads.local_copy import LocalPieces
from peer.downloads.manager import Downloads
from peer.downloads.states import Copying, Opening
from peer.records import DownloadRecord, Manifests, Records
from peer.serving.inventory import Inventory
from peer.settings import Settings
from peer.workers import Workers
from tests.support.peer_fakes import FakeLink, Membership, turns, until
from tests.support.waiting import PATIENCE_S

ALICE = UserId("alice")
DIGEST = Algorithm.BLAKE3.digest_of(b"a film")
DECODED = manifest.Manifest(
    1, Algorithm.BLAKE3, 1 << 16, 6, DIGEST, DIGEST, (manifest.Entry("", 6),)
)
ENCODED = manifest.encode(DECODED)
CONTENT = manifest.manifest_id(ENCODED)


class Stage:
    """Alice's downloads in ``home``, among stubs of the other services."""

    def __init__(self, home: Path, link: FakeLink | None = None, threads: int = 2) -> None:
        (home / "manifests").mkdir()
        self.workers = Workers(threads, "test")
        self.records = Records(home / "downloads", DownloadRecord)
        self._services = SimpleNamespace(
            home=home,
            link=link,
            inventory=Inventory(),
            workers=self.workers,
            manifests=Manifests(home / "manifests"),
            replica=Membership(ALICE, GroupId("films")),
            tickets=SimpleNamespace(want=self._want),
            time=SimpleNamespace(now_ms=lambda: 1),
            presence_changed=lambda: None,
            counts=DownloadCounts(),
            hooks=SimpleNamespace(owes=lambda _: False, failed=lambda _: None),
            settings=Settings(),
            shares=SimpleNamespace(versions_of=lambda *_: []),
        )

    async def _want(self, group: str) -> None:
        pass

    def remembers(self, name: str, state: str) -> None:
        path = b"/nowhere/" + name.encode()
        self.records.put(
            name,
            DownloadRecord(
                ALICE, "films", name, CONTENT, path, 6, "", "rarest", 0, state=state, by_user=True
            ),
        )

    async def start(self) -> Downloads:
        downloads = Downloads(self._services, random.Random(1))  # type: ignore[arg-type]
        await downloads.activate(ALICE)
        return downloads


class Part:
    """A part whose closing takes as long as a test wants."""

    is_complete = False

    def __init__(self) -> None:
        self.closing, self.may_close = threading.Event(), threading.Event()

    def checkpoint(self) -> None:
        self.closing.set()
        assert self.may_close.wait(PATIENCE_S)

    def close(self) -> None:
        pass


def under_way(downloads: Downloads, part: Part) -> None:
    """Begin the life of a download whose part is open."""
    job = downloads._jobs["under way"]
    downloads._lifecycle.start(job)
    job.state = Opening(part)  # type: ignore[arg-type]


async def test_the_oldest_may_leave_the_list_while_all_come_to_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "DOWNLOADS_LISTED_MAX", 1)
    stage, part, busy = Stage(tmp_path, threads=1), Part(), threading.Event()
    for name in ("one", "two", "three"):
        stage.remembers(name, "C")
    stage.remembers("under way", "P")
    downloads = await stage.start()
    under_way(downloads, part)
    stage.workers.submit(lambda *_: None, busy.wait, PATIENCE_S)
    leaving = asyncio.create_task(downloads._forget_oldest())
    await turns()
    ending = asyncio.create_task(downloads.deactivate())
    await turns()
    busy.set()
    part.may_close.set()
    await asyncio.gather(leaving, ending)
    assert len(stage.records.load()) == 2
    stage.workers.close()


async def test_a_download_does_not_begin_after_its_user_was_logged_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = tracker.FileRow("film", CONTENT, 6, 1, 1, 1 << 16, "blake3", DIGEST, 1, 0, ["bob"])
    found = tracker.ShareFound(row, b"t" * 16, len(ENCODED), [])
    stage, part = Stage(tmp_path, FakeLink(FindShare=found)), Part()
    stage.remembers("under way", "P")
    downloads = await stage.start()
    under_way(downloads, part)
    ending: list[asyncio.Task[None]] = []

    async def fetch(*_: Any) -> bytes:
        ending.append(asyncio.create_task(downloads.deactivate()))
        await until(part.closing.is_set)
        return ENCODED

    monkeypatch.setattr(creation, "fetch_manifest", fetch)
    folder = tmp_path / "films"
    folder.mkdir()
    command = control.DownloadFile("films", "film", str(folder))
    with pytest.raises(Refused) as refused:
        await downloads.begin(command, lambda _: None)
    assert refused.value.code is Code.NOT_LOGGED_IN
    assert list(folder.iterdir()) == []
    assert list(stage.records.load()) == ["under way"]
    part.may_close.set()
    await ending[0]
    stage.workers.close()


async def test_a_waiting_command_sees_the_end_of_a_download_that_left_the_list(
    tmp_path: Path,
) -> None:
    stage = Stage(tmp_path)
    stage.remembers("film", "P")
    downloads = await stage.start()
    waiting = asyncio.create_task(downloads.wait("film", lambda _: None))
    await turns()
    downloads._jobs.pop("film").set_complete()
    assert (await waiting).name == "film"
    stage.workers.close()


async def test_a_peer_set_is_followed_as_long_as_a_download_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, heard = Stage(tmp_path), set[tuple[str, bytes]]()
    services = stage._services
    services.replica = SimpleNamespace(
        follow_share=lambda *share: heard.add(share),
        unfollow_share=lambda *share: heard.remove(share),
    )
    services.settings = SimpleNamespace(buffer_bytes=1, sources_used=1)
    services.shares = SimpleNamespace(open_in=lambda _: [], end_rest_at=lambda _: None)
    services.link, services.pool, services.limit = SimpleNamespace(on_ipc=False), None, None
    transfer = SimpleNamespace(
        start=lambda: None,
        sources=lambda _: None,
        close=lambda: None,
        progress=lambda: SimpleNamespace(held_bytes=0),
    )
    transfer.part = None
    monkeypatch.setattr(active_transfers, "Transfer", lambda *_, **__: transfer)
    monkeypatch.setattr(active_transfers.ActiveTransfers, "_offer_part", lambda *_: None)
    subject = active_transfers.ActiveTransfers(services, random.Random(1), lambda *_: None)
    for name in ("one", "two"):
        stage.remembers(name, "D")
    one, two = (
        DownloadJob(key, record, Copying(Part()))  # type: ignore[arg-type]
        for key, record in stage.records.load().items()
    )
    with subject.open(one, DECODED, LocalPieces()):
        with subject.open(two, DECODED, LocalPieces()):
            assert heard == {("films", CONTENT)}
        assert heard == {("films", CONTENT)}, "the other one fetches the same"
    assert not heard
    stage.workers.close()
