"""The fetching thread stores pieces that were requested, and nothing else."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from common.crypto.sealed_stream import Sealer
from common.ids import DeviceKey
from common.messages import peer
from common.net.codec import SIGNATURE, encode
from peer.files.destination import Destination
from peer.files.direct_part import SLOW_S, DirectPart
from peer.files.errors import DiskFull, IOFailed
from peer.files.partfile import PartFile
from peer.native import library
from peer.native.digests import PLACE_BYTES, digest_at, whole_of_manifest
from peer.native.fetcher import StoredRun, Target, new_places
from peer.serving.bulk import BulkSender
from tests.support.data_paths import COMPILED, needs_library, using
from tests.support.peer_fakes import turns, until
from tests.support.serving_harness import (
    COUNT,
    DATA,
    LENGTH,
    MANIFEST,
    RecordingHandler,
    ServingHarness,
    piece,
    python_sealer,
)

pytestmark = needs_library


@pytest.fixture(autouse=True)
def _compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(ServingHarness, "bulk", True)
    monkeypatch.setattr(BulkSender, "_new_sealer", python_sealer)
    yield from using(COMPILED)


@pytest.fixture
async def harness() -> AsyncIterator[ServingHarness]:
    with closing(ServingHarness()) as harness:
        yield harness


class StoringHandler(RecordingHandler):
    """A channel handler with a file for the fetching thread."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        path.write_bytes(bytes(len(DATA)))
        self.path = path
        self.places = new_places(MANIFEST)
        self.runs: list[StoredRun] = []
        found = library.library()
        assert found is not None
        fd = os.open(path, os.O_RDWR)
        try:
            self.made = Target(found, MANIFEST, fd, self.places)
        finally:
            os.close(fd)

    def target(self) -> Target:
        return self.made

    def on_stored_runs(self, device: DeviceKey, runs: list[StoredRun]) -> None:
        self.runs += runs

    @property
    def stored(self) -> list[int]:
        return [index for one in self.runs for index in range(one.first, one.first + one.count)]


def bulk_of(harness: ServingHarness) -> BulkSender:
    return harness.piece_server._socket.bulk


async def opened(harness: ServingHarness, path: Path) -> StoringHandler:
    harness.offer()
    handler = StoringHandler(path)
    await harness.open(handler)
    await until(lambda: any(line.routing_id for line in bulk_of(harness)._channels.values()))
    return handler


def send_other(harness: ServingHarness, head: bytes, data: bytes) -> None:
    """Send a message of the source's choice, sealed as it must be."""
    [channel] = bulk_of(harness)._channels.values()
    assert channel.routing_id is not None
    assert isinstance(channel.sealer, Sealer)
    pump = bulk_of(harness)._pump
    assert pump is not None
    number, sealed_head, sealed = channel.sealer.seal(head, data)
    pump.send([channel.routing_id, SIGNATURE, number, sealed_head, bytes(sealed)])
    channel.sealer.sent(number)


async def test_requested_pieces_are_stored_and_their_places_make_the_whole(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.stored) == COUNT)
    assert handler.path.read_bytes() == DATA
    assert handler.pieces == {}, "nothing was handed on"
    assert whole_of_manifest(MANIFEST, handler.places) == MANIFEST.digest
    connection = harness.pool._connections[harness.server.public]
    assert connection.received_bytes == len(DATA)
    assert handler.channel.pieces_due == 0


async def test_h161_pieces_that_were_not_requested_are_never_written(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    number = handler.channel.number
    send_other(harness, encode(peer.Pieces(number, 2, 1)), piece(2))
    await until(lambda: 2 in handler.pieces)  # for Python to judge
    handler.channel.request((3,))
    await until(lambda: handler.stored == [3])
    send_other(harness, encode(peer.Pieces(number, 3, 1)), piece(3))  # a second time
    await until(lambda: 3 in handler.pieces)
    send_other(harness, encode(peer.Pieces(number + 1, 4, 1)), piece(4))
    await until(lambda: harness.pool.counts["unsolicited"] == 1)
    found = handler.path.read_bytes()
    assert found[3 * LENGTH : 4 * LENGTH] == piece(3)
    assert found.replace(piece(3), bytes(LENGTH)) == bytes(len(DATA))


async def test_a_cancelled_piece_that_still_arrives_is_handed_on(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    connection._bulk.expect(handler.channel.number, handler.made, (1, 2))
    connection._bulk.forget(handler.channel.number, (1,))
    for index in (1, 2):
        send_other(harness, encode(peer.Pieces(handler.channel.number, index, 1)), piece(index))
    await until(lambda: handler.stored == [2])
    await until(lambda: 1 in handler.pieces)
    connection._bulk.expect(handler.channel.number, handler.made, (4,))
    connection._bulk.close_channel(handler.channel.number)
    send_other(harness, encode(peer.Pieces(handler.channel.number, 4, 1)), piece(4))
    await until(lambda: 4 in handler.pieces)


@pytest.mark.parametrize(
    "head",
    [
        encode(peer.Pieces(0, COUNT - 1, 2)),  # beyond the end
        encode(peer.Pieces(0, 1, 64)),
        encode(peer.Pieces(0, (1 << 21) - 1, 1)),
        b"\x95" + encode(peer.Pieces(0, 1, 1))[1:] + b"\xc0",  # a later form
    ],
    ids=["beyond", "many", "far", "later"],
)
async def test_h162_heads_that_do_not_fit_the_content_are_left_to_python(
    harness: ServingHarness, head: bytes, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    connection._bulk.expect(handler.channel.number, handler.made, range(COUNT))
    send_other(harness, head, piece(1))
    await until(lambda: handler.pieces)
    assert handler.runs == []
    assert handler.path.read_bytes() == bytes(len(DATA))


@pytest.mark.parametrize("head", [b"", b"\xc1", b"\x94\xa6Pieces", b"\xff" * 900])
async def test_h162_a_head_of_another_form_ends_the_bulk_connection(
    harness: ServingHarness, head: bytes, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    send_other(harness, head, piece(1))
    await until(lambda: ("lost", True) in handler.events)


async def test_h163_a_wrong_piece_is_reported_and_not_written(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    connection._bulk.expect(handler.channel.number, handler.made, range(COUNT))
    data = piece(1) + piece(1) + piece(3)
    send_other(harness, encode(peer.Pieces(handler.channel.number, 1, 3)), data)
    await until(lambda: handler.runs)
    assert handler.runs[0].wrong == {2}
    found = handler.path.read_bytes()
    assert found[LENGTH : 4 * LENGTH] == piece(1) + bytes(LENGTH) + piece(3)
    assert handler.places[2 * PLACE_BYTES : 3 * PLACE_BYTES] == bytes(PLACE_BYTES)
    assert handler.places[PLACE_BYTES : 2 * PLACE_BYTES] == digest_at(piece(1), LENGTH).place


async def test_h164_nothing_is_written_after_the_target_was_closed(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    connection._bulk.expect(handler.channel.number, handler.made, range(COUNT))
    handler.made.close()
    send_other(harness, encode(peer.Pieces(handler.channel.number, 1, 1)), piece(1))
    await until(lambda: 1 in handler.pieces)
    assert handler.path.read_bytes() == bytes(len(DATA))


async def test_f156_a_write_that_fails_is_reported_with_its_error(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    found = library.library()
    assert found is not None
    read_only = os.open(handler.path, os.O_RDONLY)
    handler.made = Target(found, MANIFEST, read_only, handler.places)
    os.close(read_only)
    handler.channel.request((1,))
    await until(lambda: handler.runs)
    assert handler.runs[0].errno == errno.EBADF


async def test_f157_a_file_that_became_shorter_is_noticed_at_the_next_write(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    os.truncate(handler.path, LENGTH)
    handler.channel.request((3,))
    await until(lambda: handler.runs)
    assert handler.runs[0].truncated


async def test_a_full_run_in_several_frames_is_opened_whole(
    harness: ServingHarness, tmp_path: Path
) -> None:
    harness.piece_server._core.frame_bytes = lambda _: 1000  # type: ignore[method-assign]
    harness.piece_server._core.run_bytes = lambda _: len(DATA)
    handler = await opened(harness, tmp_path / "part")
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.stored) == COUNT)
    assert handler.path.read_bytes() == DATA


async def test_the_socket_comes_back_when_a_connection_ends(
    harness: ServingHarness, tmp_path: Path
) -> None:
    handler = await opened(harness, tmp_path / "part")
    bulk = harness.pool._connections[harness.server.public]._bulk
    assert bulk is not None
    handler.channel.close()
    await until(lambda: not harness.pool._connections)
    await until(lambda: bulk.closed)
    await turns()
    assert harness.pool._fetcher is not None
    assert harness.pool._fetcher._lines == {}


async def test_a_sealer_of_python_and_the_thread_agree_on_large_numbers(
    harness: ServingHarness, tmp_path: Path
) -> None:
    """Channel and piece numbers of all lengths of MessagePack."""
    handler = await opened(harness, tmp_path / "part")
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    for number in (127, 128, 255, 256, 65_535):
        connection._bulk.expect(number, handler.made, (5,))
        send_other(harness, encode(peer.Pieces(number, 5, 1)), piece(5))
    await until(lambda: connection.received_bytes == 5 * LENGTH)
    assert harness.pool.counts["unsolicited"] == 0, "each was stored on its own channel"
    assert handler.path.read_bytes()[5 * LENGTH : 6 * LENGTH] == piece(5)


async def test_f158_while_a_disk_does_not_answer_new_connections_use_python(
    harness: ServingHarness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("peer.native.fetcher.STUCK_MS", -1)
    handler = await opened(harness, tmp_path / "part")
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.pieces) == COUNT)
    assert handler.runs == []


@pytest.mark.parametrize("number", [0, errno.ENOSPC, errno.EIO])
def test_f158_after_a_slow_write_python_writes_for_a_while(number: int, tmp_path: Path) -> None:
    path = tmp_path / "part"
    path.write_bytes(bytes(len(DATA)))
    destination = Destination.choose(str(tmp_path / "content"))
    part = PartFile(MANIFEST, destination, os.open(path, os.O_RDWR))
    now = [0.0]
    direct = DirectPart(MANIFEST, part, str(path), lambda: now[0])
    assert direct.target() is not None
    slow = StoredRun(0, 1, LENGTH, errno=number, slow=True)
    if number:
        with pytest.raises(DiskFull if number == errno.ENOSPC else IOFailed):
            direct.check(slow)
    else:
        direct.check(slow)
    assert direct.target() is None
    now[0] += SLOW_S + 1
    assert direct.target() is not None
    direct.close()
    part.close()
    destination.close()
    assert direct.target() is None, "the part is closed"
