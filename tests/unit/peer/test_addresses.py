"""Listening address of a peer, and its announcement."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest

from common.errors import ConfigError, TransportError
from common.link import check_source
from common.messages import control
from peer.address_changes import on_the_way
from peer.addresses import announce_endpoint, resolve_host
from peer.cli.up_options import AlreadyRuns, check_same

HOSTS = {
    "peer.example": ["192.0.2.8", "2001:db8::8"],
    "six.example": ["fe80::8%eth0", "2001:db8::8"],
    "near.example": ["fe80::8%eth0"],
}


@pytest.fixture(autouse=True)
def name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Knows `HOSTS` and nothing else."""

    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in HOSTS:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, 0, 0, "", (address, 0)) for address in HOSTS[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])


@pytest.mark.parametrize(
    ("endpoint", "found"),
    [
        ("tcp://peer.example:5100", "tcp://192.0.2.8:5100"),
        ("tcp://peer.example:*", "tcp://192.0.2.8:*"),
        ("tcp://six.example:0", "tcp://[2001:db8::8]:0"),
        ("tcp://192.0.2.1:5100", "tcp://192.0.2.1:5100"),
        ("tcp://[::1]:5100", "tcp://[::1]:5100"),
        ("tcp://*:0", "tcp://*:0"),
        ("tcp://eth0:0", "tcp://eth0:0"),
        ("ipc:///tmp/p.sock", "ipc:///tmp/p.sock"),
    ],
)
def test_a_name_to_listen_at_is_looked_up_once(endpoint: str, found: str) -> None:
    assert resolve_host(endpoint) == found


@pytest.mark.parametrize("host", ["nowhere.example", "near.example"])
def test_a_name_without_an_address_is_refused_with_a_hint(host: str) -> None:
    with pytest.raises(ConfigError, match=f"cannot listen at tcp://{host}:5100: {host}") as caught:
        resolve_host(f"tcp://{host}:5100")
    assert caught.value.hint is not None
    assert "--listen" in caught.value.hint


def test_a_peer_that_runs_under_the_name_that_is_asked_for_is_the_one() -> None:
    running = control.StatusIs(None, True, "", "tcp://192.0.2.8:5100", "", 0)
    check_same(running, {"listen": "tcp://peer.example:5100"})
    for other in ("tcp://peer.example:5101", "tcp://six.example:5100", "tcp://nowhere.example:0"):
        with pytest.raises(AlreadyRuns):
            check_same(running, {"listen": other})


@pytest.mark.parametrize(
    ("listening", "told"),
    [
        ("tcp://0.0.0.0:5100", "tcp://*:5100"),
        ("tcp://[::]:5100", "tcp://*:5100"),
        ("tcp://192.0.2.8:5100", "tcp://192.0.2.8:5100"),
        ("ipc:///tmp/p.sock", "ipc:///tmp/p.sock"),
    ],
)
def test_for_every_address_the_tracker_fills_in_the_one_it_sees(listening: str, told: str) -> None:
    assert announce_endpoint(listening) == told


def test_the_default_address_faces_the_tracker() -> None:
    def way(*endpoints: str, home: str = "/h") -> str:
        return asyncio.run(on_the_way(Path(home), endpoints))

    with pytest.raises(TransportError, match="cannot look up nowhere"):
        way("tcp://nowhere.example:5000")
    found = way("tcp://127.0.0.1:5000")
    assert found == "tcp://127.0.0.1:0"
    assert check_source(found.replace(":0", ":1")) == "tcp://127.0.0.1:1"
    assert way("tcp://nowhere.example:5000", "tcp://127.0.0.1:5000") == "tcp://127.0.0.1:0"
    assert way("ipc:///t.sock") == "ipc:///h/pieces.sock"
    with pytest.raises(ConfigError, match="too long"):
        way("ipc:///t.sock", home="/" + "h" * 100)
