"""Reader over parts and downloads of our own: what is read when, and the heads that move."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from common import limits
from common.digests import Algorithm
from common.errors import Refused, TimedOut
from common.ids import ContentId, GroupId
from common.manifest import Entry, EntryKind, Manifest
from common.messages.refusals import Code
from peer.files.errors import DigestMismatch, PieceNotHeld, StorageClosed
from peer.reading import reader as reading
from peer.reading.reader import Reader
from peer.reading.target import Target, file_in
from peer.serving.inventory import Inventory
from peer.swarm.fetching.events import ReadHead, ReadHeadGone
from peer.swarm.pieces import Bitfield
from peer.workers import Workers
from tests.support.peer_fakes import until

FILMS = GroupId("films")
CONTENT = ContentId(b"c" * 32)
LENGTH = limits.PIECE_LENGTH_MIN
COUNT = 6
STREAM = b"".join(bytes([65 + n]) * LENGTH for n in range(COUNT))[:-10]
ENTRIES = (
    Entry("a", LENGTH + 5),
    Entry("empty", 0),
    Entry("folder", 0, EntryKind.FOLDER),
    Entry("s/b c", len(STREAM) - LENGTH - 5),
)


def manifest(*entries: Entry) -> Manifest:
    digest = Algorithm.BLAKE3.digest_of
    pieces = b"".join(digest(STREAM[at : at + LENGTH]) for at in range(0, len(STREAM), LENGTH))
    return Manifest(1, Algorithm.BLAKE3, LENGTH, len(STREAM), digest(STREAM), pieces, entries)


FOLDER, FILE = manifest(*ENTRIES), manifest(Entry("", len(STREAM)))


def target(decoded: Manifest, entry: str = "") -> Target:
    begin, size = file_in(decoded, FILMS, "n", entry)
    return Target(FILMS, "n", 1, CONTENT, decoded, entry, begin, size, "t")


class Part:
    """A part with the pieces of `have`; ``errors`` of the next reads, and damaged ``bytes``."""

    def __init__(self) -> None:
        self.have = Bitfield(COUNT)
        self.errors: list[Exception] = []
        self.damaged: set[int] = set()
        self.reads: list[int] = []

    def read_run(self, first: int, count: int) -> bytes:
        self.reads.append(first)
        if self.errors:
            raise self.errors.pop(0)
        if first not in self.have:
            raise PieceNotHeld("not held")
        data = STREAM[first * LENGTH : (first + count) * LENGTH]
        return b"!" + data[1:] if first in self.damaged else data


class Transfer:
    def __init__(self) -> None:
        self.events: list[Any] = []

    def handle(self, *events: Any) -> None:
        self.events += events


class Fetches:
    """Stand-in for `ReadDownloads`."""

    def __init__(self) -> None:
        self.transfer: Transfer | None = None
        self.wanted: list[int] = []
        self.error: Exception | None = None

    def all(self) -> list[Any]:
        return []

    def running(self, content: ContentId, piece: int) -> Transfer | None:
        return self.transfer

    async def want(self, target: Target, piece: int, *, again: bool) -> None:
        self.wanted.append(piece)
        if self.error is not None:
            raise self.error
        self.transfer = self.transfer or Transfer()

    def used(self, content: ContentId) -> None:
        pass


class Rig:
    """A reader, a part in the inventory, and the driver of both."""

    def __init__(self, decoded: Manifest = FILE, entry: str = "", *, offered: bool = True) -> None:
        self.part, self.inventory, self.fetches = Part(), Inventory(), Fetches()
        self.lost: list[tuple[int, ...]] = []
        self.workers = Workers(1, "worker")
        if offered:
            self.inventory.put(
                FILMS, CONTENT, decoded, b"", self.part, self.part.have, self.lost.append
            )
        self.reader = Reader(
            7,
            target(decoded, entry),
            self.inventory,
            self.fetches,  # type: ignore[arg-type]
            self.workers,
            lambda _: None,
        )

    def hold(self, *pieces: int) -> None:
        for piece in pieces:
            self.part.have.add(piece)
        self.inventory.held_more(CONTENT, pieces, self.part)

    async def whole(self) -> bytes:
        found = b""
        while data := await self.reader.read(len(found), 1 << 30):
            found += data
        return found


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_held_pieces_are_read_without_a_download() -> None:
    async def talk() -> None:
        rig = Rig()
        rig.hold(*range(COUNT))
        assert await rig.whole() == STREAM
        assert bytes(await rig.reader.read(LENGTH - 2, 9)) == STREAM[LENGTH - 2 : LENGTH]
        assert bytes(await rig.reader.read(len(STREAM), 9)) == b""
        assert bytes(await rig.reader.read(1 << 52, 9)) == b""
        assert rig.fetches.wanted == []

    run(talk())


@pytest.mark.parametrize("entry", ["a", "s/b c", "empty"])
def test_a_file_in_a_folder_is_its_bytes_alone(entry: str) -> None:
    async def talk() -> None:
        rig = Rig(FOLDER, entry)
        rig.hold(*range(COUNT))
        begin, size = file_in(FOLDER, FILMS, "n", entry)
        assert await rig.whole() == STREAM[begin : begin + size]

    run(talk())


def test_small_reads_in_one_piece_read_the_disk_once() -> None:
    async def talk() -> None:
        rig = Rig()
        rig.hold(0)
        for at in range(0, 50, 10):
            assert bytes(await rig.reader.read(at, 10)) == STREAM[at : at + 10]
        assert rig.part.reads == [0]

    run(talk())


def test_a_missing_piece_is_waited_for_and_the_heads_move(monkeypatch: Any) -> None:
    monkeypatch.setattr(limits, "READ_AHEAD_BYTES", 2 * LENGTH)
    monkeypatch.setattr(limits, "READ_TAIL_BYTES", 10)
    monkeypatch.setattr(reading, "REVIEW_S", 1000.0)

    async def talk() -> None:
        rig = Rig()
        rig.hold(1)
        work = asyncio.create_task(rig.reader.read(3, 5))
        await until(lambda: rig.fetches.transfer is not None and rig.fetches.transfer.events)
        assert rig.fetches.wanted == [0]
        transfer = rig.fetches.transfer
        assert transfer is not None
        assert transfer.events == [ReadHead(15, 5, 1), ReadHead(14, 0, 3)]
        rig.hold(0)
        assert bytes(await work) == STREAM[3:8]
        await rig.reader.read(LENGTH, 1)
        assert transfer.events[2:] == [ReadHead(14, 1, 2)]
        rig.reader.close()
        rig.reader.close()
        assert transfer.events[3:] == [ReadHeadGone(14), ReadHeadGone(15)]

    run(talk())


def test_heads_go_over_to_a_download_that_takes_its_place(monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "REVIEW_S", 0.01)

    async def talk() -> None:
        rig = Rig()
        first = rig.fetches.transfer = Transfer()
        work = asyncio.create_task(rig.reader.read(0, 5))
        await until(lambda: first.events)
        second = rig.fetches.transfer = Transfer()
        await until(lambda: second.events)
        assert first.events[-2:] == [ReadHeadGone(14), ReadHeadGone(15)]
        rig.hold(0)
        await work

    run(talk())


def test_f128_a_damaged_piece_is_never_read_out(monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "REVIEW_S", 0.01)

    async def talk() -> None:
        rig = Rig()
        rig.part.damaged.add(0)
        rig.hold(0)
        work = asyncio.create_task(rig.reader.read(0, LENGTH))
        await until(lambda: rig.lost)
        assert rig.lost[0] == (0,)  # it is fetched again
        assert not work.done()
        rig.part.damaged.clear()
        assert bytes(await work) == STREAM[:LENGTH]

    run(talk())


def test_f128_a_damaged_copy_is_served_no_longer_and_the_piece_is_fetched() -> None:
    async def talk() -> None:
        rig = Rig(offered=False)
        part = rig.part
        part.have = Bitfield.full(COUNT)
        part.damaged.add(2)
        rig.inventory.put(FILMS, CONTENT, FILE, b"", part, None)
        changed: list[ContentId] = []
        rig.inventory.on_changed = changed.append
        work = asyncio.create_task(rig.reader.read(2 * LENGTH, LENGTH))
        await until(lambda: rig.fetches.wanted)
        assert (changed, rig.fetches.wanted) == ([CONTENT], [2])
        part.damaged.clear()
        rig.inventory.put(FILMS, CONTENT, FILE, b"", part, None)
        assert bytes(await work) == STREAM[2 * LENGTH : 3 * LENGTH]

    run(talk())


@pytest.mark.parametrize("error", [StorageClosed("closed"), PieceNotHeld("no")], ids=repr)
def test_a_part_that_becomes_complete_meanwhile_is_read_again(
    error: Exception, monkeypatch: Any
) -> None:
    monkeypatch.setattr(reading, "REVIEW_S", 0.01)

    async def talk() -> None:
        rig = Rig()
        rig.hold(0)
        rig.part.errors = [error]
        assert bytes(await rig.reader.read(0, 4)) == STREAM[:4]

    run(talk())


def test_a_lasting_fault_of_the_disk_is_told(monkeypatch: Any) -> None:
    monkeypatch.setattr(reading, "REVIEW_S", 0.001)

    async def talk() -> None:
        rig = Rig()
        rig.part.damaged.add(0)
        rig.hold(0)
        with pytest.raises(DigestMismatch):
            await rig.reader.read(0, 4)

    run(talk())


def test_a_download_that_cannot_begin_ends_the_read() -> None:
    async def talk() -> None:
        rig = Rig()
        rig.fetches.error = Refused(Code.STORAGE, "no space")
        with pytest.raises(Refused):
            await rig.reader.read(0, 4)

    run(talk())


def test_a_read_waits_no_longer_than_it_may_and_ends_with_its_reader() -> None:
    async def talk() -> None:
        rig = Rig()
        with pytest.raises(TimedOut):
            await rig.reader.read(0, 4, wait_s=0.01)
        work = asyncio.create_task(rig.reader.read(0, 4))
        await until(lambda: rig.reader.busy)
        rig.reader.close()
        with pytest.raises(TimedOut):
            await work

    run(talk())


@pytest.mark.parametrize(
    "path", ["../n", "/a", "a/", "./a", "s//b c", "s/../a", "A", "a\0", "", "s", "s/", "folder"]
)
def test_h140_only_the_very_path_of_an_entry_is_read(path: str) -> None:
    with pytest.raises(Refused):
        file_in(FOLDER, FILMS, "n", path)
    if path:
        with pytest.raises(Refused):
            file_in(FILE, FILMS, "n", path)


def test_pieces_of_ranges_stay_in_the_file() -> None:
    second = target(FOLDER, "s/b c")
    assert second.pieces(0, 1) == range(1, 2)
    assert second.pieces(0, 1 << 40) == range(1, COUNT)
    assert second.pieces(second.size, 5) == range(0)
    assert target(FOLDER, "a").pieces(0, 1 << 40) == range(0, 2)
    assert target(FOLDER, "empty").pieces(0, 5) == range(0)
