"""Piece reader: failed reads are retried, and unreadable pieces suspended for a while."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from common import limits, manifest
from common.digests import Algorithm
from common.ids import ContentId, GroupId
from peer.files.errors import DigestMismatch, IOFailed, PieceNotHeld
from peer.serving import piece_reader
from peer.serving.inventory import Inventory
from peer.serving.piece_reader import TRIES, Outcome, PieceReader, ReadResult
from peer.swarm.pieces import Bitfield
from peer.swarm.serving import events as swarm
from peer.swarm.serving.events import RequesterId
from peer.workers import Workers
from tests.support import serving_harness as joined
from tests.support.peer_fakes import turns, until

FILMS = GroupId("films")
BOB = RequesterId(b"bob")
CONTENT = ContentId(b"c" * 32)
COUNT = 5
LENGTH = limits.PIECE_LENGTH_MIN
MANIFEST = manifest.Manifest(
    1,
    Algorithm.BLAKE3,
    LENGTH,
    COUNT * LENGTH,
    b"d" * 32,
    b"d" * 32 * COUNT,
    (manifest.Entry("", COUNT * LENGTH),),
)
EIO = IOFailed("cannot read '/films/alien': Input/output error")


class Disk:
    """A disk with the errors of the next reads of each piece."""

    def __init__(self) -> None:
        self.errors: dict[int, list[Exception]] = {}
        self.runs: list[tuple[int, int]] = []

    def read_run(self, first: int, count: int) -> bytes:
        self.runs.append((first, count))
        for index in range(first, first + count):
            errors = self.errors.get(index)
            if errors:
                raise errors.pop(0)
        return b"".join(b"%d" % index for index in range(first, first + count))


class ReaderHarness:
    """A reader with an inventory; events for the serving machine are recorded in ``decided``."""

    def __init__(self) -> None:
        self.disk, self.inventory = Disk(), Inventory()
        self.workers = Workers(1, "test")
        self.sent: list[int] = []
        self.run_bytes = 0
        self.decided: list[swarm.ServingEvent] = []
        self.announced: list[tuple[int, ...]] = []
        self.notices: list[str] = []
        self.inventory.attach(self)
        self.reader = PieceReader(self.inventory, self.workers, self.notices.append)

    def _on_result(self, result: ReadResult) -> None:
        match result.outcome:
            case Outcome.READ:
                assert bytes(result.data) == b"".join(b"%d" % send.index for send in result.run)
                self.sent += [send.index for send in result.run]
            case Outcome.RETRY:
                self.decided += [swarm.SendBlocked(BOB, CONTENT, s.index) for s in result.run]
            case Outcome.DROP:
                self.decided += [swarm.SendDropped(BOB, CONTENT, s.index) for s in result.run]

    def content_added(self, *_: object) -> None:
        pass

    group_removed = content_removed = content_added

    def held_more(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        self.decided.append(swarm.HeldMore(content, pieces))

    def held_less(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        self.decided.append(swarm.HeldLess(content, pieces))

    def announce(self, content: ContentId, pieces: tuple[int, ...]) -> None:
        self.announced.append(pieces)

    def offer(self, have: Bitfield | None = None) -> None:
        self.inventory.put(FILMS, CONTENT, MANIFEST, b"", self.disk, have)

    async def read(self, *pieces: int) -> list[swarm.ServingEvent]:
        """Read pieces and return the events that follow."""
        before, sent = len(self.decided), len(self.sent)
        run = [swarm.Send(BOB, CONTENT, index) for index in pieces]
        self.reader.read(run, self.run_bytes, self._on_result)

        def done() -> bool:
            events = self.decided[before:]
            not_sent = sum(
                isinstance(event, swarm.SendBlocked | swarm.SendDropped) for event in events
            )
            return not_sent + len(self.sent) - sent >= len(pieces)

        await until(done, "an outcome for each piece")
        return self.decided[before:]

    async def break_down(self, index: int) -> None:
        """Let a piece fail until it is suspended."""
        self.disk.errors[index] = [EIO] * 1_000
        while swarm.HeldLess(CONTENT, (index,)) not in await self.read(index):
            pass

    def review(self) -> None:
        """Review failed pieces, as after `AWAY_S`."""
        for faults in list(self.reader._faults.values()):
            self.reader._review(faults)


@pytest.fixture
async def harness() -> AsyncIterator[ReaderHarness]:
    harness = ReaderHarness()
    yield harness
    harness.reader.close()
    harness.workers.close()


async def test_a_transient_failure_only_delays_the_piece(harness: ReaderHarness) -> None:
    harness.offer()
    harness.disk.errors = {2: [EIO]}
    assert await harness.read(1, 2, 3) == [swarm.SendBlocked(BOB, CONTENT, 2)]
    assert await harness.read(2) == []
    assert (harness.sent, harness.notices) == ([1, 3, 2], [])


async def test_adjacent_pieces_are_read_and_sent_together(harness: ReaderHarness) -> None:
    harness.offer()
    assert await harness.read(0, 1, 2) == []
    harness.run_bytes = 3 * LENGTH
    assert await harness.read(0, 1, 2, 4) == []
    assert await harness.read(4, 0, 1) == []
    assert harness.disk.runs == [(0, 1), (1, 1), (2, 1), (0, 3), (4, 1), (4, 1), (0, 2)]
    assert harness.sent == [0, 1, 2, 0, 1, 2, 4, 4, 0, 1]


@pytest.mark.parametrize(
    "errors", [[EIO, EIO], [DigestMismatch("piece 1 is damaged", (1,))]], ids=["unread", "damaged"]
)
async def test_a_failed_piece_does_not_hold_back_the_others_of_its_run(
    harness: ReaderHarness, errors: list[Exception]
) -> None:
    harness.offer()
    harness.run_bytes = 4 * LENGTH
    harness.disk.errors = {1: errors}
    assert await harness.read(0, 1, 2, 3) == [swarm.SendBlocked(BOB, CONTENT, 1)]
    assert sorted(harness.sent) == [0, 2, 3]
    assert await harness.read(1) == []


@pytest.mark.parametrize("error", [EIO, RuntimeError("a defect")])
async def test_a_piece_that_stays_unreadable_is_suspended(
    harness: ReaderHarness, error: Exception
) -> None:
    harness.offer()
    harness.disk.errors = {2: [error] * TRIES}
    blocked = swarm.SendBlocked(BOB, CONTENT, 2)
    for _ in range(TRIES - 1):
        assert await harness.read(2) == [blocked]
    # The core declines what is blocked and not held.
    assert await harness.read(2) == [swarm.HeldLess(CONTENT, (2,)), blocked]
    (notice,) = harness.notices
    assert str(error) in notice


async def test_failures_before_a_piece_was_read_do_not_count(harness: ReaderHarness) -> None:
    harness.offer()
    for _ in range(TRIES + 1):
        harness.disk.errors = {2: [EIO]}
        assert await harness.read(2) == [swarm.SendBlocked(BOB, CONTENT, 2)]
        assert await harness.read(2) == []


async def test_a_suspended_piece_is_offered_again_after_a_while(
    harness: ReaderHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piece_reader, "AWAY_S", 0.02)
    harness.offer()
    await harness.break_down(2)
    await until(lambda: harness.announced, "the offer")
    assert harness.announced == [(2,)]
    assert harness.decided[-1] == swarm.HeldMore(CONTENT, (2,))
    harness.disk.errors.clear()
    assert await harness.read(2) == []
    assert harness.sent == [2]
    await until(lambda: not harness.reader._faults, "the end of the faults")


async def test_a_piece_that_stays_bad_is_reported_once_and_costs_one_read_each_time(
    harness: ReaderHarness,
) -> None:
    harness.offer()
    await harness.break_down(2)
    for times in range(1, 4):
        harness.review()
        assert harness.announced == [(2,)] * times
        assert swarm.HeldLess(CONTENT, (2,)) in await harness.read(2)
    assert len(harness.notices) == 1


async def test_one_notice_reports_an_unreadable_disk(harness: ReaderHarness) -> None:
    harness.offer()
    for index in range(COUNT):
        await harness.break_down(index)
    assert len(harness.notices) == 1


async def test_a_piece_lost_meanwhile_is_not_offered_again(harness: ReaderHarness) -> None:
    have = Bitfield(COUNT, [1, 2, 3])
    harness.offer(have)
    await harness.break_down(2)
    await harness.break_down(3)
    have.discard(2)
    harness.review()
    assert harness.announced == [(3,)]


async def test_a_content_that_is_gone_is_forgotten(harness: ReaderHarness) -> None:
    harness.offer()
    await harness.break_down(2)
    harness.inventory.remove(CONTENT)
    harness.review()
    assert (harness.announced, len(harness.reader._faults)) == ([], 0)


async def test_a_content_that_returns_starts_without_failures(harness: ReaderHarness) -> None:
    harness.offer()
    await harness.break_down(2)
    harness.inventory.remove(CONTENT)
    harness.offer(Bitfield(COUNT, [2]))
    assert await harness.read(2) == [swarm.SendBlocked(BOB, CONTENT, 2)]
    harness.review()
    assert (harness.announced, len(harness.reader._faults)) == ([], 0)


@pytest.mark.parametrize("lost", [True, False])
async def test_a_piece_that_another_read_lost_is_no_fault_of_the_disk(
    harness: ReaderHarness, lost: bool
) -> None:
    harness.offer(Bitfield(COUNT, [0] if lost else [0, 2]))
    harness.disk.errors = {2: [PieceNotHeld("piece 2 is not held")]}
    gone = [swarm.HeldLess(CONTENT, (2,))] if lost else []
    assert await harness.read(2) == [*gone, swarm.SendBlocked(BOB, CONTENT, 2)]
    assert (harness.notices, len(harness.reader._faults)) == ([], 0)


async def test_a_closed_reader_offers_nothing_again(harness: ReaderHarness) -> None:
    harness.offer()
    await harness.break_down(2)
    harness.reader.close()
    await turns()
    assert not harness.reader._faults


async def test_an_unexpected_error_is_logged_with_its_traceback(
    harness: ReaderHarness, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "peer.serving.piece_reader"):
        harness.offer()
        harness.disk.errors = {2: [RuntimeError("a defect")] * TRIES}
        for _ in range(TRIES):
            await harness.read(2)
    (record,) = caplog.records
    assert record.exc_info is not None


async def test_clients_learn_that_a_piece_is_available_again() -> None:
    with closing(joined.ServingHarness()) as harness:
        harness.offer()
        handler = await harness.open()
        harness.reader.errors = {2: EIO}
        handler.channel.request(tuple(range(joined.COUNT)))
        await until(lambda: ("declined", (2,), False) in handler.events)
        harness.reader.errors.clear()
        (faults,) = harness.piece_server._reader._faults.values()
        harness.piece_server._reader._review(faults)
        await until(lambda: ("have", (2,)) in handler.events)
        handler.channel.request((2,))
        await until(lambda: 2 in handler.pieces)
