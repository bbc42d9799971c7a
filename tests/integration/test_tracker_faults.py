"""Faults that are made for real: a killed tracker, a full disk, a subscriber that does not read."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from common import limits
from common.crypto import keys
from common.ids import UserId
from common.invitation import key_of
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.net import sockets
from tests.support.tracker_process import PATIENCE_S, Device, Devices, running
from tests.support.waiting import wait_for
from tracker.core.changes.accounts import AccountCreated, DeviceBound
from tracker.store.sqlite_store import SqliteStore

TCP = ("--bind", "tcp://127.0.0.1:0")


class Writer(threading.Thread):
    """Makes groups and shares as fast as it can, and remembers what was acknowledged."""

    def __init__(self, device: Device, content: bytes, run: int) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.content = content
        self.run_number = run
        self.done: list[str] = []

    def run(self) -> None:
        number = 0
        while True:
            name = f"r{self.run_number}-{number}"
            request_id = self.device.send(tracker.Offer("lab", name, self.content))
            try:
                reply = self.device.receive(request_id, timeout_s=1.0)
            except (AssertionError, zmq.ZMQError):
                return
            assert not isinstance(reply, Refusal), reply
            self.done.append(name)
            number += 1


def test_f1_every_acknowledged_command_survives_a_kill(tmp_path: Path, devices: Devices) -> None:
    seed = int(os.environ.get("MINI_TORRENT_SEED", random.randrange(1 << 32)))
    print(f"MINI_TORRENT_SEED={seed}")
    rng, acknowledged = random.Random(seed), set[str]()
    with running(tmp_path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        alice.request(tracker.CreateGroup("lab"))
        content = alice.share("lab", "first")
        for run in range(5):
            writer = Writer(devices(process.at, alice.pair), content, run)
            writer.start()
            wanted = rng.randrange(1, 60)
            wait_for(lambda writer=writer: len(writer.done), until=lambda n, w=wanted: n >= w)
            process.kill()
            writer.join(PATIENCE_S)
            acknowledged |= set(writer.done)
            process.restart()
            again = devices(process.at, alice.pair)
            files = again.request(tracker.ListFiles("lab")).rows
            assert acknowledged <= {row.name for row in files}
        log, head = [], 1
        while len(log) < head:
            page = again.request(tracker.EventsSince("lab", len(log)))
            log, head = log + page.entries, page.head
        assert [entry.seq for entry in log] == list(range(1, head + 1))
        told = {entry.event.name for entry in log if isinstance(entry.event, events.Shared)}
        assert acknowledged <= told


def test_f1_a_command_repeated_after_the_crash_is_recognised(
    tmp_path: Path, devices: Devices
) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        once = alice.send(tracker.CreateGroup("lab"))
        assert alice.receive(once) == tracker.Done()
        process.kill()
        process.restart()
        again = devices(process.at, alice.pair)
        assert again.try_(tracker.CreateGroup("lab"), request_id=once) == tracker.Done()
        assert again.refused(tracker.CreateGroup("lab")) is Code.TAKEN


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=0700", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("F20 needs the right to mount a small disk")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=False)


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.root
def test_f20_a_full_disk_refuses_writing_and_nothing_else(
    small_disk: Path, devices: Devices
) -> None:
    with running(small_disk / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        alice.request(tracker.CreateGroup("lab"))
        filler = small_disk / "filler"
        fill_up(filler)
        done, code = 0, None
        while code is None:  # what room the database has left in its own files is used up first
            reply = alice.try_(tracker.CreateGroup(f"g{done}"))
            done, code = (done, reply.code) if isinstance(reply, Refusal) else (done + 1, None)
        assert code is Code.READ_ONLY
        assert "disk is full" in reply.hint
        assert len(alice.request(tracker.ListGroups()).rows) == done + 1
        assert alice.announce().lease_s == limits.LEASE_S
        assert alice.refused(tracker.LeaveGroup("lab")) is Code.READ_ONLY
        assert alice.request(tracker.ListMembers("lab")).rows[0].user == "alice"
        filler.unlink()
        alice.request(tracker.CreateGroup("afterwards"))
        process.kill()
        process.restart()
        again = devices(process.at, alice.pair)
        assert len(again.request(tracker.ListGroups()).rows) == done + 2


def test_f16_a_subscriber_that_does_not_read_disturbs_no_other(
    tmp_path: Path, devices: Devices
) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        alice.request(tracker.CreateGroup("lab"))
        content = alice.share("lab", "first")
        deaf, bob = devices(process.at), devices(process.at).enter("bob")
        alice.let_in("lab", bob, "bob")
        for each in (deaf, bob):
            each.subscribe()
        seen = bob.follow()["lab"].seq
        assert deaf.sub is not None
        deaf.sub.setsockopt(zmq.RCVHWM, 1)
        count = 300
        for number in range(count):
            alice.request(tracker.Offer("lab", f"{number}", content))
        heard = [bob.next_entry(events.Shared).seq for _ in range(count)]
        assert heard == list(range(seen + 1, seen + 1 + count))


def test_h36_a_login_flood_is_turned_away_and_the_logged_in_are_served(
    tmp_path: Path, devices: Devices
) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        flood = [devices(process.at) for _ in range(limits.PASSWORD_QUEUE_MAX + 18)]
        sent = [
            (each, each.send(tracker.Login(f"user{number}", "guess")))
            for number, each in enumerate(flood)
        ]
        for _ in range(50):
            alice.request(tracker.ListGroups())
        waiting = [each for each in flood if not each.socket.poll(0)]
        assert waiting, "a user who is logged in waits behind no login"
        # Each password that waits costs a hash, so a busy machine needs its time.
        codes = [each.receive(request_id, 60).code for each, request_id in sent]
        assert set(codes) <= {Code.WRONG_CREDENTIALS, Code.BUSY, Code.SLOW_DOWN}
        assert Code.BUSY in codes or Code.SLOW_DOWN in codes
        assert Code.WRONG_CREDENTIALS in codes


def test_f8_a_restart_is_met_by_everybody_at_once_and_hashes_no_password(
    tmp_path: Path, devices: Devices
) -> None:
    """Two hundred here; the load that counts is made by ``make chaos``."""
    home, pairs = tmp_path / "home", [keys.new_pair() for _ in range(200)]
    home.mkdir(mode=0o700)
    store = SqliteStore(home / "tracker.db")
    # No password could ever match this hash: a device can log in by its key alone.
    store.commit(
        [
            change
            for number, pair in enumerate(pairs)
            for change in (
                AccountCreated(UserId(f"u{number}"), "none", 1),
                DeviceBound(pair.public, UserId(f"u{number}"), 1),
            )
        ]
    )
    store.close()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with running(home, *TCP) as process:
        crowd = [Device(process.at, pair, context) for pair in pairs]
        for number, each in enumerate(crowd):
            each.send(tracker.CreateGroup(f"g{number}"), request_id=b"create")
        for each in crowd:
            assert each.receive(b"create") == tracker.Done()
        process.kill()
        process.restart()
        questions = (tracker.Hello(), tracker.Follow(), tracker.GetTickets())
        asked = [(each, [each.send(question) for question in questions]) for each in crowd]
        for number, (each, request_ids) in enumerate(asked):
            welcome, replica, issued = (each.receive(request_id) for request_id in request_ids)
            assert welcome.user == f"u{number}"
            assert [state.group for state in replica.groups] == [f"g{number}"]
            assert [row.group for row in issued.rows] == [f"g{number}"]
    context.destroy(linger=0)


def test_f4_a_tracker_that_was_frozen_expires_no_lease(tmp_path: Path, devices: Devices) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        alice.request(tracker.CreateGroup("lab"))
        alice.share("lab", "x")
        alice.announce()
        process.process.send_signal(signal.SIGSTOP)
        request_id = alice.send(tracker.ListFiles("lab"))
        assert not alice.socket.poll(300)
        process.process.send_signal(signal.SIGCONT)
        assert alice.receive(request_id).rows[0].seeders == 1


def test_a_reply_without_a_taker_is_dropped(tmp_path: Path, devices: Devices) -> None:
    with running(tmp_path / "home", *TCP) as process:
        alice = devices(process.at).enter("alice")
        for _ in range(20):
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            gone = sockets.make_socket(
                context,
                zmq.DEALER,
                sockets.Connect(alice.pair, process.at.key),
                message_bytes_max=1000,
            )
            gone.connect(process.at.endpoint)
            gone.send_multipart([b"MT\x01", b"1", b"\x91\xaaListGroups"])
            context.destroy(linger=100)
        assert isinstance(alice.request(tracker.ListGroups()), tracker.GroupRows)


def test_h112_devices_that_redeem_at_once_share_the_uses(tmp_path: Path, devices: Devices) -> None:
    """Sixteen users send the same proof before any of them has a reply."""
    users, uses, proof = 16, 5, os.urandom(32)
    pairs = [keys.new_pair() for _ in range(users + 1)]
    home = tmp_path / "home"
    with running(home, *TCP):
        pass  # makes the home
    store = SqliteStore(home / "tracker.db")
    for number, pair in enumerate(pairs):
        user = UserId(f"u{number}")
        store.commit([AccountCreated(user, "h", 1), DeviceBound(pair.public, user, 1)])
    store.close()
    with running(home, *TCP) as process:
        owner, *others = [devices(process.at, pair) for pair in pairs]
        owner.request(tracker.CreateGroup("lab"))
        owner.request(tracker.Invite("lab", key_of(proof), uses))
        sent = [(device, device.send(tracker.Redeem(proof))) for device in others]
        replies = [device.receive(request_id) for device, request_id in sent]
        won = [reply.user for reply in replies if isinstance(reply, tracker.Redeemed)]
        lost = [reply for reply in replies if isinstance(reply, Refusal)]
        assert (len(won), len(lost)) == (uses, users - uses)
        assert {reply.code for reply in lost} == {Code.NO_INVITATION}
        members = owner.request(tracker.ListMembers("lab")).rows
        assert {row.user for row in members} == {"u0", *won}
