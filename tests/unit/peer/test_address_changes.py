"""Listening and announced addresses of a peer while its network changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.errors import CannotListen, ConfigError, NoSuchAddress, TransportError
from common.ids import DeviceKey
from common.link import Tracker, is_address
from common.messages import tracker
from peer import address_changes
from peer.address_changes import AddressWatch

TRACKER = Tracker("tcp://tracker.example:5000", DeviceKey(bytes(32)))


class Network:
    """The addresses of this machine and of names, as they are now; and what listens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.facing: str | None = None
        self.names: dict[str, str] = {}
        self.taken: set[str] = set()
        self.endpoint = ""
        self.reached: str | None = None
        self.moves: list[str] = []
        self.now = 0.0
        self.asked: list[str] = []
        monkeypatch.setattr(address_changes, "on_the_way", self.on_the_way)
        monkeypatch.setattr(address_changes, "endpoints_of", self.endpoints_of)
        monkeypatch.setattr(address_changes, "monotonic", lambda: self.now)

    async def on_the_way(self, home: Path, endpoints: list[str]) -> str:
        if self.facing is None:
            raise TransportError(f"no route to the tracker at {endpoints[0]}")
        return f"tcp://{self.facing}:0"

    async def endpoints_of(self, endpoint: str) -> list[str]:
        host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
        if is_address(host):
            return [endpoint]
        self.asked.append(host)
        if host not in self.names:
            raise TransportError(f"cannot look up {host}")
        return [f"tcp://{self.names[host]}:{port}"]

    def move(self, listen: str) -> None:
        if listen in self.taken:
            raise CannotListen(f"cannot listen at {listen}: Address already in use")
        host, _, port = listen.rpartition(":")
        if host == "tcp://10.9.9.9":
            raise NoSuchAddress(f"cannot listen at {listen}: Cannot assign requested address")
        host = host.replace("*", "0.0.0.0")
        self.endpoint = f"{host}:{port if port not in ('0', '*') else 40_000 + len(self.moves)}"
        self.moves.append(listen)

    def peer(self, listen: str | None = None, advertise: str | None = None) -> AddressWatch:
        return AddressWatch(Path("/h"), listen, advertise, [TRACKER], self, lambda: self.reached)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    return Network(monkeypatch)


async def test_without_a_network_it_waits_for_one(network: Network) -> None:
    peer = network.peer()
    await peer.start()
    assert (peer.announced, network.endpoint) == (None, "")
    assert peer.last_error == "no route to the tracker at tcp://tracker.example:5000"
    network.facing = "192.0.2.8"
    assert await peer.refresh() == "tcp://192.0.2.8:40000"
    assert peer.last_error is None


async def test_it_moves_when_the_address_changes_and_only_then(network: Network) -> None:
    peer = network.peer()
    network.facing = "192.0.2.8"
    await peer.start()
    for _ in range(3):
        assert await peer.refresh() == "tcp://192.0.2.8:40000"
    assert len(network.moves) == 1
    network.facing = "192.0.2.9"
    assert await peer.refresh() == "tcp://192.0.2.9:40000", "at the port that it had"
    network.facing = None
    assert await peer.refresh() == "tcp://192.0.2.9:40000", "there is nothing better"
    assert peer.last_error is not None
    network.facing = "192.0.2.7"
    network.taken.add("tcp://192.0.2.7:40000")
    assert await peer.refresh() == "tcp://192.0.2.7:40002", "at another port if need be"


async def test_a_name_to_listen_at_is_looked_up_once_a_minute(network: Network) -> None:
    peer = network.peer("tcp://peer.example:5100")
    network.names["peer.example"] = "192.0.2.8"
    await peer.start()
    network.names["peer.example"] = "192.0.2.9"
    assert await peer.refresh() == "tcp://192.0.2.8:5100"
    network.now += 61
    assert await peer.refresh() == "tcp://192.0.2.9:5100"
    network.now += 61
    network.names.clear()
    assert await peer.refresh() == "tcp://192.0.2.9:5100", "a lost name server changes nothing"
    assert network.asked == ["peer.example"] * 3


async def test_an_address_that_is_not_there_yet_is_waited_for(network: Network) -> None:
    peer = network.peer("tcp://10.9.9.9:5100")
    await peer.start()
    assert peer.announced is None
    assert "Cannot assign" in str(peer.last_error)


@pytest.mark.parametrize("error", [CannotListen("in use"), ConfigError("no such name")])
async def test_permanent_faults_are_raised_at_the_start(network: Network, error: Exception) -> None:
    def move(listen: str) -> None:
        raise error

    network.facing = "192.0.2.8"
    network.move = move  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        await network.peer().start()


async def test_the_advertised_host_is_announced_with_the_bound_port(network: Network) -> None:
    async def told(listen: str | None, advertise: str) -> Any:
        peer = network.peer(listen, advertise)
        await peer.start()
        return peer.announced

    network.names["me.example"] = "198.51.100.7"
    assert await told(None, "198.51.100.1") == "tcp://198.51.100.1:40000"
    assert network.moves == ["tcp://*:0"], "without --listen, at all addresses"
    assert await told("tcp://192.0.2.8:5100", "2001:db8::1") == "tcp://[2001:db8::1]:5100"
    assert await told("tcp://192.0.2.8:5100", "me.example") == "tcp://198.51.100.7:5100"


@pytest.mark.parametrize(
    ("listen", "networked", "seen_at", "advised"),
    [
        ("tcp://127.0.0.1:5100", True, "127.0.0.1", True),
        ("tcp://127.0.0.1:5100", False, "127.0.0.1", False),
        ("tcp://[::1]:5100", True, "::1", True),
        ("tcp://192.0.2.8:5100", True, "127.0.0.1", False),
        ("tcp://0.0.0.0:5100", True, "127.0.0.1", True),
        ("tcp://0.0.0.0:5100", True, "192.0.2.8", False),
        ("ipc:///run/peer", False, "127.0.0.1", True),
        ("ipc:///run/peer", False, "", False),
        ("ipc:///run/peer", False, "no address", False),
    ],
)
async def test_an_address_that_others_cannot_reach_is_reported(
    network: Network, listen: str, networked: bool, seen_at: str, advised: bool
) -> None:
    peer = network.peer(listen)
    await peer.start()
    assert peer.advice is None
    welcome = tracker.Welcome(
        b"t" * 16, [b"k" * 32], "tcp://*:1", 1, None, b"i" * 16, b"n" * 32, seen_at, networked
    )
    network.reached = "tcp://127.0.0.1:5000" if is_address(seen_at) else "ipc:///run/tracker"
    peer.link_up(welcome)
    await peer.refresh()
    assert (peer.advice is not None) == advised
    peer.close()
