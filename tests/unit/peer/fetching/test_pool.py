"""Connection pool with misbehaving sources: a ROUTER that sends what a test wants."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
import zmq

from common import limits
from common.crypto.keys import KeyPair, new_pair
from common.ids import ContentId, DeviceKey, GroupId
from common.messages import peer
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net.codec import Decoder, pack
from common.net.pump import Frames, Pump
from peer.fetching.channel import Channel, ChannelHandler
from peer.fetching.pool import ConnectionPool
from tests.support.data_paths import module_on_both_paths
from tests.support.peer_fakes import turns, until

pytestmark = module_on_both_paths

FILMS = GroupId("films")
NAMED = ["tcp://slow.example.org:5000", "tcp://localhost:5000", "tcp://192.0.2.1:\uff15\uff10"]
REFUSED_BY_LIBZMQ = "tcp://127.0.0.1:\uff15\uff10\uff10\uff10"
MUCH = bytes(limits.PIECE_LENGTH_MAX)


class RecordingHandler(ChannelHandler):
    """A channel handler that records its callbacks."""

    def __init__(self, content: int = 1) -> None:
        self.content = ContentId(bytes([content]) * 32)
        self.channel: Channel
        self.events: list[Any] = []
        self.pieces: list[int] = []

    async def has(self, count: int) -> None:
        """Wait for so many callbacks."""
        await until(lambda: len(self.events) >= count, f"callback {count}")

    def on_opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        self.events.append("opened")

    def on_have(self, device: DeviceKey, pieces: list[int]) -> None:
        self.events.append(("have", pieces))

    def on_pieces(self, device: DeviceKey, first: int, count: int, data: memoryview) -> None:
        self.pieces += range(first, first + count)

    def on_declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        self.events.append(("declined", answer.pieces))

    def on_refused(self, device: DeviceKey, refusal: Refusal) -> None:
        self.events.append(refusal.code)

    def on_lost(self, device: DeviceKey, opened: bool) -> None:
        self.events.append(("lost", opened))

    def on_manifest_part(self, device: DeviceKey, total: int, offset: int, data: bytes) -> None:
        self.events.append(("manifest", data))


class Source:
    """The ROUTER of a source; the test decides what it sends."""

    def __init__(self, context: zmq.Context[Any], pair: KeyPair) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.sndhwm = 0
        self._socket.curve_server = True
        self._socket.curve_publickey = pair.public_z85
        self._socket.curve_secretkey = pair.secret_z85
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.asks: list[Any] = []
        self._to = b""
        self._pump = Pump(self._socket, self._on_message)
        self._decoder: Decoder[peer.ClientMessage] = Decoder(peer.ClientMessage)

    def _on_message(self, frames: Frames) -> None:
        self._to = frames[0].bytes
        self.asks.append(self._decoder.unpack(frames[1:]).body)

    def send(self, answer: peer.Answer, data: bytes | None = None) -> None:
        self._pump.send([self._to, *pack(b"", answer, data)])

    def send_raw(self, *frames: bytes) -> None:
        self._pump.send([self._to, *frames])

    def received(self, kind: type[Any]) -> list[Any]:
        return [command for command in self.asks if isinstance(command, kind)]

    async def wait_for(self, kind: type[Any], count: int) -> None:
        """Wait for so many messages of a kind."""
        await until(lambda: len(self.received(kind)) >= count, f"a {kind.__name__}")

    def close(self) -> None:
        self._pump.close()


class PoolHarness:
    """A connection pool and one source."""

    def __init__(self) -> None:
        self.contexts: list[zmq.Context[Any]] = [zmq.Context(), zmq.Context()]
        pair = new_pair()
        self.device = pair.public
        self.source = Source(self.contexts[0], pair)
        self.pool = ConnectionPool(self.contexts[1], new_pair(), lambda group: b"good")

    def open(
        self, handler: RecordingHandler, endpoint: str = "", device: DeviceKey | None = None
    ) -> None:
        device, endpoint = device or self.device, endpoint or self.source.endpoint
        handler.channel = self.pool.open(device, endpoint, handler.content, FILMS, handler)

    async def opened(self, handler: RecordingHandler) -> int:
        """Open a channel and return its number."""
        count = len(self.source.received(peer.Open))
        self.open(handler)
        await self.source.wait_for(peer.Open, count + 1)
        number: int = self.source.received(peer.Open)[-1].channel
        self.source.send(peer.Opened(number, True, 1 << 52))
        await until(lambda: handler.events[-1:] == ["opened"], "an open channel")
        return number

    async def flushed(self) -> None:
        """Wait until all that the source sent has arrived."""
        marker = RecordingHandler(255)
        number = await self.opened(marker)
        self.source.send(peer.Have(number, [7]))
        await until(lambda: ("have", [7]) in marker.events)
        marker.channel.close()

    def close(self) -> None:
        self.source.close()
        self.pool.close()
        for context in self.contexts:
            context.destroy(linger=0)


@pytest.fixture
async def harness() -> AsyncIterator[PoolHarness]:
    with closing(PoolHarness()) as harness:
        yield harness


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


class DealerCount:
    """Counter of the DEALERs that are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        real = zmq.Context.socket

        def counted(context: Any, kind: int, *args: Any, **options: Any) -> Any:
            self.count += kind == zmq.DEALER
            return real(context, kind, *args, **options)

        monkeypatch.setattr(zmq.Context, "socket", counted)


# -- endpoints ----------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoint", NAMED)
async def test_h50_no_socket_is_made_for_a_host_name(
    harness: PoolHarness, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = DealerCount(monkeypatch)
    handler = RecordingHandler()
    harness.open(handler, endpoint)
    assert handler.events == []  # no callback before `open` returns
    await turns()
    assert handler.events == [("lost", False)]
    assert made.count == 0


def accept_all_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass every endpoint to libzmq, as if our check and libzmq did not agree."""
    monkeypatch.setattr("peer.fetching.pool.check_source", lambda text: text, raising=False)


async def test_h51_a_refused_connect_leaves_nothing_open(
    harness: PoolHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_all_endpoints(monkeypatch)
    handler = RecordingHandler()
    before = descriptors()
    for number in range(8):
        harness.open(handler, REFUSED_BY_LIBZMQ, DeviceKey(bytes([number]) * 32))
    await turns()
    assert handler.events == [("lost", False)] * 8
    # libzmq closes in its own thread
    await until(lambda: descriptors() <= before + 4, "the closing of the sockets")


async def test_h51_a_refused_connect_is_not_tried_again_at_once(
    harness: PoolHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download tries a source again each time that the tracker lists it."""
    accept_all_endpoints(monkeypatch)
    made = DealerCount(monkeypatch)
    handler = RecordingHandler()
    for _ in range(5):
        harness.open(handler, REFUSED_BY_LIBZMQ)
        await turns()
    assert handler.events == [("lost", False)] * 5
    assert made.count == 1


# -- unsolicited messages -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        peer.Piece(60_000, 0),
        peer.ManifestBytes(60_000, 1 << 40, 0),
        peer.Opened(60_000, False, 1 << 52),
        peer.Have(60_000, [1]),
        peer.Declined(60_000, [1]),
        peer.Closed(60_000, Refusal(Code.BUSY, "no")),
    ],
    ids=lambda answer: type(answer).__name__,
)
async def test_h52_a_source_that_sends_on_closed_channels_is_dropped(
    harness: PoolHarness, answer: peer.Answer
) -> None:
    handler, other = RecordingHandler(1), RecordingHandler(2)
    await harness.opened(handler)
    await harness.opened(other)
    bulky = isinstance(answer, (peer.Piece, peer.ManifestBytes, peer.Opened))
    for _ in range(2 if bulky else 400):
        harness.source.send(answer, MUCH if bulky else None)
    await until(lambda: handler.events[1:], "the end of the connection")
    assert handler.events == other.events == ["opened", ("lost", True)]


@pytest.mark.parametrize("what", ["noise", "manifest", "opened"])
async def test_h52_a_source_that_sends_nonsense_on_an_open_channel_is_dropped(
    harness: PoolHarness, what: str
) -> None:
    handler = RecordingHandler()
    number = await harness.opened(handler)
    for _ in range(3):
        match what:
            case "noise":
                harness.source.send_raw(b"MT\x01", b"", b"\xc1", MUCH)
            case "manifest":
                harness.source.send(peer.ManifestBytes(number, 1 << 40, 0), MUCH)
            case _:
                harness.source.send(peer.Opened(number, False, 1 << 52), MUCH)
    await until(lambda: handler.events[1:], "the end of the connection")
    assert handler.events == ["opened", ("lost", True)]


async def test_h52_a_dropped_source_is_in_backoff(
    harness: PoolHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = RecordingHandler()
    await harness.opened(handler)
    for _ in range(2):
        harness.source.send(peer.Piece(60_000, 0), MUCH)
    await until(lambda: ("lost", True) in handler.events)
    made = DealerCount(monkeypatch)
    for _ in range(5):
        harness.open(handler)
        await turns()
    assert handler.events[2:] == [("lost", False)] * 5
    assert made.count == 0
    assert len(harness.source.received(peer.Open)) == 1


async def test_h52_messages_under_way_when_a_channel_closes_are_accepted(
    harness: PoolHarness,
) -> None:
    """A source sends requested pieces until it receives the close."""
    stays = RecordingHandler(1)
    staying = await harness.opened(stays)
    for content in range(2, 8):
        goes = RecordingHandler(content)
        number = await harness.opened(goes)
        goes.channel.request(tuple(range(4)))
        await harness.source.wait_for(peer.Request, content - 1)
        goes.channel.close()
        for index in range(4):
            harness.source.send(peer.Piece(number, index), MUCH[: 2 * limits.MIB])
        harness.source.send(peer.Have(number, [1]))
        await harness.flushed()
        assert goes.pieces == []
    harness.source.send(peer.Piece(staying, 5), b"piece")
    await until(lambda: stays.pieces == [5])
    assert stays.events == ["opened"]
    assert harness.pool.counts["unsolicited"] == 6 * 5


async def test_h52_the_most_that_can_be_under_way_is_accepted(harness: PoolHarness) -> None:
    stays, goes = RecordingHandler(1), RecordingHandler(2)
    staying, number = await harness.opened(stays), await harness.opened(goes)
    count = limits.ON_ITS_WAY_MAX // (2 * limits.MIB)
    goes.channel.request(tuple(range(count)))
    await harness.source.wait_for(peer.Request, 1)
    goes.channel.close()
    for index in range(count):
        harness.source.send(peer.Piece(number, index), MUCH[: 2 * limits.MIB])
    harness.source.send(peer.Piece(staying, 5), b"piece")
    await until(lambda: bool(stays.pieces) or bool(stays.events[1:]))
    assert (stays.pieces, stays.events) == ([5], ["opened"])


async def test_h52_a_close_does_not_cover_unrequested_pieces(harness: PoolHarness) -> None:
    stays = RecordingHandler(1)
    await harness.opened(stays)
    going = [RecordingHandler(content) for content in range(2, 8)]
    numbers = [await harness.opened(goes) for goes in going]
    for goes in going:
        goes.channel.close()
    for number in numbers:
        harness.source.send(peer.Piece(number, 0), MUCH[: limits.MIB // 2])
    await until(lambda: stays.events[1:], "the end of the connection")
    assert stays.events == ["opened", ("lost", True)]


async def test_a_requested_manifest_arrives(harness: PoolHarness) -> None:
    handler = RecordingHandler()
    number = await harness.opened(handler)
    part = bytes(limits.MANIFEST_PART_BYTES)
    for offset in range(20):
        handler.channel.request_manifest(offset)
        await harness.source.wait_for(peer.AskManifest, offset + 1)
        harness.source.send(peer.ManifestBytes(number, 1 << 40, offset), part)
        await handler.has(offset + 2)
    assert handler.events == ["opened", *[("manifest", part)] * 20]
    assert harness.pool.counts["unsolicited"] == 0


# -- refusals -----------------------------------------------------------------------------------


async def test_h53_a_source_cannot_fill_the_log_with_refusals(
    harness: PoolHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    refusal = Refusal(Code.BUSY, "\x1b[2J" + "x" * 1900)
    handler = RecordingHandler()
    for _ in range(3):
        harness.pool.counts.clear()
        handler.events.clear()
        await harness.opened(handler)
        for _ in range(20):
            harness.source.send(refusal)
        # All of them must arrive before another channel is open.
        await until(lambda: harness.pool.counts["unsolicited"] >= 19)
        assert Code.BUSY in handler.events
        await harness.flushed()
        assert harness.pool.counts["unsolicited"] == 19
    lines = [record.getMessage() for record in caplog.records if "refuses" in record.getMessage()]
    assert len(lines) == 1
    assert len(lines[0]) < 400
    assert lines[0].isprintable()


async def test_a_request_cancelled_before_it_was_sent_is_never_sent(harness: PoolHarness) -> None:
    handler = RecordingHandler()
    number = await harness.opened(handler)
    handler.channel.request((1, 2, 3))
    handler.channel.cancel((2, 3))
    await harness.source.wait_for(peer.Request, 1)
    handler.channel.cancel((1,))
    await harness.source.wait_for(peer.Withdraw, 1)
    assert [command.pieces for command in harness.source.received(peer.Request)] == [[1]]
    assert harness.source.received(peer.Withdraw) == [peer.Withdraw(number, [1])]


# -- handles ------------------------------------------------------------------------------------


async def test_a_closed_channel_ignores_all_calls(harness: PoolHarness) -> None:
    handler = RecordingHandler()
    await harness.opened(handler)
    channel = handler.channel
    channel.close()
    await harness.source.wait_for(peer.Close, 1)
    channel.request((1,))
    channel.cancel((1,))
    channel.request_manifest(0)
    channel.reconnect()
    channel.close()
    await harness.flushed()
    assert channel.moved_at is None
    assert harness.source.received(peer.Request) == []
    assert harness.source.received(peer.AskManifest) == []
    assert harness.pool.counts["silent"] == 0
    assert handler.events == ["opened"]


async def test_a_close_cancels_the_report_that_no_connection_can_be_made(
    harness: PoolHarness,
) -> None:
    handler = RecordingHandler()
    harness.open(handler, NAMED[0])
    handler.channel.close()
    await turns()
    assert handler.events == []


async def test_a_second_channel_for_the_same_content_is_lost(harness: PoolHarness) -> None:
    """The source would close the first one without a message."""
    first, second = RecordingHandler(), RecordingHandler()
    await harness.opened(first)
    harness.open(second)
    await turns()
    assert (first.events, second.events) == (["opened"], [("lost", False)])
    assert len(harness.source.received(peer.Open)) == 1
