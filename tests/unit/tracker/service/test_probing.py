"""Reachability test: targets, callers and limits."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import zmq

from common import limits
from common.crypto.keys import KeyPair, new_pair
from common.errors import Refused
from common.ids import DeviceKey, UserId
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import sockets, zap
from common.net.pump import Pump
from common.net.sockets import Serve, make_socket
from tests.support.tracker_harness import TrackerHarness
from tracker.core import commands
from tracker.core.context import Caller, ProbeDevice
from tracker.service.probing import Prober


@pytest.mark.parametrize(
    ("seen_at", "endpoint", "tried"),
    [
        ("192.0.2.9", "tcp://192.0.2.9:5100", True),
        ("192.0.2.9", "tcp://192.0.2.10:5100", True),  # another address, as `--advertise` gives
        ("192.0.2.9", "tcp://127.0.0.1:22", False),
        ("192.0.2.9", "tcp://127.9.9.9:22", False),
        ("192.0.2.9", "tcp://[::1]:22", False),
        ("192.0.2.9", "tcp://[::ffff:127.0.0.1]:22", False),
        ("192.0.2.9", "tcp://169.254.169.254:80", False),
        ("2001:db8::9", "tcp://[fe80::1]:80", False),
        ("127.0.0.1", "tcp://127.0.0.1:5100", True),
        ("::1", "tcp://127.0.0.1:5100", True),
    ],
)
def test_h91_the_tracker_probes_only_the_announced_endpoint_and_not_itself(
    harness: TrackerHarness, seen_at: str, endpoint: str, tried: bool
) -> None:
    alice = harness.user("alice")
    alice.comes(endpoint)
    caller = Caller(alice.key, seen_at, b"request!")
    decision = commands.decide(harness.context, caller, tracker.ProbeMe(), harness.now)
    if tried:
        assert decision.deferred == ProbeDevice(UserId("alice"), alice.key, endpoint)
    else:
        assert decision.reply == tracker.Probed(endpoint, False)


def test_h91_an_offline_device_is_not_probed(harness: TrackerHarness) -> None:
    alice, stranger = harness.user("alice"), harness.device("stranger")
    for device, code in ((alice, Code.USAGE), (stranger, Code.NOT_LOGGED_IN)):
        caller = Caller(device.key, "192.0.2.9", b"request!")
        reply = commands.decide(harness.context, caller, tracker.ProbeMe(), harness.now).reply
        assert isinstance(reply, Refusal)
        assert reply.code is code


def test_a_device_learns_the_address_that_it_is_seen_at(harness: TrackerHarness) -> None:
    for networked in (False, True):
        harness.context.identity = dataclasses.replace(
            harness.context.identity, networked=networked
        )
        caller = Caller(harness.device("new").key, "192.0.2.9", b"request!")
        reply = commands.decide(harness.context, caller, tracker.Hello(), harness.now).reply
        assert isinstance(reply, tracker.Welcome)
        assert (reply.seen_at, reply.networked) == ("192.0.2.9", networked)


class Device:
    """Kinds of listeners at an announced endpoint."""

    def __init__(self, context: zmq.Context[Any], pair: KeyPair, admitted: set[DeviceKey]) -> None:
        self.guard = zap.ZapHandler(context)
        self.guard.guard(
            "d", lambda key, _: zap.Admission.ADMIT if key in admitted else zap.Admission.RETRY
        )
        router = make_socket(context, zmq.ROUTER, Serve(pair, "d"), message_bytes_max=-1)
        self.endpoint = sockets.bind(router, "tcp://127.0.0.1:0")
        self.pump = Pump(router, lambda _: None)

    def close(self) -> None:
        self.pump.close()
        self.guard.close()


@pytest.fixture
def own() -> KeyPair:
    return new_pair()


@pytest.fixture
async def prober(own: KeyPair) -> AsyncIterator[Prober]:
    context: zmq.Context[Any] = zmq.Context()
    yield Prober(context, own)
    context.destroy(linger=0)


@pytest.fixture
async def there() -> AsyncIterator[zmq.Context[Any]]:
    there: zmq.Context[Any] = zmq.Context()
    yield there
    there.destroy(linger=0)


async def test_only_a_handshake_with_the_device_key_counts(
    monkeypatch: pytest.MonkeyPatch, prober: Prober, there: zmq.Context[Any], own: KeyPair
) -> None:
    monkeypatch.setattr(limits, "PROBE_S", 0.3)
    pair = new_pair()
    device = Device(there, pair, {own.public})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(limits, "PROBE_S", 30.0)
        assert await prober.probe(ProbeDevice(UserId("a"), pair.public, device.endpoint))
        monkeypatch.setattr(limits, "PROBE_S", 0.3)
        for user, key, endpoint in (
            ("b", new_pair().public, device.endpoint),
            ("c", pair.public, f"tcp://127.0.0.1:{port}"),
            ("d", pair.public, "tcp://127.0.0.1:1"),
        ):
            order = ProbeDevice(UserId(user), key, endpoint)
            began = asyncio.get_running_loop().time()
            assert not await prober.probe(order)
            took = asyncio.get_running_loop().time() - began
            assert took >= 0.29, "an open port and a closed one are told after the same time"
    device.close()


async def test_h91_a_user_has_a_few_tests_a_minute(
    monkeypatch: pytest.MonkeyPatch, prober: Prober
) -> None:
    monkeypatch.setattr(limits, "PROBE_S", 0.01)
    keys = [new_pair().public for _ in range(20)]
    told, codes = [], set()
    for key in keys:  # many devices of one user are no more than one
        try:
            order = ProbeDevice(UserId("mallory"), key, "tcp://127.0.0.1:1")
            told.append(await prober.probe(order))
        except Refused as error:
            codes.add(error.code)
    assert codes == {Code.SLOW_DOWN}
    assert len(told) <= limits.PROBE_BURST + 1
    assert not await prober.probe(ProbeDevice(UserId("bob"), keys[0], "tcp://127.0.0.1:1"))
    monkeypatch.setattr(limits, "PROBES_MAX", 0)
    with pytest.raises(Refused) as caught:
        await prober.probe(ProbeDevice(UserId("carol"), keys[0], "tcp://127.0.0.1:1"))
    assert caught.value.code is Code.BUSY
