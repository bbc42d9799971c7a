"""A member with very many devices that offer a share and say nothing, beside one honest seeder."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from common.messages import peer, tracker
from common.messages.base import Source
from tests.support.attackers import AttackSwarm, Liar, Send, user_of
from tests.support.fake_tracker import TOPIC, FakeTracker, parts, row_of
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import manifest_of
from tests.support.waiting import wait_for

OPEN, MUTE = 6, 14  # devices that open and give nothing, and such that take connections alone


def _opens(command: Any, send: Send) -> None:
    if isinstance(command, peer.Open):
        send(peer.Opened(command.channel, True, 1 << 52))


def test_h62_silent_devices_of_one_member_take_no_more_than_one_place_before_another(
    arena: AttackSwarm,
) -> None:
    group = arena.alice.group_with(arena.bob)
    shared = arena.shared(group, pieces=64)
    with contextlib.ExitStack() as stack:
        first = arena.member(group, "eve")
        user = user_of(first)
        devices = [first]
        for _ in range(OPEN + MUTE - 1):
            device = arena.stranger()
            device.request(tracker.Login(user, "a password"))
            devices.append(device)
        for number, device in enumerate(devices):
            if number < OPEN:
                liar = Liar(device, _opens)
                stack.callback(liar.end)
                liar.seed(shared)
            else:
                mute = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
                device.announce(f"tcp://127.0.0.1:{mute.getsockname()[1]}")
                device.request(tracker.Offer(group, shared.name, shared.content(device)))
        dest = arena.swarm.folder()
        done = arena.bob.fetch(group, shared.name, dest)
        assert (dest / shared.name).read_bytes() == shared.bytes
        assert done["sources"][0]["user"] == "alice"


def test_h62_a_list_of_which_all_are_silent_is_asked_again_at_once() -> None:
    """By the number of times: an interval of 20 s would take minutes for as many."""
    encoded = manifest_of(b"x" * 50_000)
    with contextlib.ExitStack() as stack:
        mute = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=256))
        endpoint = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        lists = [
            [Source(bytes([turn, n]) * 16, "eve", endpoint, True) for n in range(50)]
            for turn in range(1, 9)
        ]
        asked: list[int] = []

        def sources(_: tracker.GetSources) -> tracker.Sources:
            asked.append(len(asked))
            return tracker.Sources(lists[len(asked) % len(lists)])

        found = tracker.ShareFound(row_of("a.bin", encoded), TOPIC, len(encoded), lists[0])
        fake = FakeTracker(
            {
                tracker.FindShare: lambda _: found,
                tracker.GetSources: sources,
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
        wait_for(lambda: len(asked) >= 3, "the list to be asked for again")
