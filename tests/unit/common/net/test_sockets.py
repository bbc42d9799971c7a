"""Sockets, pump, monitor and admission."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq

from common import limits
from common.crypto.keys import KeyPair, new_pair
from common.errors import ConfigError, TransportError
from common.ids import DeviceKey
from common.net import sockets, zap
from common.net.monitor import ConnectionEvent, SocketMonitor
from common.net.pump import Frames, Pump, Sent
from common.net.sockets import AT_TRACKER, TO_TRACKER, Connect, Private, Serve, make_socket
from tests.support.waiting import PATIENCE_S

DOMAIN = "test"


@asynccontextmanager
async def fresh_context() -> AsyncIterator[zmq.Context[Any]]:
    context: zmq.Context[Any] = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until the condition holds."""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


@pytest.fixture
async def context() -> AsyncIterator[zmq.Context[Any]]:
    async with fresh_context() as context:
        yield context


def router(context: zmq.Context[Any], pair: KeyPair, **options: Any) -> zmq.Socket[Any]:
    given = {"message_bytes_max": 1000} | options
    return make_socket(context, zmq.ROUTER, Serve(pair, DOMAIN), **given)


def dealer(context: zmq.Context[Any], pair: KeyPair, server: DeviceKey) -> zmq.Socket[Any]:
    return make_socket(context, zmq.DEALER, Connect(pair, server), message_bytes_max=1000)


class Server:
    """A guarded ROUTER that records received messages."""

    def __init__(self, context: zmq.Context[Any], policy: zap.Policy) -> None:
        self.guard = zap.ZapHandler(context)
        self.guard.guard(DOMAIN, policy)
        self.pair = new_pair()
        socket = router(context, self.pair)
        self.endpoint = sockets.bind(socket, "tcp://127.0.0.1:0")
        self.received: list[tuple[sockets.Sender | None, bytes]] = []
        self.clients: list[Any] = []  # a socket without a reference is closed
        self.pump = Pump(socket, self._on_message)

    def _on_message(self, frames: Frames) -> None:
        self.received.append((sockets.sender(frames), frames[-1].bytes))
        if frames[-1].bytes == b"raise":
            raise RuntimeError("a bug")

    def close(self) -> None:
        self.pump.close()
        self.guard.close()


def connect_and_send(
    context: zmq.Context[Any], server: Server, pair: KeyPair, message: bytes
) -> Any:
    client = dealer(context, pair, server.pair.public)
    client.connect(server.endpoint)
    client.send(message)
    server.clients.append(client)
    return client


async def test_the_proved_key_is_the_sender(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    pair = new_pair()
    connect_and_send(context, server, pair, b"hello")
    await until(lambda: server.received)
    who, message = server.received[0]
    assert who is not None
    assert (who.device, message) == (pair.public, b"hello")
    assert len(who.routing_id) == limits.ROUTING_ID_BYTES
    assert server.guard.counts["admit"] == 1
    server.close()


async def test_metadata_of_the_clients_own_making_is_overruled(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    pair = new_pair()
    client = dealer(context, pair, server.pair.public)
    client.setsockopt(zmq.METADATA, b"X-User-Id:" + b"00" * 32)
    with pytest.raises(zmq.ZMQError):
        client.setsockopt(zmq.METADATA, b"User-Id:" + b"00" * 32)
    client.connect(server.endpoint)
    client.send(b"hello")
    await until(lambda: server.received)
    who, _ = server.received[0]
    assert who is not None
    assert who.device == pair.public
    server.close()


async def test_messages_under_a_guessable_routing_id_are_ignored(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    client = dealer(context, new_pair(), server.pair.public)
    client.setsockopt(zmq.ROUTING_ID, b"short")
    client.connect(server.endpoint)
    client.send(b"hello")
    await until(lambda: server.received)
    assert server.received[0][0] is None
    server.close()


@pytest.mark.parametrize("answer", [zap.Admission.DENY, zap.Admission.RETRY, RuntimeError("a bug")])
async def test_only_admitted_keys_can_connect(
    context: zmq.Context[Any], answer: zap.Admission | Exception
) -> None:
    good, bad = new_pair(), new_pair()

    def policy(key: DeviceKey, address: str) -> zap.Admission:
        assert address == "127.0.0.1"
        if key == good.public:
            return zap.Admission.ADMIT
        if isinstance(answer, Exception):
            raise answer
        return answer

    server = Server(context, policy)
    connect_and_send(context, server, bad, b"bad")
    counted = {zap.Admission.DENY: "deny"}.get(answer, "retry")  # type: ignore[arg-type]
    await until(lambda: server.guard.counts[counted])
    connect_and_send(context, server, good, b"good")
    await until(lambda: server.received)
    assert [message for _, message in server.received] == [b"good"]
    assert server.guard.counts["failures"] == (
        server.guard.counts["retry"] if isinstance(answer, Exception) else 0
    )
    server.close()


async def test_a_domain_without_a_policy_admits_no_client(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    server.guard._policies.clear()
    connect_and_send(context, server, new_pair(), b"hello")
    await until(lambda: server.guard.counts["deny"])
    assert server.received == []
    server.close()


async def test_the_self_check_passes_with_a_guard_and_fails_without(
    context: zmq.Context[Any],
) -> None:
    guard = zap.ZapHandler(context)
    await zap.self_check(context, guard)
    assert guard.counts == {}
    guard.close()
    async with fresh_context() as other:
        guard = zap.ZapHandler(other)
        guard.close()  # libzmq finds no handler
        with pytest.raises(ConfigError, match="self-check"):
            await zap.self_check(other, guard, timeout_s=0.3)


async def test_a_handler_that_lets_everyone_in_fails_the_self_check(
    monkeypatch: pytest.MonkeyPatch, context: zmq.Context[Any]
) -> None:
    guard = zap.ZapHandler(context)
    monkeypatch.setattr(guard, "_decide", lambda d, a, m, c: (zap.Admission.ADMIT, c[0]))
    with pytest.raises(ConfigError, match="self-check"):
        await zap.self_check(context, guard, timeout_s=1.0)
    guard.close()


def test_a_serving_socket_needs_a_domain() -> None:
    context: zmq.Context[Any] = zmq.Context()
    with pytest.raises(ConfigError):
        make_socket(context, zmq.ROUTER, Serve(new_pair(), ""), message_bytes_max=10)
    context.destroy(linger=0)


async def test_an_exception_in_on_message_does_not_stop_the_pump(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    client = connect_and_send(context, server, new_pair(), b"raise")
    client.send(b"next")
    await until(lambda: len(server.received) == 2)
    server.close()


async def test_a_message_that_is_too_long_ends_the_connection(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    client = connect_and_send(context, server, new_pair(), b"x" * 1001)
    down: list[ConnectionEvent] = []
    monitor = SocketMonitor(client, down.append)
    await until(lambda: ConnectionEvent.DOWN in down)
    assert server.received == []
    monitor.close()
    server.close()


def pair_of(context: zmq.Context[Any], on_message: Callable[[Frames], None]) -> tuple[Pump, Any]:
    """A pump, and a plain socket at the other end."""
    name = f"inproc://{id(on_message)}"
    near = make_socket(context, zmq.PAIR, Private(), message_bytes_max=-1, send_queue=10)
    near.bind(name)
    far = context.socket(zmq.PAIR)
    far.setsockopt(zmq.RCVHWM, 10)
    far.connect(name)
    return Pump(near, on_message), far


async def test_all_messages_of_a_long_queue_are_received_in_order(
    context: zmq.Context[Any],
) -> None:
    received: list[bytes] = []
    pump, far = pair_of(context, lambda frames: received.append(frames[0].bytes))
    sent = [b"%d" % at for at in range(Pump.BATCH * 5)]
    for message in sent:
        far.send(message)
        await asyncio.sleep(0)
    await until(lambda: len(received) == len(sent))
    assert received == sent
    pump.close()


async def test_a_message_that_arrives_during_a_send_is_received(context: zmq.Context[Any]) -> None:
    """Sending takes in the wake-up of the descriptor."""
    received: list[bytes] = []
    pump, far = pair_of(context, lambda frames: received.append(frames[0].bytes))
    await asyncio.sleep(0)
    for at in range(50):
        far.send(b"%d" % at)
        pump.send([b"answer"])
        far.recv()
        await until(lambda at=at: len(received) == at + 1)
    pump.close()


async def test_a_message_that_arrives_while_another_is_answered_is_received(
    context: zmq.Context[Any],
) -> None:
    """The pump does not look at the socket for each answer: it goes on reading anyway."""
    received: list[bytes] = []

    def on_message(frames: Frames) -> None:
        received.append(frames[0].bytes)
        if len(received) < 3 * Pump.BATCH:
            far.send(b"next")
            pump.send([b"answer"])
            far.recv()

    pump, far = pair_of(context, on_message)
    await asyncio.sleep(0)
    far.send(b"first")
    await until(lambda: len(received) == 3 * Pump.BATCH)
    pump.close()


async def test_a_full_queue_and_a_closed_socket_are_distinguished(
    context: zmq.Context[Any],
) -> None:
    pump, _ = pair_of(context, lambda frames: None)
    outcomes = [pump.send([b"x", b"y"]) for _ in range(100)]
    assert outcomes[0] is Sent.YES
    assert outcomes[-1] is Sent.FULL
    pump.close()
    pump.close()
    assert pump.send([b"x"]) is Sent.GONE


async def test_a_message_to_an_absent_connection_is_gone(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    assert server.pump.send([sockets.new_routing_id(), b"x"]) is Sent.GONE
    server.close()


async def test_a_port_in_use_is_reported(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    other = router(context, new_pair())
    with pytest.raises(TransportError, match=r"127.0.0.1"):
        sockets.bind(other, server.endpoint)
    other.close(linger=0)
    server.close()


async def test_the_monitor_reports_connection_events(context: zmq.Context[Any]) -> None:
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    reported: list[ConnectionEvent] = []
    client = dealer(context, new_pair(), server.pair.public)
    monitor = SocketMonitor(client, reported.append)
    client.connect(server.endpoint)
    await until(lambda: ConnectionEvent.UP in reported)
    server.close()
    await until(lambda: ConnectionEvent.DOWN in reported)
    await until(lambda: ConnectionEvent.UNREACHABLE in reported)
    monitor.close()

    wrong: list[ConnectionEvent] = []
    server = Server(context, lambda key, address: zap.Admission.ADMIT)
    client = dealer(context, new_pair(), new_pair().public)
    monitor = SocketMonitor(client, wrong.append)
    client.connect(server.endpoint)
    await until(lambda: ConnectionEvent.FAILED in wrong or ConnectionEvent.DOWN in wrong)
    assert ConnectionEvent.UP not in wrong
    monitor.close()
    server.close()


LEFT_IN_THE_MIDDLE = """
import zmq
from common.net.sockets import Private, make_socket

here, there = zmq.Context(), zmq.Context()
server = there.socket(zmq.ROUTER)
port = server.bind_to_random_port("tcp://127.0.0.1")
client = make_socket(here, zmq.DEALER, Private(), message_bytes_max=1000)
client.setsockopt(zmq.ROUTING_ID, b"me")
monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_CONNECT_RETRIED)
client.connect(f"tcp://127.0.0.1:{port}")
monitor.recv_multipart()
client.send(b"here")
server.recv_multipart()
server.send_multipart([b"me", b"first"])
server.send_multipart([b"me", *[b"frame"] * 250])
client.recv()
server.close(linger=10_000)
there.term()
monitor.recv_multipart()
print(len(client.recv_multipart()))
here.destroy(linger=0)
"""


def test_a_client_leaving_during_a_long_message_does_not_abort_the_process() -> None:
    """libzmq handles connection events at every hundredth frame, and with
    ZMQ_IMMEDIATE it aborts the process when the connection has ended by then."""
    ran = subprocess.run(
        [sys.executable, "-c", LEFT_IN_THE_MIDDLE],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "250\n"), ran.stderr


@pytest.mark.parametrize(
    ("endpoint", "address"), [("tcp://127.0.0.1:*", "127.0.0.1"), ("ipc://{}/s", "")]
)
def test_a_connection_over_ipc_has_no_address(
    endpoint: str, address: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    context: zmq.Context[Any] = zmq.Context()
    try:
        server, client = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        server.bind(endpoint.format(tmp_path_factory.mktemp("s")))
        client.connect(server.get_string(zmq.LAST_ENDPOINT))
        client.send(b"x")
        assert server.poll(PATIENCE_S * 1000)
        assert sockets.peer_address(server.recv(copy=False)) == address
    finally:
        context.destroy(linger=0)


def test_only_the_device_sends_heartbeats_between_a_device_and_the_tracker() -> None:
    with zmq.Context() as context:
        made = [
            make_socket(context, zmq.DEALER, Private(), message_bytes_max=1, timing=timing)
            for timing in (AT_TRACKER, TO_TRACKER)
        ]
        at_tracker, to_tracker = (
            [one.getsockopt(option) for option in (zmq.HEARTBEAT_IVL, zmq.TCP_KEEPALIVE)]
            for one in made
        )
        assert (at_tracker, to_tracker) == ([0, 1], [10_000, -1])
        # A device that misses one of them is not gone.
        assert made[1].getsockopt(zmq.HEARTBEAT_TTL) > 2 * made[1].getsockopt(zmq.HEARTBEAT_IVL)
        for one in made:
            one.close()
