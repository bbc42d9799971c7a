"""F30, F32, F33, F38: what happens to a process itself; and its logs, for machines."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time

import zmq

from common.crypto.keys import new_pair
from common.host.home import lock_holder
from common.ids import DeviceKey
from common.link import parse_link
from common.messages import tracker
from common.net import sockets
from common.net.pump import Pump
from common.net.zap import Admission, ZapHandler
from tests.support.faults import (
    MIB,
    PIECE,
    Fetch,
    alive,
    begin,
    fetch,
    frozen,
    settle,
    without_descriptors,
)
from tests.support.processes import PEER, Person, Swarm
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for

END_S = 5.0


# -- F30 ------------------------------------------------------------------------------------------


def test_f30_a_seeder_out_of_descriptors_lives_and_goes_on(
    alice: Person, bob: Person, carol: Person
) -> None:
    """It can open neither the file nor a connection. (No command is typed meanwhile: libzmq itself
    ends a process that cannot accept a connection on ipc.)"""
    group = alice.group_with(bob, carol)
    path = alice.swarm.file(2 * MIB)
    alice.share(path, group, "--piece-size", "16K")
    pid = alice.pid
    with without_descriptors(pid):
        downloads = [fetch(who, group, path) for who in (bob, carol)]
        wait_for(lambda: bob.json("why-slow", group, path.name), "an attempt")
        assert all(download.verified == 0 for download in downloads)
    for download in downloads:
        download.finishes()
    assert alive(alice, pid)


def test_f30_a_downloader_out_of_descriptors_lives_and_goes_on(own: Swarm) -> None:
    """It can make no socket: neither to its sources when they come back, nor to the tracker."""
    alice, bob = settle(own, "alice", "--upload-limit", "3M"), settle(own, "bob")
    download = begin(alice, bob, 4 * MIB)
    download.until(PIECE)
    pid = bob.pid
    with without_descriptors(pid):
        alice.restart()
        own.tracker.restart()
        wait_for(lambda: alice.status()["connected"], "Alice at the tracker")
        log = bob.home / "peer.log"
        wait_for(lambda: "Too many open files" in log.read_text(), "the shortage")
    download.finishes()
    wait_for(lambda: bob.status()["connected"], "the tracker")
    assert alive(bob, pid)


def test_f30_a_tracker_out_of_descriptors_lives_and_takes_connections_again(
    town: Swarm, alice: Person
) -> None:
    with without_descriptors(town.tracker.process.pid):
        device = Device(parse_link(town.tracker.link).first)
        request_id = device.send(tracker.Hello())
        # Those who are in are served; the new one waits outside.
        alice.ok("create-group", town.fresh("group"))
        assert not device.socket.poll(300)
    assert isinstance(device.receive(request_id, 30.0), tracker.Welcome)
    assert town.tracker.process.poll() is None
    device.close()


# -- F32 ------------------------------------------------------------------------------------------


def test_f32_a_bug_in_the_admission_costs_that_handshake_only() -> None:
    asyncio.run(_with_a_buggy_policy())


async def _with_a_buggy_policy() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    handler = ZapHandler(context)
    server_pair, unlucky, lucky = new_pair(), new_pair(), new_pair()
    asked: list[DeviceKey] = []

    def policy(key: DeviceKey, _: str) -> Admission:
        asked.append(key)
        if key == unlucky.public and asked.count(key) == 1:
            raise RuntimeError("a bug")
        return Admission.ADMIT

    handler.guard("buggy", policy)
    server = sockets.make_socket(
        context, zmq.ROUTER, sockets.Serve(server_pair, "buggy"), message_bytes_max=1024
    )
    endpoint = sockets.bind(server, "tcp://127.0.0.1:0")
    came: asyncio.Queue[bytes] = asyncio.Queue()
    pump = Pump(server, lambda frames: came.put_nowait(frames[-1].bytes))
    clients = []
    try:
        for pair, word in ((unlucky, b"unlucky"), (lucky, b"lucky")):
            client = sockets.make_socket(
                context,
                zmq.DEALER,
                sockets.Connect(pair, server_pair.public),
                message_bytes_max=1024,
            )
            clients.append(client)
            client.connect(endpoint)
            client.send(word)
        # The one that met the bug comes in as well, when it tries again.
        words = {await asyncio.wait_for(came.get(), 30.0) for _ in range(2)}
        assert words == {b"unlucky", b"lucky"}
        assert handler.counts["failures"] == 1
        assert asked.count(unlucky.public) >= 2
    finally:
        for client in clients:
            client.close(linger=0)
        pump.close()
        handler.close()
        context.destroy(linger=0)


# -- F33 ------------------------------------------------------------------------------------------


def test_f33_a_peer_that_stands_still_within_its_lease_is_not_taken_for_dead(
    alice: Person, carol: Person
) -> None:
    group = alice.group_with(carol)
    path = alice.swarm.file(MIB)
    alice.share(path, group)
    wait_for(lambda: carol.files(group), "the share")
    deadline = time.monotonic() + 10.0
    with frozen(alice.pid):
        while time.monotonic() < deadline:
            assert carol.files(group)[path.name]["seeders"] == 1
            threading.Event().wait(0.5)
    fetch(carol, group, path).finishes()


# -- F38 ------------------------------------------------------------------------------------------


def ended(who: Person, pid: int) -> float:
    """Wait for the end of a peer; seconds that it took."""
    began = time.monotonic()
    wait_for(lambda: lock_holder(who.home) != pid, "the end of the peer")
    return time.monotonic() - began


def busy(alice: Person, bob: Person, carol: Person) -> Fetch:
    """Bob fetches one thing and serves another, and is watched meanwhile."""
    group = alice.group_with(bob, carol)
    path = bob.swarm.file(12 * MIB)
    bob.share(path, group, "--piece-size", "16K")
    download = begin(alice, bob, 12 * MIB, group=group)
    fetch(carol, group, path)
    bob.spawn("--json", "watch", group)
    download.until(2 * MIB)
    return download


def test_f38_a_busy_peer_ends_in_time_with_everything_synced(
    alice: Person, bob: Person, carol: Person
) -> None:
    download = busy(alice, bob, carol)
    verified, pid = download.verified, bob.pid
    os.kill(pid, signal.SIGTERM)
    assert ended(bob, pid) < END_S
    assert download.synced * PIECE >= verified
    bob.up()
    wait_for(lambda: download.verified >= verified, "what was synced")
    download.finishes()


def test_f38_down_is_the_same(alice: Person, bob: Person, carol: Person) -> None:
    download = busy(alice, bob, carol)
    verified = download.verified
    began = time.monotonic()
    bob.ok("down")
    assert time.monotonic() - began < END_S
    assert download.synced * PIECE >= verified
    bob.up()
    download.finishes()


def test_f38_a_second_signal_ends_a_peer_at_once(town: Swarm) -> None:
    """One that would take a while: it tells a frozen tracker that it goes."""
    dora = Person(town, "dora")
    process = dora.spawn("up", "--foreground", "--tracker", town.tracker.link)
    wait_for(lambda: dora.run("status").code == 0, "the peer")
    dora.ok("create-user", "dora", "her password")
    dora.ok("login", "dora", "her password")
    with frozen(town.tracker.process.pid):
        process.send_signal(signal.SIGTERM)

        def sent() -> bool:
            process.send_signal(signal.SIGTERM)
            return process.poll() is not None

        wait_for(sent, "its end")
    assert process.returncode == 1  # an orderly end is 0


def test_f38_with_everything_that_it_speaks_to_frozen_a_peer_ends_in_time(
    town: Swarm, alice: Person, bob: Person
) -> None:
    download = begin(alice, bob, 12 * MIB)
    download.until(PIECE)
    pid = bob.pid
    with frozen(town.tracker.process.pid), frozen(alice.pid):
        os.kill(pid, signal.SIGTERM)
        assert ended(bob, pid) < END_S
    bob.up()
    download.finishes()


# -- logs -----------------------------------------------------------------------------------------


def test_logs_for_machines_have_an_object_a_line(town: Swarm) -> None:
    emma = Person(town, "emma")
    words = [PEER, "--home", str(emma.home), "up", "--foreground", "--log-json"]
    process = subprocess.Popen(
        [*words, "--tracker", town.tracker.link],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(lambda: lock_holder(emma.home), "the peer")
        wait_for(lambda: emma.run("status").code == 0, "its answers")
        emma.ok("create-user", "emma", "secret words")
        emma.ok("login", "emma", "secret words")
    finally:
        process.terminate()
        _, said = process.communicate(timeout=20)
    rows = [json.loads(text) for text in said.splitlines()]
    assert rows
    assert all({"time", "level", "logger", "message"} <= set(row) for row in rows)
    assert "secret words" not in said
