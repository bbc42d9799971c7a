"""The compiled sealer sends the same stream as that of Python, from memory that it gives back."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common import limits
from common.errors import Refused
from common.messages import peer
from common.messages.refusals import Code
from peer.files.partfile import read_all
from peer.native import blocks, library
from peer.native.blocks import block_of, new_block, read_block
from peer.native.sealer import CompiledSealer
from tests.support.data_paths import COMPILED, PYTHON, needs_library, using
from tests.support.peer_fakes import turns, until
from tests.support.serving_harness import (
    COUNT,
    DATA,
    LENGTH,
    RecordingHandler,
    ServingHarness,
)

pytestmark = needs_library


@pytest.fixture(autouse=True, params=[PYTHON, COMPILED])
def receiving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiled sender, to either receiver."""
    monkeypatch.setattr(ServingHarness, "bulk", True)
    for _ in using(COMPILED):
        if request.param == PYTHON:
            monkeypatch.setattr("peer.native.fetcher.STUCK_MS", -1)  # so Python opens AEGIS-128L
        yield


@pytest.fixture
async def harness() -> AsyncIterator[ServingHarness]:
    with closing(ServingHarness()) as harness:
        yield harness


async def opened(harness: ServingHarness) -> RecordingHandler:
    harness.offer()
    handler = await harness.open()
    bulk = harness.piece_server._socket.bulk
    await until(lambda: any(line.routing_id for line in bulk._channels.values()))
    assert all(isinstance(line.sealer, CompiledSealer) for line in bulk._channels.values())
    return handler


async def fetch(harness: ServingHarness, handler: RecordingHandler) -> None:
    handler.pieces.clear()
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.pieces) == COUNT)
    assert b"".join(handler.pieces[at] for at in range(COUNT)) == DATA


@pytest.mark.parametrize("frame_bytes", [1, 1000, LENGTH - 1, LENGTH, 1 << 20])
@pytest.mark.parametrize("run_bytes", [0, len(DATA)])
async def test_pieces_arrive_in_frames_of_any_size(
    harness: ServingHarness, frame_bytes: int, run_bytes: int
) -> None:
    harness.piece_server._core.frame_bytes = lambda _: frame_bytes  # type: ignore[method-assign]
    harness.piece_server._core.run_bytes = lambda _: run_bytes
    handler = await opened(harness)
    await fetch(harness, handler)
    await fetch(harness, handler)
    assert harness.piece_server._socket.bulk._sent == 2 * COUNT


async def test_a_right_that_ends_while_a_piece_is_read_ends_serving_at_once(
    harness: ServingHarness,
) -> None:
    """The right is checked in the turn of the loop in which the piece would be sealed and sent."""
    handler = await opened(harness)
    read = harness.reader.read_run

    def withdraw(first: int, count: int) -> bytes:
        harness.access.withdrawn = Refused(Code.TICKET_EXPIRED, "it ended")
        return read(first, count)

    harness.reader.read_run = withdraw  # type: ignore[method-assign]
    handler.channel.request((1,))
    await until(lambda: ("refused", Code.TICKET_EXPIRED) in handler.events)
    assert handler.pieces == {}
    assert harness.piece_server._socket.bulk._sent == 0


async def test_a_client_that_left_gets_nothing_and_its_pieces_are_not_sealed(
    harness: ServingHarness,
) -> None:
    await opened(harness)
    bulk = harness.piece_server._socket.bulk
    [(requester, line)] = bulk._channels.items()
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    connection._bulk.close()
    found = library.library()
    assert found is not None
    data = new_block(found, LENGTH).view
    data[:] = DATA[:LENGTH]
    await until(lambda: bulk.send(requester, peer.Pieces(0, 0, 1), bytes(9), 99) is None)
    line.routing_id = b"\x01" + b"x" * 16
    assert bulk.send(requester, peer.Pieces(0, 0, 1), data, LENGTH) is None
    assert data == DATA[:LENGTH], "for the encrypted connection"


async def test_a_key_is_not_used_beyond_its_limit(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEALED_BYTES_MAX", 3 * limits.PIECE_LENGTH_MIN)
    handler = await opened(harness)
    for index in range(COUNT):  # one at a time, so that each is a message
        handler.channel.request((index,))
        await until(lambda index=index: index in handler.pieces)
    assert harness.piece_server._socket.bulk._sent == 3


def test_a_block_is_found_by_its_whole_view_alone() -> None:
    found = library.library()
    assert found is not None
    block = new_block(found, 4096)
    assert block_of(block.view) == block.handle
    assert block_of(block.view[:-1]) is None
    assert block_of(memoryview(bytes(4096))) is None
    assert block_of(bytes(4096)) is None


def test_memory_of_blocks_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "BLOCK_BYTES_MIN", 1)
    path = tmp_path / "one"
    path.write_bytes(os.urandom(1 << 20))
    fd = os.open(path, os.O_RDONLY)
    seen = set()
    for _ in range(100):
        view = read_block(fd, 1 << 20, 0)
        seen.add(block_of(view))
        copy = bytearray(1 << 20)
        assert read_all(fd, memoryview(copy), 0)
        assert view == copy
        del view
        gc.collect(0)
    assert len(seen) == 1
    assert bytes(read_block(fd, 100, (1 << 20) - 7)) == path.read_bytes()[-7:]
    os.close(fd)


async def test_a_closed_sender_sends_nothing(harness: ServingHarness) -> None:
    await opened(harness)
    bulk = harness.piece_server._socket.bulk
    [requester] = bulk._channels
    bulk.close()
    await turns()
    assert bulk.send(requester, peer.Pieces(0, 0, 1), bytes(9), 99) is None
