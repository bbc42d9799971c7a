"""Addresses in the link, for each way of binding a tracker."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import zmq

from common.errors import ConfigError
from tracker.service import addresses
from tracker.service.addresses import (
    Addresses,
    advertised_endpoint,
    advice,
    bind_both,
    is_networked,
    run_options,
)

LAN = ["192.0.2.8", "198.51.100.7", "2001:db8::8"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of this machine, which has no default route."""
    found = list(LAN)
    monkeypatch.setattr(addresses, "addresses_for_others", lambda: found)
    monkeypatch.setattr(addresses, "_routed_address", lambda: None)
    return found


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "*"])
def test_without_a_default_route_the_link_names_an_address_of_the_lan(
    machine: list[str], host: str
) -> None:
    bound = f"tcp://{host}:5000"
    assert advertised_endpoint(bound) == "tcp://192.0.2.8:5000"
    advice_given = advice(bound, "")
    assert advice_given is not None
    assert "--advertise HOST: 198.51.100.7, 2001:db8::8" in advice_given
    assert is_networked(bound, "")
    machine[1:] = []
    assert advice(bound, "") is None, "there is no choice"


def test_with_only_loopback_the_warning_names_advertise(machine: list[str]) -> None:
    machine.clear()
    assert advertised_endpoint("tcp://0.0.0.0:5000") == "tcp://127.0.0.1:5000"
    advice_given = advice("tcp://0.0.0.0:5000", "")
    assert advice_given is not None
    assert "until --advertise HOST names one" in advice_given
    assert advice("tcp://0.0.0.0:5000", "tracker.example") is None
    assert advice("tcp://127.0.0.1:5000", "") is None
    assert not is_networked("tcp://0.0.0.0:5000", "")


def test_the_address_of_a_default_route_is_no_guess(
    machine: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "_routed_address", lambda: "198.51.100.7")
    assert advertised_endpoint("tcp://0.0.0.0:5000") == "tcp://198.51.100.7:5000"
    assert advice("tcp://0.0.0.0:5000", "") is None


@pytest.mark.parametrize(
    ("typed", "host", "expected"),
    [
        ("tcp://localhost:0", "", "tcp://localhost:5000"),
        ("tcp://Tracker.Example:5000", "", "tcp://Tracker.Example:5000"),
        ("tcp://lo:0", "", "tcp://127.0.0.1:5000"),
        ("tcp://127.0.0.1:0", "", "tcp://127.0.0.1:5000"),
        ("tcp://localhost:0", "192.0.2.9", "tcp://192.0.2.9:5000"),
        ("tcp://localhost:0", "2001:db8::9", "tcp://[2001:db8::9]:5000"),
    ],
)
def test_a_host_name_stays_in_the_link_as_it_was_typed(
    typed: str, host: str, expected: str
) -> None:
    assert advertised_endpoint("tcp://127.0.0.1:5000", host, typed) == expected


@pytest.mark.parametrize(
    ("found", "bound"),
    [
        (["::1", "127.0.0.1"], "tcp://127.0.0.1:"),
        (["192.0.2.250", "127.0.0.1"], "tcp://127.0.0.1:"),
        (["127.0.0.2"], "tcp://127.0.0.2:"),
    ],
)
def test_a_host_name_is_bound_at_an_address_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, found: list[str], bound: str
) -> None:
    def getaddrinfo(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 0)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    context: zmq.Context[Any] = zmq.Context()
    try:
        both = bind_both(
            context.socket(zmq.ROUTER), context.socket(zmq.PUB), Addresses("tcp://t.example:0")
        )
        assert [one.rpartition(":")[0] + ":" for one in both] == [bound] * 2
    finally:
        context.destroy(linger=0)


def test_a_host_name_without_an_address_is_refused() -> None:
    context: zmq.Context[Any] = zmq.Context()
    try:
        with pytest.raises(ConfigError, match="cannot listen at tcp://no\\.invalid:0"):
            bind_both(
                context.socket(zmq.ROUTER), context.socket(zmq.PUB), Addresses("tcp://no.invalid:0")
            )
    finally:
        context.destroy(linger=0)


def test_run_options_bind_the_same_endpoint_again() -> None:
    where = Addresses("tcp://0.0.0.0:0", advertise="tracker.example")
    assert run_options(where, "tcp://0.0.0.0:41000") == (
        "--bind tcp://0.0.0.0:41000 --advertise tracker.example"
    )
    where = Addresses("tcp://localhost:5100", "tcp://localhost:6000")
    assert run_options(where, "tcp://127.0.0.1:5100") == (
        "--bind tcp://localhost:5100 --events tcp://localhost:6000"
    )
    assert run_options(Addresses("ipc:///a b/s"), "ipc:///a b/s") == "--bind 'ipc:///a b/s'"
