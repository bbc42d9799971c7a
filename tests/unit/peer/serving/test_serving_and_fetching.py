"""`PieceServer` and `ConnectionPool`, joined by real sockets."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import closing

import pytest

from common import limits
from common.errors import Refused
from common.ids import ContentId, GroupId, UserId
from common.messages import peer
from common.messages.refusals import Code
from common.net.codec import pack
from peer.files.errors import ContentChanged, DigestMismatch, StorageClosed, StorageError
from peer.swarm.pieces import Bitfield
from peer.swarm.rate_limit import RateLimit, Rates
from tests.support.data_paths import module_on_both_paths
from tests.support.peer_fakes import turns, until
from tests.support.serving_harness import (
    CONTENT,
    COUNT,
    DATA,
    ENCODED,
    FILMS,
    LENGTH,
    MUSIC,
    Reader,
    RecordingHandler,
    ServingHarness,
    content_of,
)
from tests.support.waiting import PATIENCE_S

pytestmark = module_on_both_paths


@pytest.fixture(autouse=True, params=[False, True], ids=["encrypted", "bulk"])
def bulk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with pieces on the encrypted connection, and on bulk connections."""
    monkeypatch.setattr(ServingHarness, "bulk", request.param)


@pytest.fixture
async def harness() -> AsyncIterator[ServingHarness]:
    with closing(ServingHarness()) as harness:
        yield harness


async def test_pieces_arrive(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    assert handler.events == [("opened", None)]
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.pieces) == COUNT)
    assert b"".join(handler.pieces[at] for at in range(COUNT)) == DATA
    assert harness.piece_server.counts["pieces"] == COUNT


async def test_far_more_requests_than_fit_in_flight_are_all_answered(
    harness: ServingHarness,
) -> None:
    """Without acknowledgements the piece server would stop after the first pieces."""
    harness.offer()
    handler = await harness.open()
    for _ in range(60):
        handler.pieces.clear()
        handler.channel.request(tuple(range(COUNT)))
        await until(lambda: len(handler.pieces) == COUNT)
    assert harness.piece_server.counts["pieces"] == 60 * COUNT


async def test_an_incomplete_content_reports_held_and_new_pieces(harness: ServingHarness) -> None:
    have = Bitfield(COUNT, [0, 3])
    harness.offer(have)
    handler = await harness.open()
    assert handler.events == [("opened", bytes([0b10010000]))]
    handler.channel.request(
        (
            0,
            1,
            3,
        )
    )
    await until(lambda: len(handler.pieces) == 2)
    assert set(handler.pieces) == {0, 3}
    await until(lambda: len(handler.events) > 1)
    assert handler.events[1] == ("declined", (1,), False)
    harness.inventory.held_more(CONTENT, (1, 7), harness.reader)
    harness.inventory.announce(CONTENT, (1, 7), harness.reader)
    await until(lambda: ("have", (1, 7)) in handler.events)
    handler.channel.request(
        (
            1,
            7,
        )
    )
    await until(lambda: len(handler.pieces) == 4)


@pytest.mark.parametrize(
    ("ticket", "offered", "code"),
    [
        (b"bad", FILMS, Code.TICKET_INVALID),
        (b"good", None, Code.UNKNOWN_SHARE),
        (b"good", MUSIC, Code.UNKNOWN_SHARE),
    ],
)
async def test_invalid_tickets_and_unknown_contents_are_refused(
    harness: ServingHarness, ticket: bytes, offered: GroupId | None, code: Code
) -> None:
    if offered is not None:
        harness.offer(group=offered)
    harness.ticket = ticket
    handler = await harness.open()
    assert handler.events == [("refused", code)]
    handler.channel.request((0,))
    await turns(50)
    assert handler.pieces == {}


async def test_a_right_that_ends_closes_the_channel(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    harness.access.withdrawn = Refused(Code.REVOKED, "the right was withdrawn")
    handler.channel.request((0,))
    await until(lambda: len(handler.events) == 2)
    assert handler.events[1] == ("refused", Code.REVOKED)
    assert handler.pieces == {}


async def test_a_dropped_user_is_refused_at_once(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    harness.access.withdrawn = Refused(Code.REVOKED, "the right was withdrawn")
    harness.piece_server.drop_user(MUSIC, UserId("bob"))
    harness.piece_server.drop_user(FILMS, UserId("carol"))
    await turns(50)
    assert len(handler.events) == 1
    harness.piece_server.drop_user(FILMS, UserId("bob"))
    await until(lambda: len(handler.events) == 2)
    assert handler.events[1] == ("refused", Code.REVOKED)


async def test_clients_learn_that_a_content_was_withdrawn(harness: ServingHarness) -> None:
    harness.offer()
    harness.offer(group=MUSIC)
    handler = await harness.open(RecordingHandler(MUSIC))
    harness.inventory.withdraw(FILMS, CONTENT)
    harness.inventory.withdraw(MUSIC, CONTENT)
    await until(lambda: len(handler.events) > 1)
    assert handler.events == [("opened", None), ("refused", Code.UNKNOWN_SHARE)]


async def test_changed_files_are_no_longer_sent(harness: ServingHarness) -> None:
    looked: list[ContentId] = []
    harness.inventory.on_changed = looked.append
    harness.offer()
    handler = await harness.open()
    harness.reader.errors = dict.fromkeys(range(COUNT), ContentChanged("changed"))
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: ("refused", Code.CHANGED) in handler.events)
    assert (looked, handler.pieces) == ([CONTENT], {})


async def test_a_piece_that_cannot_be_read_is_declined_and_others_come(
    harness: ServingHarness,
) -> None:
    harness.offer(Bitfield(COUNT, range(COUNT)))
    damaged: list[tuple[int, ...]] = []
    served = harness.inventory.get(CONTENT)
    assert served is not None

    def on_damaged(pieces: tuple[int, ...]) -> None:
        damaged.append(pieces)
        harness.inventory.held_less(CONTENT, pieces, harness.reader)

    served.on_damaged = on_damaged
    handler = await harness.open()
    harness.reader.errors = {2: StorageError("EIO"), 5: DigestMismatch("damaged", (5,))}
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.pieces) == COUNT - 2)
    await until(lambda: damaged)
    await until(lambda: ("declined", (2,), False) in handler.events)
    await until(lambda: ("declined", (5,), False) in handler.events)
    assert damaged == [(5,)]


class ClosingPart(Reader):
    """A part that is closed while a piece is read; further reads fail."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.closed = threading.Event(), threading.Event()

    def read_run(self, first: int, count: int) -> bytes:
        if self.closed.is_set():
            raise StorageClosed("the download was closed")
        self.reading.set()
        assert self.closed.wait(PATIENCE_S)
        return super().read_run(first, count)


async def test_reads_of_a_part_move_to_the_complete_content_that_it_became(
    harness: ServingHarness,
) -> None:
    harness.offer(Bitfield(COUNT, range(COUNT - 1)))
    handler = await harness.open()
    handler.channel.request((0,))
    await until(lambda: 0 in handler.pieces)
    served, part = harness.inventory.get(CONTENT), ClosingPart()
    assert served is not None
    served.reader = part
    handler.channel.request(tuple(range(1, COUNT - 1)))
    await until(part.reading.is_set)
    harness.offer()
    part.closed.set()
    await until(lambda: len(handler.pieces) == COUNT - 1, "each piece")


class SlowPiece(Reader):
    """A content of which piece 2 is read only after ``released`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reading, self.released = threading.Event(), threading.Event()

    def read_run(self, first: int, count: int) -> bytes:
        if first == 2:
            self.reading.set()
            assert self.released.wait(PATIENCE_S)
        return super().read_run(first, count)


@pytest.mark.parametrize("errors", [{}, {2: StorageError("EIO")}], ids=["read", "failed"])
async def test_a_piece_read_for_a_closed_channel_is_not_sent_on_the_next(
    harness: ServingHarness, errors: dict[int, Exception]
) -> None:
    harness.reader = slow = SlowPiece()
    harness.reader.errors = errors
    harness.offer()
    handler = await harness.open()
    handler.channel.request((2,))
    await until(slow.reading.is_set)
    handler.channel.close()
    again = await harness.open(RecordingHandler())
    slow.released.set()
    again.channel.request((3,))
    await until(lambda: again.pieces)
    await turns(50)
    assert (set(again.pieces), again.events) == ({3}, [("opened", None)])
    assert handler.pieces == {}
    # The dropped piece holds back no other.
    again.channel.request(tuple(index for index in range(COUNT) if index != 2))
    await until(lambda: len(again.pieces) == COUNT - 1)


async def test_indexes_beyond_the_content_are_declined(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    handler.channel.request(
        (
            COUNT,
            limits.PIECES_MAX - 1,
        )
    )
    await until(lambda: len(handler.events) == 2)
    assert handler.events[1] == ("declined", (COUNT, limits.PIECES_MAX - 1), False)
    assert harness.piece_server.counts["out of range"] == 1
    handler.channel.request((0,))
    await until(lambda: handler.pieces)


async def test_a_refused_open_closes_the_former_channel(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    connection = harness.pool._connections[harness.server.public]
    connection._pump.send(pack(b"", peer.Open(0, FILMS, CONTENT, b"bad")))
    await until(lambda: ("refused", Code.TICKET_INVALID) in handler.events)
    [client] = harness.piece_server._clients
    assert client.channels == {}


async def test_an_index_beyond_the_content_cancels_no_other_request(
    harness: ServingHarness,
) -> None:
    harness.offer()
    handler = await harness.open()
    handler.channel.request(
        (
            COUNT,
            COUNT - 1,
            limits.PIECES_MAX - 1,
            2,
        )
    )
    await until(lambda: len(handler.pieces) == 2 and handler.events[1:])
    assert sorted(handler.pieces) == [2, COUNT - 1]
    assert handler.events[1:] == [("declined", (COUNT, limits.PIECES_MAX - 1), False)]


async def test_a_peer_serves_the_manifest(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    handler.channel.request_manifest(0)
    await until(lambda: handler.manifest)
    assert handler.manifest == ENCODED


async def test_an_unknown_device_is_not_admitted(harness: ServingHarness) -> None:
    harness.offer()
    harness.known.clear()
    handler = RecordingHandler()
    harness.start_open(handler)
    await until(lambda: harness.guard.counts["retry"])
    await turns(50)
    assert handler.events == []
    harness.known.add(harness.client.public)
    await until(lambda: handler.events)  # it connects again by itself
    assert handler.events == [("opened", None)]


async def test_the_end_of_a_piece_server_is_noticed_at_once(harness: ServingHarness) -> None:
    harness.offer()
    handler = await harness.open()
    harness.piece_server.close()
    await until(lambda: ("lost", True) in handler.events)


async def test_an_absent_source_is_reported_in_time(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.fetching.pool.OPEN_TIMEOUT_S", 0.1)
    handler = RecordingHandler()
    harness.start_open(handler, "tcp://127.0.0.1:9")
    await until(lambda: handler.events)
    assert handler.events == [("lost", False)]


async def test_a_renewed_ticket_replaces_the_older_one(harness: ServingHarness) -> None:
    harness.offer()
    await harness.open()
    harness.pool.renewed(MUSIC, b"good for something else")
    harness.pool.renewed(FILMS, b"good and fresh")
    await until(lambda: len(harness.access.shown) == 2)
    assert harness.access.shown == [b"good", b"good and fresh"]


async def test_an_upload_limit_delays_pieces_and_loses_none() -> None:
    """Counted in pieces, not in seconds: the pieces of a quarter of a second arrive at once."""
    with closing(ServingHarness(RateLimit(Rates(everything=LENGTH * 20)))) as harness:
        harness.offer()
        handler = await harness.open()
        handler.channel.request(tuple(range(COUNT)))
        await until(lambda: handler.pieces)
        assert len(handler.pieces) < COUNT
        await until(lambda: len(handler.pieces) == COUNT)


async def test_several_contents_share_a_connection(harness: ServingHarness) -> None:
    other = DATA[::-1]
    content, decoded, encoded = content_of(other)

    class Other:
        def read_run(self, first: int, count: int) -> bytes:
            return other[first * LENGTH : (first + count) * LENGTH]

    harness.offer()
    harness.inventory.put(FILMS, content, decoded, encoded, Other(), None)
    one, two = await harness.open(), await harness.open(RecordingHandler(FILMS, content))
    for handler in (one, two):
        handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(one.pieces) == len(two.pieces) == COUNT)
    assert b"".join(two.pieces[at] for at in range(COUNT)) == other
    assert len(harness.piece_server._clients) == 1
    one.channel.close()
    two.channel.request((0,))
    two.pieces.clear()
    await until(lambda: two.pieces)
