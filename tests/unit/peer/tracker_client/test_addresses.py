"""Host name of a tracker: all its addresses are tried, looked up each time beside the loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import zmq

from common.crypto.keys import new_pair
from common.errors import TransportError
from common.link import Tracker
from common.net import resolving, sockets, zap
from common.net.pump import Pump
from common.net.resolving import endpoints_of
from common.net.sockets import Serve, make_socket
from peer.tracker_client import connection as tracker_client_connection
from peer.tracker_client.connection import TrackerConnection, connected
from tests.support.peer_fakes import until

NAME = "tracker.example"


class Names:
    """A name server whose answers a test sets; it can be kept waiting."""

    def __init__(self) -> None:
        self.addresses: list[str] | OSError = []
        self.asked = 0
        self.answers = threading.Event()
        self.answers.set()

    def getaddrinfo(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.asked += 1
        self.answers.wait(30.0)
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return [(0, 0, 0, "", (address, 0)) for address in self.addresses]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    made = Names()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    yield made
    made.answers.set()


class Stage:
    """Trackers and impostors at addresses of this machine, all at one port."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.guard = zap.ZapHandler(self.context)
        self.guard.guard("d", lambda *_: zap.Admission.ADMIT)
        self.pair = new_pair()
        self.port = 0
        self.pumps: list[Pump] = []
        self.silent: list[socket.socket] = []

    def serve(self, address: str, *, impostor: bool = False) -> None:
        """A tracker there, or what holds another key."""
        role = Serve(new_pair() if impostor else self.pair, "d")
        router = make_socket(self.context, zmq.ROUTER, role, message_bytes_max=-1)
        host = f"[{address}]" if ":" in address else address
        bound = sockets.bind(router, f"tcp://{host}:{self.port}")
        self.port = int(bound.rpartition(":")[2])
        self.pumps.append(Pump(router, lambda _: None))

    def keep_silent(self, address: str) -> None:
        """A port there that takes connections and never says a word."""
        made = socket.create_server((address, self.port))
        self.port = made.getsockname()[1]
        self.silent.append(made)

    async def connected(self, timeout_s: float = 5.0) -> str:
        """The address by which the tracker was found."""
        where = Tracker(f"tcp://{NAME}:{self.port}", self.pair.public)
        pair = new_pair()

        def make(endpoint: str) -> TrackerConnection:
            return TrackerConnection(
                self.context, pair, lambda _: None, lambda _: None, where, endpoint
            )

        connection = await connected(make, where, timeout_s)
        connection.close()
        return connection.endpoint.removeprefix("tcp://").rpartition(":")[0]

    def close(self) -> None:
        for pump in self.pumps:
            pump.close()
        for one in self.silent:
            one.close()
        self.guard.close()
        self.context.destroy(linger=0)


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.mark.parametrize("others", [1, 4])
async def test_f90_the_one_address_that_answers_is_found(
    names: Names, stage: Stage, others: int
) -> None:
    names.addresses = [*(f"127.0.0.{n}" for n in range(2, 2 + others)), "127.0.0.1"]
    stage.serve("127.0.0.1")
    assert await stage.connected() == "127.0.0.1"


async def test_f90_of_an_ipv6_and_an_ipv4_address_either_may_answer(
    names: Names, stage: Stage
) -> None:
    for there, order in (("127.0.0.1", ["::1", "127.0.0.1"]), ("::1", ["127.0.0.1", "::1"])):
        stage.port = 0
        names.addresses = order
        try:
            stage.serve(there)
        except Exception as error:
            pytest.skip(f"no {there} on this machine: {error}")
        assert (await stage.connected()).strip("[]") == there


async def test_f90_a_silent_address_delays_the_others_only_briefly(
    names: Names, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    names.addresses = ["127.0.0.2", "127.0.0.1"]
    monkeypatch.setattr(tracker_client_connection, "STAGGER_S", 0.01)
    stage.serve("127.0.0.1")
    stage.keep_silent("127.0.0.2")
    assert await stage.connected() == "127.0.0.1"


async def test_an_impostor_at_one_address_does_not_hide_the_tracker_at_another(
    names: Names, stage: Stage
) -> None:
    names.addresses = ["127.0.0.2", "127.0.0.1"]
    stage.serve("127.0.0.2", impostor=True)
    stage.serve("127.0.0.1")
    assert await stage.connected() == "127.0.0.1"


async def test_of_several_addresses_the_best_reason_is_reported(names: Names, stage: Stage) -> None:
    names.addresses = ["127.0.0.3", "127.0.0.2", "127.0.0.4"]
    stage.serve("127.0.0.2", impostor=True)
    with pytest.raises(TransportError, match="is not this tracker"):
        await stage.connected()
    names.addresses = ["127.0.0.3", "127.0.0.4"]
    with pytest.raises(TransportError, match="no server answers there"):
        await stage.connected()


@pytest.mark.parametrize("found", ["127.0.0.1", "::1"])
async def test_f90_localhost_is_both_loopback_addresses(names: Names, found: str) -> None:
    names.addresses = [found]
    for host in ("localhost", "LOCALHOST", "tracker.localhost"):
        endpoints = await endpoints_of(f"tcp://{host}:5000")
        assert endpoints[0] in ("tcp://127.0.0.1:5000", "tcp://[::1]:5000")
        assert found in endpoints[0]
        assert sorted(endpoints) == ["tcp://127.0.0.1:5000", "tcp://[::1]:5000"]


async def test_f90_a_name_is_looked_up_anew_each_time(names: Names, stage: Stage) -> None:
    stage.serve("127.0.0.1")
    names.addresses = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    with pytest.raises(TransportError, match=f"cannot look up {NAME}: Temporary failure"):
        await stage.connected()
    names.addresses = ["127.0.0.1"]
    assert await stage.connected() == "127.0.0.1"


async def test_f90_a_name_server_that_does_not_answer_holds_up_nothing(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.addresses = ["127.0.0.1"]
    names.answers.clear()
    monkeypatch.setattr(resolving, "LOOKUP_S", 0.02)
    for _ in range(3):
        with pytest.raises(TransportError, match="the name server does not answer"):
            await endpoints_of(f"tcp://{NAME}:5000")
    assert names.asked == 1, "one thread waits, however often it is asked for"
    names.answers.set()
    with contextlib.suppress(TransportError):
        await endpoints_of(f"tcp://{NAME}:5000")
    await until(lambda: not resolving._lookups)
    monkeypatch.setattr(resolving, "LOOKUP_S", 5.0)
    assert await endpoints_of(f"tcp://{NAME}:5000") == ["tcp://127.0.0.1:5000"]


@pytest.mark.parametrize(
    "endpoint", ["tcp://127.0.0.1:5000", "tcp://[::1]:5000", "ipc:///tmp/t.sock"]
)
async def test_an_address_is_looked_up_nowhere(names: Names, endpoint: str) -> None:
    assert await endpoints_of(endpoint) == [endpoint]
    assert not names.asked


async def test_a_port_that_accepts_and_stays_silent_does_not_answer(
    names: Names, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    names.addresses = ["127.0.0.1"]
    monkeypatch.setattr(
        tracker_client_connection, "TO_TRACKER", replace(sockets.TO_TRACKER, handshake=100)
    )
    stage.keep_silent("127.0.0.1")
    with pytest.raises(TransportError, match="does not answer"):
        await stage.connected()


async def test_a_port_that_hangs_up_is_no_silent_one(names: Names, stage: Stage) -> None:
    names.addresses = ["127.0.0.1"]

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    stage.port = server.sockets[0].getsockname()[1]
    with pytest.raises(TransportError, match="or it dropped the connection"):
        await stage.connected()
    server.close()
