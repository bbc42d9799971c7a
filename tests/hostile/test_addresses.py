"""Addresses to which a member can make others connect."""

from __future__ import annotations

import contextlib
import socket

import pytest

from common.ids import DeviceKey
from common.messages import tracker
from common.messages.base import Source
from common.messages.refusals import Code
from tests.support.attackers import AttackSwarm, refusal_of
from tests.support.descriptors import readable
from tests.support.fake_tracker import TOPIC, FakeTracker, parts, row_of
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import manifest_of
from tests.support.waiting import PATIENCE_S, wait_for

WIDE_DIGITS = str.maketrans("0123456789", "".join(chr(0xFF10 + digit) for digit in range(10)))


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://slow.attacker.example:5000",
        "tcp://localhost:5000",
        "tcp://127.0.0.1:" + "5000".translate(WIDE_DIGITS),
        "tcp://[fe80::1%eth0]:5000",
        "tcp://0.0.0.0:5000",
        "tcp://[ff02::1]:5000",
        "ipc:///tmp/socket",
    ],
)
def test_h50_an_announcement_that_is_no_address_is_refused(
    arena: AttackSwarm, endpoint: str
) -> None:
    device = arena.device()
    refusal = device.try_(tracker.Announce(endpoint))
    assert refusal_of(refusal) is Code.USAGE
    assert refusal.hint
    assert device.request(tracker.ListDevices()).rows[0].endpoint is None


def test_h50_names_that_a_tracker_lists_are_not_connected_to() -> None:
    """By the addresses that are connected to one sees that the list was followed."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [str(listener.getsockname()[1]) for listener in listeners]
        named, wide, plain = (
            f"tcp://localhost:{ports[0]}",
            f"tcp://127.0.0.1:{ports[1].translate(WIDE_DIGITS)}",
            f"tcp://127.0.0.1:{ports[2]}",
        )
        sources = [
            Source(DeviceKey(bytes([number + 1]) * 32), "eve", endpoint, True)
            for number, endpoint in enumerate((named, wide, plain))
        ]
        encoded = manifest_of(b"x" * 50_000)
        row = row_of("a.bin", encoded)
        fake = FakeTracker(
            {
                tracker.FindShare: lambda _: tracker.ShareFound(row, TOPIC, len(encoded), sources),
                tracker.GetSources: lambda _: tracker.Sources(sources),
                tracker.GetManifest: parts(encoded),
            }
        )
        stack.callback(fake.end)
        swarm = Swarm("tcp", tracker=False)
        stack.callback(swarm.close)
        bob = Person(swarm, "bob")
        bob.up(tracker=fake.at.link)
        wait_for(lambda: bob.status()["connected"], "the link")
        bob.ok("download-file", "lab", "a.bin", swarm.folder(), "--no-wait")
        assert readable([listeners[2]], PATIENCE_S), "the address was not connected to"
        assert bob.state_of("lab", "a.bin") == "downloading"
        assert readable(listeners[:2], 0.5) == []
