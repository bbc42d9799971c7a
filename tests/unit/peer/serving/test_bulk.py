"""Bulk connections between a `PieceServer` and a `ConnectionPool`: set-up, use and end."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any

import pytest
import zmq
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common import limits
from common.crypto import sealed_stream
from common.errors import CannotListen
from common.host.clock import monotonic
from common.ids import ContentId
from common.messages import peer
from common.net import sockets
from common.net.codec import SIGNATURE, encode
from common.net.connection_limits import MESSAGES, ConnectionLimiter
from common.net.pump import Sent
from common.net.sockets import TokenClient, make_socket
from peer.fetching import bulk as fetching_bulk
from peer.native import library
from peer.serving import bulk as serving_bulk
from peer.serving.bulk import BulkSender
from peer.swarm.serving.events import RequesterId, Send
from tests.support.data_paths import module_on_both_paths
from tests.support.peer_fakes import turns, until
from tests.support.serving_harness import (
    CONTENT,
    COUNT,
    DATA,
    FILMS,
    LENGTH,
    RecordingHandler,
    ServingHarness,
    python_sealer,
)

ONE, OTHER = RequesterId(b"\x01" + b"a" * 16), RequesterId(b"\x01" + b"b" * 16)


pytestmark = module_on_both_paths


@pytest.fixture(autouse=True)
def bulk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use bulk connections on any processor."""
    monkeypatch.setattr(ServingHarness, "bulk", True)
    # What is sent is looked at, and forged, in Python (tests/unit/peer/native/test_serving.py has
    # the sending end of the compiled data path).
    monkeypatch.setattr(BulkSender, "_new_sealer", python_sealer)
    for module in ("peer.serving.bulk", "peer.fetching.pool"):
        monkeypatch.setattr(f"{module}.aes_is_fast", lambda: True)


@pytest.fixture
async def harness() -> AsyncIterator[ServingHarness]:
    with closing(ServingHarness()) as harness:
        yield harness


def sent_by_bulk(harness: ServingHarness) -> int:
    return harness.piece_server._socket.bulk._sent


def is_up(harness: ServingHarness) -> bool:
    return any(line.routing_id for line in harness.piece_server._socket.bulk._channels.values())


async def in_bulk(harness: ServingHarness) -> RecordingHandler:
    """Open a channel and wait for its bulk connection."""
    harness.offer()
    handler = await harness.open()
    await until(lambda: is_up(harness))
    return handler


async def fetch(harness: ServingHarness, handler: RecordingHandler) -> None:
    handler.pieces.clear()
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: len(handler.pieces) == COUNT)
    assert b"".join(handler.pieces[at] for at in range(COUNT)) == DATA


async def test_pieces_use_a_bulk_connection_once_it_is_up(harness: ServingHarness) -> None:
    handler = await in_bulk(harness)
    await fetch(harness, handler)
    assert sent_by_bulk(harness) == COUNT == harness.piece_server.counts["pieces"]


async def test_adjacent_pieces_go_to_a_fast_client_in_one_message(harness: ServingHarness) -> None:
    handler = await in_bulk(harness)
    ((requester, line),) = harness.piece_server._socket.bulk._channels.items()
    for room, messages in ((0, COUNT), (COUNT * LENGTH, 1), (0, COUNT)):
        handler.pieces.clear()
        before = line.sealer._number
        harness.piece_server._core.run_bytes = lambda _, room=room: room
        harness.piece_server._read([Send(requester, CONTENT, at) for at in range(COUNT)])
        await until(lambda: len(handler.pieces) == COUNT)
        assert b"".join(handler.pieces[at] for at in range(COUNT)) == DATA
        assert line.sealer._number - before == messages
    assert sent_by_bulk(harness) == 3 * COUNT


@pytest.mark.parametrize("there", [True, False])
async def test_a_piece_goes_to_a_slow_client_in_several_frames(
    harness: ServingHarness, there: bool
) -> None:
    """Heartbeats pass between frames: a slow piece in one frame would end each connection."""
    harness.piece_server._core.frame_bytes = lambda _: LENGTH // 4  # type: ignore[method-assign]
    harness.piece_server._core.run_bytes = lambda _: 0
    handler = await in_bulk(harness)
    socket = harness.piece_server._socket
    pump = socket.bulk._pump if there else socket._pump
    if not there:
        harness.piece_server._socket.bulk._channels.clear()
    counts: list[int] = []
    send = pump.send

    def spy(frames: Any, *, copy: bool = True) -> Any:
        if len(frames) > 4:  # a notice that a piece is on its way has no data
            counts.append(len(frames))
        return send(frames, copy=copy)

    pump.send = spy  # type: ignore[method-assign]
    await fetch(harness, handler)
    last = 1  # it has only a few bytes
    whole = 5 if there else 4  # the tag makes sealed data longer
    assert sorted(count - 4 for count in counts) == sorted([last, *[whole] * (COUNT - 1)])


async def test_pieces_are_not_readable_on_the_way(harness: ServingHarness) -> None:
    """Inspect the frames that are passed to ZeroMQ."""
    handler = await in_bulk(harness)
    wire: list[bytes] = []
    pump = harness.piece_server._socket.bulk._pump
    send = pump.send

    def spy(frames: Any, *, copy: bool = True) -> Any:
        wire.extend(bytes(frame) for frame in frames)
        return send(frames, copy=copy)

    pump.send = spy  # type: ignore[method-assign]
    await fetch(harness, handler)
    passed = b"".join(wire)
    assert len(passed) > len(DATA)
    assert all(DATA[at : at + 16] not in passed for at in range(0, len(DATA) - 16, 1000))
    assert encode(peer.Pieces(0, 1, 1))[:7] not in passed


async def test_a_processor_without_aes_uses_the_encrypted_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("peer.fetching.pool.aes_is_fast", lambda: False)
    with closing(ServingHarness()) as harness:
        harness.offer()
        await fetch(harness, await harness.open())
        assert sent_by_bulk(harness) == 0
        assert harness.piece_server._socket.bulk._channels == {}, "none was requested"


async def test_an_unreachable_bulk_port_is_no_loss(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching_bulk, "REACH_S", 0.2)
    with zmq.Context() as elsewhere, elsewhere.socket(zmq.ROUTER) as deaf:
        # Another process answers there, as behind a router that forwards one port only.
        harness.piece_server._socket.bulk.port = deaf.bind_to_random_port("tcp://127.0.0.1")
        harness.offer()
        handler = await harness.open()
        await fetch(harness, handler)
        connection = harness.pool._connections[harness.server.public]
        await until(lambda: connection._bulk is not None and connection._bulk.closed)
        await fetch(harness, handler)
    assert sent_by_bulk(harness) == 0
    assert handler.events == [("opened", None)], "the encrypted connection lives on"


async def test_a_lost_bulk_connection_is_not_made_again_at_once(harness: ServingHarness) -> None:
    """Pieces under way are lost, so the source is reconnected; then pieces use the encrypted
    connection, because the network may not pass bulk traffic."""
    handler = await in_bulk(harness)
    harness.piece_server._socket.bulk._pump.close()
    await until(lambda: ("lost", True) in handler.events)
    assert harness.pool.counts["bulk failed"] == 1
    again = await harness.open(RecordingHandler())
    await fetch(harness, again)
    assert sent_by_bulk(harness) == 0
    assert harness.pool.wants_bulk(harness.pool._connections[harness.server.public]) is False


@pytest.mark.parametrize(
    "forged",
    [
        lambda frames: [*frames[:3], bytes(frames[3][:-1]) + bytes([frames[3][-1] ^ 1])],
        lambda frames: [*frames[:2], frames[3], frames[2]],
        lambda frames: [b"MT\x02", *frames[1:]],
        lambda frames: frames[:3],
        lambda frames: [*frames, b"more"],
        lambda frames: [b""],
        lambda frames: [frames[0], bytes(8), bytes(20), bytes(20)],
    ],
    ids=["a bit", "places", "version", "too few", "too many", "nothing", "made up"],
)
async def test_forged_messages_are_rejected(harness: ServingHarness, forged: Any) -> None:
    handler = await in_bulk(harness)
    pump = harness.piece_server._socket.bulk._pump
    send = pump.send
    pump.send = (
        lambda frames, *, copy=True: send(  # type: ignore[method-assign]
            [frames[0], *forged(list(frames[1:]))], copy=True
        )
    )
    handler.channel.request((3,))
    await until(lambda: ("lost", True) in handler.events)
    assert handler.pieces == {}
    await fetch(harness, await harness.open(RecordingHandler()))


async def test_a_repeated_message_is_rejected(harness: ServingHarness) -> None:
    handler = await in_bulk(harness)
    pump = harness.piece_server._socket.bulk._pump
    send = pump.send

    def twice(frames: Any, *, copy: bool = True) -> Any:
        send(frames, copy=True)
        return send(frames, copy=True)

    pump.send = twice  # type: ignore[method-assign]
    handler.channel.request((3,))
    await until(lambda: ("lost", True) in handler.events)


@pytest.mark.parametrize("which", [1, 3])
async def test_h96_a_missing_message_ends_a_bulk_connection_at_the_next(
    harness: ServingHarness, which: int
) -> None:
    harness.piece_server._core.run_bytes = lambda _: 0
    handler = await in_bulk(harness)
    pump = harness.piece_server._socket.bulk._pump
    send = pump.send
    count = 0

    def lossy(frames: Any, *, copy: bool = True) -> Any:
        nonlocal count
        count += 1
        return Sent.YES if count == which + 1 else send(frames, copy=True)

    pump.send = lossy  # type: ignore[method-assign]
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: ("lost", True) in handler.events)
    assert sorted(handler.pieces) == list(range(which))
    assert harness.pool.counts["bulk failed"] == 1
    await fetch(harness, await harness.open(RecordingHandler()))


async def test_h96_a_silent_source_is_reconnected_without_a_bulk_connection(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No message follows the missing one, so the client that waits reconnects."""
    handler = await in_bulk(harness)
    other = await harness.open(RecordingHandler(content=ContentId(bytes(32))))
    device = harness.server.public
    former = harness.pool._connections[device]
    harness.piece_server._socket.bulk._pump.send = lambda *_, **__: Sent.YES  # type: ignore[method-assign]
    handler.channel.request((3,))
    await until(lambda: former.channels[0].pieces_due)
    monkeypatch.setattr(fetching_bulk, "SILENT_S", -1.0)
    handler.channel.reconnect()
    assert handler.events == [("opened", None)], "the caller gets no callback"
    assert other.events[-1][0] in ("lost", "refused")
    assert device not in harness.pool._connections
    handler.channel.reconnect()  # no effect on a closed channel
    await fetch(harness, await harness.open(RecordingHandler()))
    assert harness.pool._connections[device] is not former
    assert sent_by_bulk(harness) == 1, "the lost piece"
    assert harness.pool.counts["silent"] == 1


async def test_an_unsolicited_bulk_offer_is_ignored(harness: ServingHarness) -> None:
    handler = await in_bulk(harness)
    connection = harness.pool._connections[harness.server.public]
    first = connection._bulk
    connection._on_bulk_offer(peer.Bulk(9, bytes(32), bytes(32)))
    assert connection._bulk is first
    assert harness.pool.counts["unsolicited"] == 1
    await fetch(harness, handler)


async def test_a_dropped_client_gets_a_new_bulk_connection(harness: ServingHarness) -> None:
    """The piece server drops a client that seems to receive nothing."""
    handler = await in_bulk(harness)
    await fetch(harness, handler)
    former = harness.pool._connections[harness.server.public]._bulk
    [client] = harness.piece_server._clients
    harness.piece_server._drop(client.id)
    await until(lambda: handler.events[1:])
    again = await harness.open(RecordingHandler())
    await until(lambda: is_up(harness))
    before = sent_by_bulk(harness)
    await fetch(harness, again)
    assert sent_by_bulk(harness) == before + COUNT
    assert former is not None
    await until(lambda: former.closed)


async def test_a_key_is_not_used_beyond_its_limit(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SEALED_BYTES_MAX", 3 * limits.PIECE_LENGTH_MIN)
    handler = await in_bulk(harness)
    for index in range(COUNT):  # one at a time, so that each is a message
        handler.channel.request((index,))
        await until(lambda index=index: index in handler.pieces)
    assert sent_by_bulk(harness) == 3


async def test_a_closed_connection_closes_its_bulk_connection(harness: ServingHarness) -> None:
    handler = await in_bulk(harness)
    bulk = harness.pool._connections[harness.server.public]._bulk
    handler.channel.close()
    await until(lambda: not harness.pool._connections)
    assert bulk is not None
    await until(lambda: bulk.closed)


async def test_a_close_that_overtakes_pieces_is_no_misbehaviour(harness: ServingHarness) -> None:
    """A message on the encrypted connection overtakes pieces on the bulk connection."""
    handler = await in_bulk(harness)
    connection = harness.pool._connections[harness.server.public]
    pump = harness.piece_server._socket.bulk._pump
    held: list[Any] = []
    send = pump.send

    def hold(frames: Any, *, copy: bool = True) -> Sent:
        held.append(frames)
        return Sent.YES

    pump.send = hold  # type: ignore[method-assign]
    handler.channel.request(tuple(range(COUNT)))
    await until(lambda: held)
    connection._unsolicited._left = 1  # as after many small faults
    harness.inventory.remove(CONTENT)
    await until(lambda: handler.events[1:])
    for frames in held:
        send(frames, copy=True)
    await until(lambda: harness.pool.counts["unsolicited"] == len(held))
    assert not harness.pool._backoff.holds(harness.server.public, monotonic())


async def test_a_client_gone_before_the_offer_leaves_nothing_behind(
    harness: ServingHarness,
) -> None:
    harness.offer()
    await harness.open()
    [client] = harness.piece_server._clients
    bulk = harness.piece_server._socket.bulk
    harness.piece_server._remove(client.id)
    assert (bulk._channels, bulk._tokens) == ({}, {})
    ghost, *_ = harness.piece_server._clients.add(OTHER, harness.client.public)
    harness.piece_server._on_open(ghost, peer.Open(1, FILMS, CONTENT, b"good", True))
    assert (bulk._channels, bulk._tokens, len(harness.piece_server._clients)) == ({}, {}, 0)


async def test_a_bulk_connection_with_heartbeats_only_is_avoided(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = await in_bulk(harness)
    connection = harness.pool._connections[harness.server.public]
    harness.piece_server._socket.bulk._pump.send = lambda *_, **__: Sent.YES  # type: ignore[method-assign]
    handler.channel.request((3,))
    await until(lambda: connection.channels[0].pieces_due)
    assert harness.pool.wants_bulk(connection)
    monkeypatch.setattr(fetching_bulk, "SILENT_S", -1.0)
    handler.channel.close()  # too slow
    assert not harness.pool.wants_bulk(connection)


async def test_the_end_of_a_source_is_no_failure_of_bulk_connections(
    harness: ServingHarness,
) -> None:
    handler = await in_bulk(harness)
    harness.piece_server.close()
    await until(lambda: ("lost", True) in handler.events)
    assert harness.pool.counts["bulk failed"] == 0


# -- admission ----------------------------------------------------------------------------------


async def connect(harness: ServingHarness, token: bytes, message: list[bytes]) -> zmq.Socket[Any]:
    """Connect to the bulk port with ``token``, and send ``message``."""
    socket = make_socket(
        harness.contexts[1], zmq.DEALER, TokenClient(token), message_bytes_max=1 << 20
    )
    socket.connect(f"tcp://127.0.0.1:{harness.piece_server._socket.bulk.port}")
    await until(lambda: socket.poll(0, zmq.POLLOUT) or harness.guard.counts["deny"])
    if socket.poll(0, zmq.POLLOUT):
        socket.send_multipart(message)
    return socket


async def test_an_unknown_token_is_denied(harness: ServingHarness) -> None:
    offer = harness.piece_server._socket.bulk.offer(ONE)
    assert offer is not None
    for token in (b"\xff\xfe", b"zz", bytes(32).hex().encode(), offer.word[:8]):
        denied = harness.guard.counts["deny"]
        socket = await connect(harness, token, [b"x"])
        await until(lambda denied=denied: harness.guard.counts["deny"] > denied)
        socket.close(linger=0)
    assert harness.guard.counts["admit"] == 0
    assert not is_up(harness)


@pytest.mark.parametrize("user", [b"Word", b"word ", b"admin"])
async def test_a_token_under_another_user_name_is_denied(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch, user: bytes
) -> None:
    monkeypatch.setattr(sockets, "TOKEN_USER", user)
    offer = harness.piece_server._socket.bulk.offer(ONE)
    assert offer is not None
    socket = await connect(harness, offer.word.hex().encode(), [b"x"])
    await until(lambda: harness.guard.counts["deny"])
    socket.close(linger=0)
    assert harness.guard.counts["admit"] == 0


async def test_a_token_in_capitals_is_another_token(harness: ServingHarness) -> None:
    offer = harness.piece_server._socket.bulk.offer(ONE)
    assert offer is not None
    socket = await connect(harness, offer.word.hex().upper().encode(), [b"x"])
    await until(lambda: harness.guard.counts["deny"])
    socket.close(linger=0)
    assert harness.guard.counts["admit"] == 0


async def test_a_token_admits_once_and_only_a_key_gets_pieces(harness: ServingHarness) -> None:
    """A stolen token admits once and gets no piece, because the thief lacks the key."""
    bulk = harness.piece_server._socket.bulk
    offer = bulk.offer(ONE)
    assert offer is not None
    assert bulk.offer(ONE) is None
    token = offer.word.hex().encode()
    thief = await connect(harness, token, [SIGNATURE, os.urandom(16)])
    await until(lambda: harness.guard.counts["admit"] == 1)
    second = await connect(harness, token, [SIGNATURE, os.urandom(16)])
    await until(lambda: harness.guard.counts["deny"] == 1)
    await turns()
    assert not is_up(harness)
    assert bulk.send(ONE, peer.Pieces(0, 0, 1), b"data", 1) is None
    thief.close(linger=0)
    second.close(linger=0)


@pytest.mark.parametrize("said", [[b""], [SIGNATURE], [b"MT\x02", bytes(16)], [b"x"] * 30])
async def test_an_invalid_proof_is_ignored(harness: ServingHarness, said: list[bytes]) -> None:
    offer = harness.piece_server._socket.bulk.offer(ONE)
    assert offer is not None
    socket = await connect(harness, offer.word.hex().encode(), said)
    await turns()
    assert not is_up(harness)
    socket.close(linger=0)


async def test_the_token_of_a_forgotten_client_is_invalid(harness: ServingHarness) -> None:
    bulk = harness.piece_server._socket.bulk
    offer = bulk.offer(ONE)
    assert offer is not None
    bulk.forget(ONE)
    bulk.forget(OTHER)
    assert bulk._redeem(offer.word.hex().encode()) is None
    assert bulk._tokens == {} == bulk._channels


async def test_a_token_expires(harness: ServingHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_bulk, "TOKEN_S", 0.0)
    bulk = harness.piece_server._socket.bulk
    assert bulk.offer(ONE) is not None
    await until(lambda: not bulk._tokens)


async def test_an_invalid_proof_breaks_nothing(harness: ServingHarness) -> None:
    library.use(False)  # this client sends more than its proof
    handler = await in_bulk(harness)
    connection = harness.pool._connections[harness.server.public]
    assert connection._bulk is not None
    for said in ([SIGNATURE, bytes(16)], [b"x"], [b"MT\x02", bytes(16)]):
        connection._bulk._pump.send(said)
    await turns()
    assert is_up(harness)
    await fetch(harness, handler)
    assert sent_by_bulk(harness) == COUNT


# -- keys and nonces ----------------------------------------------------------------------------


async def test_h95_no_nonce_is_used_twice_with_a_key(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients retry under fresh routing ids, servers forget clients, queues are full. In all these
    cases AES-GCM never gets a pair of key and nonce twice, and its key is never the sent one."""
    library.use(False)  # this client sends more than its proof, and Python's AES is recorded
    used: list[tuple[bytes, bytes]] = []

    class Recorded:
        def __init__(self, key: bytes) -> None:
            self._key, self._cipher = key, AESGCM(key)
            self.decrypt, self.decrypt_into = self._cipher.decrypt, self._cipher.decrypt_into

        def encrypt(self, nonce: bytes, *rest: Any) -> bytes:
            used.append((self._key, nonce))
            return self._cipher.encrypt(nonce, *rest)

        def encrypt_into(self, nonce: bytes, *rest: Any) -> int:
            used.append((self._key, nonce))
            return self._cipher.encrypt_into(nonce, *rest)

    monkeypatch.setattr(sealed_stream, "AESGCM", Recorded)
    sent_keys: list[bytes] = []
    bulk = harness.piece_server._socket.bulk
    offer = bulk.offer

    def spy(requester: RequesterId, *, aegis: bool) -> peer.Bulk | None:
        if (made := offer(requester, aegis=aegis)) is not None:
            sent_keys.append(made.key)
        return made

    bulk.offer = spy  # type: ignore[method-assign]
    harness.offer()
    for attempt in range(4):
        handler = await harness.open(RecordingHandler())
        await until(lambda: is_up(harness))
        await fetch(harness, handler)
        connection = harness.pool._connections[harness.server.public]
        assert connection._bulk is not None
        for _ in range(3):  # the same proof again, under other routing ids
            name = b"\x01" + os.urandom(16)
            connection._bulk._pump.send([SIGNATURE, sealed_stream.proof(sent_keys[-1], name)])
        [(owner, line)] = bulk._channels.items()
        with monkeypatch.context() as full:
            full.setattr(bulk._pump, "send", lambda *_, **__: Sent.FULL)
            assert bulk.send(owner, peer.Pieces(0, 0, 1), DATA[:LENGTH], LENGTH) is Sent.FULL
        line.routing_id = None  # as after a short interruption
        await fetch(harness, handler)
        match attempt:
            case 0:
                harness.piece_server._drop(owner)
            case 1:
                harness.pool.on_closed(connection)
            case 2:
                handler.channel.close()
        if attempt < 3:
            await until(lambda: not harness.pool._connections)
            bulk._channels.clear()
    assert len(sent_keys) == len(set(sent_keys)) == 4
    assert len(used) > 4 * 2
    assert len(used) == len(set(used)), "a nonce was used twice with a key"
    assert not {key for key, _ in used} & set(sent_keys)


def former_proof(key: bytes, name: bytes) -> bytes:
    """Return the proof of version 0.1.0."""
    return AESGCM(key).encrypt(b"prov" + bytes(8), b"", name)


@pytest.mark.parametrize("older", ["peer.fetching.bulk", "peer.serving.bulk"])
async def test_h95_a_peer_with_the_former_proof_uses_the_encrypted_connection(
    harness: ServingHarness, monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    """One end is older: the other rejects its proof, sends no piece there, and nothing hangs."""
    monkeypatch.setattr(f"{older}.proof", former_proof)
    proofs: list[Any] = []
    on_message = harness.piece_server._socket.bulk._on_message
    harness.piece_server._socket.bulk._pump._on_message = lambda frames: (
        proofs.append(1),
        on_message(frames),
    )
    harness.offer()
    handler = await harness.open()
    await until(lambda: proofs)
    await fetch(harness, handler)
    assert not is_up(harness)
    assert sent_by_bulk(harness) == 0
    assert handler.events == [("opened", None)], "the encrypted connection lives on"


# -- listening ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "port"), [("ipc:///tmp/x", 0), ("tcp://127.0.0.1:9", None)], ids=["ipc", "off"]
)
async def test_bulk_connections_can_be_off(
    harness: ServingHarness, endpoint: str, port: int | None
) -> None:
    bulk = BulkSender(
        harness.contexts[0],
        port,
        guard=harness.guard,
        limiter=ConnectionLimiter(MESSAGES),
        on_link=lambda _: None,
        send_queue=9,
    )
    bulk.move(endpoint)
    assert bulk.offer(ONE) is None
    assert bulk.send(ONE, peer.Pieces(0, 0, 1), b"", 1) is None
    assert "none" in bulk.state
    bulk.close()


async def test_a_given_port_in_use_is_an_error(harness: ServingHarness) -> None:
    bulk = BulkSender(
        harness.contexts[0],
        harness.piece_server._socket.bulk.port,
        guard=harness.guard,
        limiter=ConnectionLimiter(MESSAGES),
        on_link=lambda _: None,
        send_queue=9,
    )
    with pytest.raises(CannotListen, match="cannot listen at tcp"):
        bulk.move(harness.piece_server.endpoint)
    bulk.close()
