"""Adjacent pieces in one message, received by a `Transfer`."""

from __future__ import annotations

from typing import Any

import pytest

from common.ids import GroupId
from peer.downloads.counts import DownloadCounts
from peer.downloads.received import ReceivedPieces
from peer.downloads.transfer import Transfer
from peer.swarm.fetching.events import DiscardReason, PieceReceived, Verify
from peer.swarm.fetching.sources import Phase
from tests.support.data_paths import module_on_both_paths
from tests.support.peer_fakes import turns, until
from tests.unit.peer.downloads.test_lifecycle import PIECE, Stage
from tests.unit.peer.downloads.test_views import BOB, CAROL, going, listed

pytestmark = module_on_both_paths


@pytest.fixture
def pieces() -> int:
    return 8


async def asked_of(stage: Stage) -> tuple[Transfer, list[tuple[int, int]]]:
    """A download that asks Bob for two pieces, and the jobs of its storage from here on."""
    transfer = (await going(stage, 0)).transfer
    assert transfer is not None
    transfer.sources([listed(BOB)])
    transfer.on_opened(BOB, None)
    bob = transfer._core._sources.get(BOB)
    assert bob is not None
    assert sorted(bob.in_flight) == [0, 1]
    jobs: list[tuple[int, int]] = []
    write_run = transfer.part.write_run

    def spy(first: int, count: int, data: Any) -> set[int]:
        jobs.append((first, count))
        return write_run(first, count, data)

    transfer.part.write_run = spy  # type: ignore[method-assign]
    return transfer, jobs


def data_of(stage: Stage, first: int, count: int) -> bytearray:
    return bytearray(b"".join(stage.piece(index) for index in range(first, first + count)))


def phase(transfer: Transfer) -> Phase | None:
    bob = transfer._core._sources.get(BOB)
    return None if bob is None else bob.phase


async def test_a_run_is_stored_by_one_job(stage: Stage) -> None:
    transfer, jobs = await asked_of(stage)
    transfer.on_pieces(BOB, 0, 2, memoryview(data_of(stage, 0, 2)))
    assert len(transfer._received) == 0
    await until(lambda: transfer.part.held_count == 2)
    await until(lambda: transfer.progress().held_pieces == 2)
    assert jobs == [(0, 2)]
    ((_, count),) = transfer.pieces_by_source()
    assert count == 2


async def test_a_wrong_piece_bans_its_sender_and_spares_the_other_pieces(stage: Stage) -> None:
    transfer, _ = await asked_of(stage)
    data = data_of(stage, 0, 2)
    data[3] ^= 1
    transfer.on_pieces(BOB, 0, 2, memoryview(data))
    await until(lambda: transfer.progress().corrupt_pieces)
    assert transfer.part.held_indexes() == [1]
    assert phase(transfer) is Phase.BANNED
    transfer.sources([listed(CAROL)])
    transfer.on_opened(CAROL, None)
    carol = transfer._core._sources.get(CAROL)
    assert carol is not None
    assert 0 in carol.in_flight


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 2 * PIECE - 1, 2 * PIECE + 1])
async def test_a_run_of_another_length_than_announced(stage: Stage, size: int) -> None:
    """Whole pieces are taken; the rest counts against the sender."""
    transfer, _ = await asked_of(stage)
    data = (data_of(stage, 0, 2) + bytes(PIECE))[:size]
    transfer.on_pieces(BOB, 0, 2, memoryview(data))
    whole = [0] if size >= PIECE else []
    await until(lambda: transfer.progress().held_pieces == len(whole))
    await turns()
    assert transfer.part.held_indexes() == whole
    assert len(transfer._received) == 0
    bob = transfer._core._sources.get(BOB)
    assert bob is not None
    assert bob.strikes == 2 - len(whole)


async def test_a_run_of_unrequested_pieces_is_dropped(stage: Stage) -> None:
    transfer, jobs = await asked_of(stage)
    transfer.on_pieces(BOB, 1 << 20, 128, memoryview(bytes(128)))
    transfer.on_pieces(BOB, 2, 4, memoryview(data_of(stage, 2, 4)))
    assert (len(transfer._received), jobs) == (0, [])
    assert phase(transfer) is Phase.BANNED


async def test_pieces_received_before_are_left_out(stage: Stage) -> None:
    transfer, jobs = await asked_of(stage)
    transfer.on_pieces(BOB, 1, 1, memoryview(data_of(stage, 1, 1)))
    transfer.on_pieces(BOB, 0, 2, memoryview(data_of(stage, 0, 2)))
    await until(lambda: transfer.part.held_indexes() == [0, 1])
    assert jobs == [(1, 1), (0, 1)]


def test_a_piece_does_not_keep_surplus_bytes_in_memory() -> None:
    received = ReceivedPieces(3, GroupId("g"), DownloadCounts())
    message = memoryview(b"aaa" + bytes(1000))
    events = received.add(BOB, 4, 2, message)
    assert [(piece.index, piece.size) for piece in events] == [(4, 3), (5, 1000)]
    received.discard(BOB, 5, DiscardReason.WRONG_SIZE)
    (found,) = received.take([Verify(BOB, 4)])
    assert (found.data, found.data.obj is message.obj) == (b"aaa", False)
    received.add(BOB, 6, 2, message[:6])
    (found,) = received.take([Verify(BOB, 6), Verify(BOB, 7)])
    assert found.data.obj is message.obj  # the rule: not copied


def test_the_pieces_of_a_message_are_handed_out_in_runs() -> None:
    counts = DownloadCounts()
    received = ReceivedPieces(3, GroupId("g"), counts)
    events = received.add(BOB, 4, 4, memoryview(b"aaabbbcccd"))
    assert [(piece.index, piece.size) for piece in events] == [(4, 3), (5, 3), (6, 3), (7, 1)]
    assert received.add(BOB, 7, 1, memoryview(b"again")) == []
    assert received.add(CAROL, 8, 1, memoryview(b"eee")) == [PieceReceived(CAROL, 8, 3)]
    received.discard(BOB, 6, DiscardReason.DUPLICATE)
    wanted = [(BOB, 4), (BOB, 5), (BOB, 7), (CAROL, 8)]
    found = received.take([Verify(source, index) for source, index in wanted])
    assert [(one.source, one.pieces, bytes(one.data)) for one in found] == [
        (BOB, range(4, 6), b"aaabbb"),
        (BOB, range(7, 8), b"d"),
        (CAROL, range(8, 9), b"eee"),
    ]
    assert len(received) == 0
    assert counts.received_bytes == {"g": 18}
    assert counts.pieces == {"duplicate": 1}
