"""States of a download, when two events come at once or one step does not end."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common import manifest
from common.digests import Algorithm
from common.errors import MiniTorrentError, Refused, RemoteProtocolError, TransportError
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import control, tracker
from common.messages.refusals import Code
from peer.downloads import creation, piece_writer
from peer.downloads.counts import DownloadCounts
from peer.downloads.manager import Downloads
from peer.downloads.states import Fetching, Opening
from peer.fetching.channel import Channel
from peer.files import open_part, sharing
from peer.files.destination import Destination
from peer.files.errors import (
    AlreadyExists,
    ContentChanged,
    DigestMismatch,
    DiskFull,
    ReadOnly,
)
from peer.files.partial_content import PartialContent
from peer.files.unverified_part import UnverifiedPart
from peer.records import DownloadRecord, Manifests, Records
from peer.serving.inventory import Inventory
from peer.settings import Settings
from peer.swarm.rate_limit import RateLimit
from peer.workers import Workers
from tests.support.peer_fakes import FakeLink, Membership, turns, until
from tests.support.waiting import PATIENCE_S

ALICE = UserId("alice")
FILMS, MUSIC = GroupId("films"), GroupId("music")
PIECE = 1 << 16


class FakePool:
    """A connection pool that makes no connection."""

    pair = SimpleNamespace(public=b"me")

    def open(self, device: DeviceKey, endpoint: str, *where: Any) -> Channel:
        return Channel(device, *where)


class Stage:
    """Alice's downloads of one film, with real parts and journals in ``home``."""

    def __init__(self, home: Path, pieces: int = 4) -> None:
        self.home, self.link = home, FakeLink()
        self.data = os.urandom(pieces * PIECE - 7)
        source = home / "source"
        source.write_bytes(self.data)
        digested = sharing.digest_scanned(sharing.scan(str(source)), Algorithm.BLAKE3, PIECE)
        self.manifest = digested.manifest
        self.encoded = manifest.encode(self.manifest)
        self.content = manifest.manifest_id(self.encoded)
        self.place = home / "films"
        self.place.mkdir()
        self.path = self.place / "film"
        (home / "journals").mkdir()
        (home / "manifests").mkdir()
        self.manifests = Manifests(home / "manifests")
        self.manifests.put(self.content, self.encoded)
        self.records = Records(home / "downloads", DownloadRecord)
        self.workers = Workers(4, "test")
        self.inventory = Inventory()
        self.adopted: list[Any] = []
        self.shared: list[Any] = []
        self.rested: list[Any] = []
        self.notices: list[str] = []
        self.replica = Membership(ALICE, FILMS)
        row = tracker.FileRow(
            "film",
            self.content,
            self.manifest.size,
            1,
            pieces,
            PIECE,
            "blake3",
            self.manifest.digest,
            1,
            0,
            ["bob"],
        )
        self.link.answers["FindShare"] = tracker.ShareFound(row, b"t" * 16, len(self.encoded), [])
        self.link.answers["GetSources"] = tracker.Sources([])
        self.link.on_ipc = False  # type: ignore[attr-defined]
        self._services = SimpleNamespace(
            home=home,
            link=self.link,
            replica=self.replica,
            tickets=SimpleNamespace(want=self._nothing),
            pool=FakePool(),
            inventory=self.inventory,
            shares=SimpleNamespace(
                adopt_download=self._adopt,
                open_in=lambda _: self.shared,
                versions_of=lambda *_: [record for record, _ in self.shared],
                rest_at=lambda *place: self.rested.append(place),
                end_rest_at=lambda path: self.rested.append((path, None)),
            ),
            workers=self.workers,
            manifests=self.manifests,
            settings=Settings(),
            limit=RateLimit(),
            time=SimpleNamespace(now_ms=lambda: 1),
            notify=self.notices.append,
            presence_changed=lambda: None,
            counts=DownloadCounts(),
            hooks=SimpleNamespace(owes=lambda _: False, failed=lambda _: None),
        )

    async def _nothing(self, *_: Any) -> None:
        pass

    async def _adopt(self, *what: Any) -> None:
        self.adopted.append(what)

    def piece(self, index: int) -> bytes:
        return self.data[index * PIECE : (index + 1) * PIECE]

    def remembers(
        self, held: int, *, key: str = "film", path: Path | None = None, **fields: Any
    ) -> None:
        """A download that rests, with the first pieces held."""
        path = self.path if path is None else path
        journal = str(self.home / "journals" / key)
        part = open_part.create(str(path), self.manifest, self.content, journal)
        for index in range(held):
            part.write_piece(index, self.piece(index))
        part.checkpoint()
        part.close()
        self.records.put(
            key,
            DownloadRecord(
                ALICE,
                "films",
                "film",
                self.content,
                os.fsencode(path),
                self.manifest.size,
                "",
                "rarest",
                0,
                **fields,
            ),
        )

    async def start(self) -> Downloads:
        self.downloads = Downloads(self._services, random.Random(1))  # type: ignore[arg-type]
        await self.downloads.activate(ALICE)
        return self.downloads

    def state(self, key: str = "film") -> str:
        return self.downloads._jobs[key].record.state

    def open_files(self) -> int:
        """Number of open descriptors of the part and its journal."""
        found = 0
        for fd in os.listdir("/proc/self/fd"):
            try:
                shown = os.readlink(f"/proc/self/fd/{fd}")
            except OSError:
                continue
            found += shown.startswith((str(self.place), str(self.home / "journals")))
        return found


@asynccontextmanager
async def staged(home: Path, pieces: int = 4) -> AsyncIterator[Stage]:
    """A stage for downloads that a test starts; closes them in the end."""
    stage = Stage(home, pieces)
    yield stage
    await stage.downloads.close()
    stage.workers.close()


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Event that ends the verification of parts."""
    recover, done = UnverifiedPart.recover, threading.Event()

    def slowly(part: UnverifiedPart, **words: Any) -> PartialContent:
        assert done.wait(PATIENCE_S)
        return recover(part, **words)

    monkeypatch.setattr(UnverifiedPart, "recover", slowly)
    return done


def counted(monkeypatch: pytest.MonkeyPatch, method: str) -> list[str]:
    """The calls of `open_part.resume`, or of a method of `PartialContent`, from here on."""
    calls: list[str] = []
    owner: Any = open_part if method == "resume" else PartialContent
    real = getattr(owner, method)

    def call(*words: Any, **more: Any) -> Any:
        calls.append(method)
        return real(*words, **more)

    monkeypatch.setattr(owner, method, call)
    return calls


async def test_a_complete_part_is_finished_once(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    stage.remembers(4)
    finished = counted(monkeypatch, "finalize")
    await stage.start()
    await until(lambda: stage.state() == "C")
    await turns()
    assert (len(finished), len(stage.adopted), stage.notices) == (1, 1, [])
    assert stage.path.read_bytes() == stage.data


async def test_a_piece_that_is_damaged_at_the_end_is_fetched_again(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    finalize, errors = PartialContent.finalize, [DigestMismatch("damaged", (2,))]

    def damaged_once(part: PartialContent, *words: Any) -> Any:
        if errors:
            raise errors.pop()
        return finalize(part, *words)

    monkeypatch.setattr(PartialContent, "finalize", damaged_once)
    stage.remembers(4)
    job = (await stage.start())._jobs["film"]
    await until(lambda: not errors and isinstance(job.state, Fetching))
    assert job.transfer is not None
    assert job.transfer.progress().held_pieces == 3
    job.transfer._ended.set()  # as the core does when it holds the piece again
    await until(lambda: stage.state() == "C" and job.at_rest)
    assert (len(stage.adopted), job.part, job.encoded) == (1, None, b"")
    assert not stage.open_files()


@pytest.mark.parametrize("state", ["D", "F"])
async def test_a_part_being_verified_is_not_opened_again(
    monkeypatch: pytest.MonkeyPatch, verified: threading.Event, stage: Stage, state: str
) -> None:
    stage.remembers(2, state=state)
    opened = counted(monkeypatch, "resume")
    downloads = await stage.start()
    for _ in range(3):
        await downloads.resume("films", "film")
        await turns()
    verified.set()
    await until(lambda: downloads._jobs["film"].transfer)
    assert (len(opened), stage.state()) == (1, "D")


async def test_a_pause_while_it_is_verified_holds(verified: threading.Event, stage: Stage) -> None:
    stage.remembers(2)
    downloads = await stage.start()
    await turns()
    await downloads.pause("films", "film")
    verified.set()
    job = downloads._jobs["film"]
    await until(lambda: job.transfer)
    assert job.transfer is not None
    assert (stage.state(), job.transfer.progress().paused) == ("P", True)
    await downloads.resume("films", "film")
    assert (stage.state(), job.transfer.progress().paused) == ("D", False)


@pytest.mark.parametrize("by", ["its user", "a full disk"])
async def test_an_interrupted_part_is_read_back_from_the_disk(stage: Stage, by: str) -> None:
    stage.remembers(1)
    downloads = await stage.start()
    job = downloads._jobs["film"]
    await until(lambda: job.transfer)
    assert job.transfer is not None
    assert job.part is not None
    with stage.path.with_suffix(".part").open("r+b") as part:
        part.write(b"another program's")
    if by == "its user":
        await downloads.pause("films", "film")
        await downloads.resume("films", "film")
    else:
        job.transfer._writer.pause_for(DiskFull("no room"))
    for index in range(1, 4):
        job.part.write_piece(index, stage.piece(index))
    assert await job.transfer.finalize() is None
    assert not job.part.has(0)
    assert not stage.path.exists()


@pytest.mark.parametrize("told", [True, False])
async def test_a_member_removed_during_verification_fetches_nothing(
    verified: threading.Event, stage: Stage, told: bool
) -> None:
    stage.remembers(2)
    downloads = await stage.start()
    await turns()
    stage.replica.groups = {}
    if told:
        await downloads.groups_changed()
        assert stage.state() == "F"
    verified.set()
    await until(lambda: stage.state() == "F" and not stage.open_files())
    assert downloads._jobs["film"].transfer is None
    assert downloads._jobs["film"].record.reason == "you are no longer a member of films"
    with pytest.raises(Refused) as refused:
        await downloads.resume("films", "film")
    assert refused.value.code is Code.UNKNOWN_GROUP


@pytest.mark.parametrize(
    "error",
    [
        TransportError("the tracker is away"),
        Refused(Code.READ_ONLY, "the tracker is read-only"),
        RemoteProtocolError("the tracker answers nonsense"),
    ],
)
async def test_a_manifest_that_cannot_be_fetched_pauses_a_resume(
    stage: Stage, error: MiniTorrentError
) -> None:
    stage.remembers(2)
    stage.manifests.keep_only(set())
    stage.link.answers["GetManifest"] = error
    job = (await stage.start())._jobs["film"]
    await until(lambda: job.record.reason and job.at_rest)
    assert (job.record.state, job.record.reason) == ("P", error.message)


async def test_a_logout_leaves_no_group(stage: Stage) -> None:
    stage.remembers(2, state="P", by_user=True)
    downloads = await stage.start()
    stage.replica.user, stage.replica.known, stage.replica.groups = None, False, {}
    await downloads.groups_changed()
    assert stage.state() == "P"


async def test_a_download_whose_command_ends_as_it_begins_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    create, making, may_go_on = open_part.create, threading.Event(), threading.Event()

    def slowly(*words: Any, **more: Any) -> PartialContent:
        making.set()
        assert may_go_on.wait(PATIENCE_S)
        return create(*words, **more)

    async def fetch(*_: Any) -> bytes:
        return stage.encoded

    monkeypatch.setattr(creation, "fetch_manifest", fetch)
    monkeypatch.setattr(open_part, "create", slowly)
    downloads = await stage.start()
    command = control.DownloadFile("films", "film", str(stage.place))
    asking = asyncio.create_task(downloads.begin(command, lambda _: None))
    await until(making.is_set)
    asking.cancel()
    await turns()
    may_go_on.set()
    await until(downloads.rows)
    assert asking.cancelled()
    assert await downloads.begin(command, lambda _: None) == next(iter(stage.records.load()))
    await downloads.cancel("films", "film")
    assert not list(stage.place.iterdir())
    assert not list((tmp_path / "journals").iterdir())
    assert not stage.records.load()


@pytest.mark.parametrize("state", ["D", "P", "F"])
async def test_a_part_that_cannot_be_removed_keeps_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage, state: str
) -> None:
    def refused(*_: object) -> None:
        raise ReadOnly("the folder is read-only")

    stage.remembers(2, state=state, by_user=state == "P")
    downloads = await stage.start()
    if state == "D":
        await until(lambda: downloads._jobs["film"].transfer)
    with monkeypatch.context() as patch:
        patch.setattr(Destination, "remove_part", refused)
        for _ in range(2):
            with pytest.raises(ReadOnly):
                await downloads.cancel("films", "film")
            (row,) = downloads.rows()
            assert row.state == "failed"
            assert "the folder is read-only" in str(row.reason)
    assert stage.records.load()["film"].state == "F", "a restart does not bring it back"
    await downloads.cancel("films", "film")
    assert not downloads.rows()
    assert not stage.records.load()
    assert not [*stage.place.iterdir(), *(tmp_path / "journals").iterdir()]


@pytest.mark.parametrize("gone", ["part", "folder"])
async def test_a_download_without_a_part_can_be_cancelled(
    tmp_path: Path, stage: Stage, gone: str
) -> None:
    stage.remembers(2, state="F")
    stage.path.with_suffix(".part").unlink()
    if gone == "folder":
        stage.place.rmdir()
    downloads = await stage.start()
    await downloads.cancel("films", "film")
    assert not downloads.rows()
    assert not stage.records.load()
    assert not list((tmp_path / "journals").iterdir())


@pytest.mark.parametrize("last", ["record", "part", "journal"])
async def test_a_download_is_resumed_after_a_kill_at_any_step(
    tmp_path: Path, stage: Stage, last: str
) -> None:
    stage.remembers(0)
    if last != "journal":
        (tmp_path / "journals" / "film").unlink()
    if last == "record":
        stage.path.with_suffix(".part").unlink()
    downloads = await stage.start()
    await until(lambda: downloads._jobs["film"].transfer)
    assert stage.state() == "D"
    assert stage.path.with_suffix(".part").stat().st_size == len(stage.data)
    await downloads.cancel("films", "film")
    assert not list(stage.place.iterdir())


async def test_a_foreign_part_fails_a_download_that_was_only_recorded(
    tmp_path: Path, stage: Stage
) -> None:
    stage.remembers(0)
    (tmp_path / "journals" / "film").unlink()
    part = stage.path.with_suffix(".part")
    part.write_bytes(b"mine")
    downloads = await stage.start()
    await until(lambda: stage.state() == "F")
    assert "already there" in str(downloads.rows()[0].reason)
    await downloads.resume("films", "film")
    await until(lambda: stage.state() == "F")
    await downloads.cancel("films", "film")
    assert part.read_bytes() == b"mine"
    assert not downloads.rows()
    assert not stage.records.load()


@pytest.mark.parametrize("works", [True, False])
async def test_a_download_is_recorded_before_anything_of_it_is_made(
    monkeypatch: pytest.MonkeyPatch, stage: Stage, works: bool
) -> None:
    create, seen = open_part.create, list[tuple[list[bytes], bool]]()

    def look(*words: Any, **more: Any) -> PartialContent:
        records = [record.path for record in stage.records.load().values()]
        seen.append((records, any(stage.place.iterdir())))
        if not works:
            raise DiskFull("no room")
        return create(*words, **more)

    async def fetch(*_: Any) -> bytes:
        return stage.encoded

    monkeypatch.setattr(creation, "fetch_manifest", fetch)
    monkeypatch.setattr(open_part, "create", look)
    downloads = await stage.start()
    command = control.DownloadFile("films", "film", str(stage.place))
    if works:
        await downloads.begin(command, lambda _: None)
    else:
        with pytest.raises(DiskFull):
            await downloads.begin(command, lambda _: None)
    assert seen == [([os.fsencode(stage.path)], False)]
    assert len(stage.records.load()) == len(downloads.rows()) == works


async def test_a_taken_destination_is_never_recorded(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    async def fetch(*_: Any) -> bytes:
        return stage.encoded

    monkeypatch.setattr(creation, "fetch_manifest", fetch)
    put = counted_puts(monkeypatch)
    downloads = await stage.start()
    part = stage.path.with_suffix(".part")
    part.write_bytes(b"mine")
    with pytest.raises(AlreadyExists):
        await downloads.begin(
            control.DownloadFile("films", "film", str(stage.place)), lambda _: None
        )
    assert part.read_bytes() == b"mine"
    assert not put


def counted_puts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the records that are written from here on."""
    keys: list[str] = []
    real = Records.put

    def put(records: Any, key: str, record: Any) -> None:
        keys.append(key)
        real(records, key, record)

    monkeypatch.setattr(Records, "put", put)
    return keys


async def test_a_part_opened_after_its_user_left_is_closed(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    resume, may_go_on = open_part.resume, threading.Event()

    def slowly(*words: Any, **more: Any) -> UnverifiedPart:
        assert may_go_on.wait(PATIENCE_S)
        return resume(*words, **more)

    stage.remembers(2)
    monkeypatch.setattr(open_part, "resume", slowly)
    downloads = await stage.start()
    await turns()
    await downloads.deactivate()
    await downloads.activate(ALICE)
    await turns()
    await downloads.deactivate()
    may_go_on.set()
    async with asyncio.timeout(PATIENCE_S):
        await stage.workers.run(lambda: None)
    await until(lambda: not stage.open_files())


async def test_a_damaged_part_does_not_stop_the_others_from_resting(stage: Stage) -> None:
    class Part:
        closed = False

        def __init__(self, error: Exception | None = None) -> None:
            self.error = error

        def checkpoint(self) -> None:
            if self.error is not None:
                raise self.error

        def close(self) -> None:
            self.closed = True

    stage.remembers(0, state="P", by_user=True)
    other = stage.place / "other"
    stage.remembers(0, key="other", path=other, state="P", by_user=True)
    downloads = await stage.start()
    parts = [Part(DigestMismatch("damaged", (1,))), Part()]
    for job, part in zip(downloads._jobs.values(), parts, strict=True):
        downloads._lifecycle.start(job)
        job.state = Opening(part)  # type: ignore[arg-type]
    await downloads.deactivate()
    assert all(part.closed for part in parts)


class Copy:
    """A whole copy on this device, read as far as a test lets it."""

    def __init__(self, stage: Stage, last: int, error: Exception | None = None) -> None:
        self._stage, self._last, self._error = stage, last, error
        self.read_so_far = threading.Event()
        self.may_go_on = threading.Event()

    def read_run(self, first: int, count: int) -> bytes:
        pieces = range(first, first + count)
        if self._last in pieces:
            self.read_so_far.set()
            assert self.may_go_on.wait(PATIENCE_S)
            if self._error is not None:
                raise self._error
        return b"".join(map(self._stage.piece, pieces))


async def test_an_interrupted_copy_is_not_fetched_from_the_start(stage: Stage) -> None:
    stage.remembers(1)
    changed: list[ContentId] = []
    stage.inventory.on_changed = changed.append
    copy = Copy(stage, 3, ContentChanged("touched"))
    stage.inventory.put(MUSIC, stage.content, stage.manifest, stage.encoded, copy, None)
    downloads = await stage.start()
    await until(copy.read_so_far.is_set)
    assert downloads.rows()[0].verified_bytes == 3 * PIECE
    asked, told = len(stage.link.asked), asyncio.Event()

    async def late(_: Any) -> tracker.Sources:
        await told.wait()
        return tracker.Sources([])

    stage.link.answers["GetSources"] = late
    copy.may_go_on.set()
    job = downloads._jobs["film"]
    await until(lambda: job.transfer and job.transfer._writer._checkpoints._timer)
    assert job.transfer is not None
    assert job.transfer._core.progress(0.0).held_pieces == 3
    await until(lambda: len(stage.link.asked) > asked, "the question who else has it")
    # The last piece may come before the answer.
    assert not job.busy
    told.set()
    assert changed == [stage.content]


async def test_a_copy_rests_while_it_is_paused(stage: Stage) -> None:
    stage.remembers(0)
    copy = Copy(stage, 2)
    stage.inventory.put(MUSIC, stage.content, stage.manifest, stage.encoded, copy, None)
    downloads = await stage.start()
    await until(copy.read_so_far.is_set)
    await downloads.pause("films", "film")
    copy.may_go_on.set()
    job = downloads._jobs["film"]
    assert job.part is not None
    await until(lambda: job.part is not None and job.part.held_count == 3)
    await turns()
    assert (stage.state(), job.part.held_count) == ("P", 3)
    await downloads.resume("films", "film")
    await until(lambda: stage.state() == "C")
    assert stage.path.read_bytes() == stage.data


async def test_a_content_fetched_to_two_places_is_served_from_one_of_them(stage: Stage) -> None:
    stage.remembers(1)
    stage.remembers(3, key="other", path=stage.place / "other")
    downloads = await stage.start()
    one, other = downloads._jobs["film"], downloads._jobs["other"]
    await until(lambda: one.transfer and other.transfer)
    served = stage.inventory.get(stage.content)
    assert served is not None
    assert served.have is not None
    first, second = (one, other) if served.reader is one.part else (other, one)
    held = set(served.have)
    assert second.part is not None
    missing = next(iter({0, 1, 2, 3} - held))
    stage.inventory.held_more(stage.content, (missing,), second.part)
    assert set(served.have) == held
    await downloads._lifecycle.abandon(first)
    served = stage.inventory.get(stage.content)
    assert served is not None
    assert served.reader is second.part
    await downloads._lifecycle.abandon(second)
    assert stage.inventory.get(stage.content) is None


async def test_a_full_disk_is_reported_once_and_again_after_a_resume(
    monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    monkeypatch.setattr(piece_writer, "STORAGE_RETRY_S", 0.001)
    stage.remembers(1)
    downloads = await stage.start()
    job = downloads._jobs["film"]
    await until(lambda: job.transfer)
    download = job.transfer
    assert download is not None
    for _ in range(5):
        download._writer.pause_for(DiskFull("no room"))
        await until(
            lambda: (
                download._writer._retry_timer is None and not download._writer._checkpoints._syncing
            )
        )
        assert (stage.state(), len(stage.notices)) == ("P", 1)
    await downloads.resume("films", "film")
    assert (stage.state(), job.record.reason) == ("D", None)
    download._writer.pause_for(DiskFull("no room"))
    assert (stage.state(), job.record.reason) == ("P", "no room")
    assert len(stage.notices) == 2


async def test_downloads_of_one_name_are_paused_together_and_cancelled_by_path(
    stage: Stage,
) -> None:
    other = stage.place / "other"
    stage.remembers(1)
    stage.remembers(1, key="other", path=other)
    downloads = await stage.start()
    await until(lambda: len(downloads._active()) == 2)
    await downloads.pause("films", "film")
    assert [row.state for row in downloads.rows()] == ["paused", "paused"]
    await downloads.resume("films", str(other))
    assert (stage.state(), stage.state("other")) == ("P", "D")
    with pytest.raises(Refused, match="2 downloads"):
        await downloads.cancel("films", "film")
    await downloads.cancel("films", str(stage.path))
    await downloads.cancel("films", "film")
    assert not downloads.rows()
    assert not list(stage.place.iterdir())
