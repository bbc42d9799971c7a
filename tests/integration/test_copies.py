"""Waits for copies on other devices: 200 scripted devices, the real tracker, a real peer."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import zmq

from common.crypto import keys
from common.ids import DeviceKey, GroupId, UserId
from common.link import parse_link
from common.messages import tracker
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for
from tracker.core.changes.accounts import AccountCreated, DeviceBound
from tracker.core.changes.base import Change
from tracker.core.changes.groups import MemberJoined
from tracker.store.sqlite_store import SqliteStore

TCP_ONLY = True

DEVICES = 200
SIZE = 100_000


class Fleet:
    """Scripted devices of two members of a group, logged in before the tracker starts."""

    def __init__(self, swarm: Swarm, group: str) -> None:
        self.swarm, self.group = swarm, group
        self.pairs = [keys.new_pair() for _ in range(DEVICES)]
        self._context: zmq.Context[Any] = zmq.Context()
        swarm.tracker.end()
        store = SqliteStore(Path(swarm.tracker.home) / "tracker.db")
        head = store.load().groups[GroupId(group)]
        made: list[Change] = []
        for number in range(2):
            user = self.user(number)
            made.append(AccountCreated(user, "no hash", 1))
            made.append(MemberJoined(head.id, user, head.seq, 1))
        for number, pair in enumerate(self.pairs):
            made.append(DeviceBound(DeviceKey(pair.public), self.user(number), 1))
        store.commit(made)
        store.close()
        swarm.tracker.start()
        self.devices = self.connected()

    def user(self, number: int) -> UserId:
        return UserId(f"of-{self.group}-{number % 2}")

    def connected(self) -> list[Device]:
        """Connections of all devices to the tracker, which knows them already."""
        at = parse_link(self.swarm.tracker.link.strip()).first
        return [Device(at, pair, self._context) for pair in self.pairs]

    def all_do(self, devices: list[Device], *commands: tracker.Command) -> None:
        """Send commands from many devices at once, and wait for all replies."""
        for command in commands:
            sent = [(device, device.send(command)) for device in devices]
            for device, request_id in sent:
                assert isinstance(device.receive(request_id), tracker.Done | tracker.Announced
                                  | tracker.Offered)  # fmt: skip

    def come(self, devices: list[Device], held: int | None = None, content: bytes = b"") -> None:
        fetched = [] if held is None else [tracker.Leeching(self.group, content, held)]
        self.all_do(devices, tracker.Announce("tcp://127.0.0.1:19000", fetched))

    def restart_tracker(self) -> None:
        self.swarm.tracker.kill()
        self.swarm.tracker.start()
        for device in self.devices:
            device.socket.close(linger=0)
        self.devices = self.connected()

    def close(self) -> None:
        self._context.destroy(linger=0)


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    """A swarm whose tracker the tests restart."""
    made = Swarm("tcp")
    try:
        made.person("alice")
        yield made
    finally:
        made.close()


@pytest.fixture
def alice(swarm: Swarm) -> Person:
    return swarm.named("alice")


def lines(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout is not None  # not by `communicate`, which loses lines that are buffered
    told = [line.strip() for line in process.stdout]
    process.wait(60)
    return told


def test_two_hundred_devices_are_waited_for_over_a_restart_of_the_tracker(swarm: Swarm) -> None:
    """Each is told once; one that is away counts; the last one is missing at the timeout."""
    alice = swarm.named("alice")
    wait_for(lambda: alice.status()["connected"], "the link")
    group = alice.group_with()
    path = swarm.file(SIZE)
    alice.share(path, group)
    fleet = Fleet(swarm, group)
    try:
        wait_for(lambda: alice.status()["connected"], "the link")
        content = fleet.devices[0].request(tracker.FindShare(group, path.name)).row.content
        offer = tracker.Offer(group, path.name, content)
        fleet.come(fleet.devices)
        fleet.all_do(fleet.devices, tracker.SetFollow(group, True))
        process = alice.spawn("wait", group, path.name, "--for", "all", "--timeout", "2m")
        rows = alice.json("who-has", group, path.name)
        assert sorted({row["state"] for row in rows}) == ["follows", "holds"]
        assert len(rows) == DEVICES + 1

        early, late, last = fleet.devices[:120], fleet.devices[120:-1], fleet.devices[-1:]
        fleet.come(late, 1, content)
        fleet.all_do(early, offer)
        fleet.all_do(early[:20], tracker.Depart())
        assert process.stdout is not None
        told = [process.stdout.readline().strip()]  # it has begun: now the tracker may be away
        states = [row["state"] for row in alice.json("who-has", group, path.name)]
        assert {state: states.count(state) for state in set(states)} == {
            "holds": 101, "away": 20, "fetching": 79, "follows": 1,
        }  # fmt: skip

        fleet.restart_tracker()
        late, last = fleet.devices[120:-1], fleet.devices[-1:]
        fleet.come(fleet.devices[20:])
        fleet.all_do(late, offer)
        gone = keys.key_text(last[0].key)
        ended = alice.run("--json", "wait", group, path.name, "--for", "all", "--timeout", "1s")
        assert ended.code == 6
        assert '"code": "timed-out"' in ended.err
        assert ended.err.count('"state"') == DEVICES - 1
        missing = [row for row in ended.json if row["verified_bytes"] < SIZE]
        assert [(row["device"], row["state"]) for row in missing] == [(gone, "follows")]
        assert process.poll() is None
        fleet.all_do(last, offer)
        told += lines(process)
        assert process.returncode == 0
        assert len(told) == len(set(told)) == DEVICES
    finally:
        fleet.close()


def test_a_wait_ends_without_a_copy_of_this_device_and_counts_what_comes_and_goes(
    swarm: Swarm,
) -> None:
    alice = swarm.named("alice")
    wait_for(lambda: alice.status()["connected"], "the link")
    group = alice.group_with()
    path = swarm.file(SIZE)
    alice.share(path, group)
    fleet = Fleet(swarm, group)
    try:
        wait_for(lambda: alice.status()["connected"], "the link")
        one, two, *_ = fleet.devices
        content = one.request(tracker.FindShare(group, path.name)).row.content
        refused = alice.refused("wait", group, path.name)
        assert "no other device" in refused
        offer = tracker.Offer(group, path.name, content)
        fleet.come([one, two])
        process = alice.spawn("wait", group, path.name, "--for", "2", "--timeout", "1m", "--json")
        fleet.all_do([one], offer)
        wait_for(lambda: copies(alice, group, path.name), until=lambda count: count == 2)
        fleet.all_do([one], tracker.StopShare(group, path.name))
        fleet.all_do([two], offer)
        wait_for(lambda: copies(alice, group, path.name), until=lambda count: count == 2)
        time_to_look = time.monotonic() + 1.5
        wait_for(lambda: time.monotonic() > time_to_look)
        assert process.poll() is None, "a copy that is gone does not count"
        fleet.all_do([one], offer)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert out.count('"holds"') == 3
        assert 2 <= errors.count('"state": "holds"') <= 3
        fleet.all_do([two], tracker.SetFollow(group, True, ["*.iso"]))
        assert "no other device" in alice.refused("wait", group, path.name)
    finally:
        fleet.close()


def copies(person: Person, group: str, name: str) -> int:
    rows = person.json("who-has", group, name)
    return sum(row["state"] == "holds" for row in rows)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--for", "0"), 2),
        (("--for", "many"), 2),
        (("--for", "-1"), 2),
        (("--for", "1e3"), 2),
        (("--timeout", "soon"), 2),
        (("--for", "1", "--timeout", "1s"), 6),
    ],
)
def test_the_arguments_of_a_wait_are_checked(
    alice: Person, shared: tuple[str, str], words: tuple[str, ...], code: int
) -> None:
    group, name = shared
    done = alice.run("wait", group, name, *words)
    assert done.code == code
    assert done.out == ""
    assert "error: " in done.err


@pytest.fixture
def shared(swarm: Swarm, alice: Person) -> tuple[str, str]:
    """A group of alice and the name of a share in it."""
    wait_for(lambda: alice.status()["connected"], "the link")
    group, path = alice.group_with(), swarm.file(1_000)
    alice.share(path, group)
    return group, path.name


def test_a_device_that_does_not_come_back_was_there_until_the_tracker_ended() -> None:
    swarm = Swarm()
    try:
        alice, bob = swarm.person("alice"), swarm.person("bob")
        group = alice.group_with(bob)
        name = bob.share(swarm.file(1000), group)["name"]
        bob.down()
        before = datetime.now(UTC)
        bob.up()
        wait_for(lambda: alice.json("who-has", group, name)[0]["state"] == "holds", "Bob's return")
        assert swarm.tracker.end() == 0
        bob.kill()
        swarm.tracker.start()
        wait_for(lambda: alice.status()["connected"], "the return of Alice")
        (row,) = alice.json("who-has", group, name)
        assert row["state"] == "away"
        assert datetime.fromisoformat(row["since"]) > before
    finally:
        swarm.close()
