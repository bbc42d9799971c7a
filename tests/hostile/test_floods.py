"""Floods: a user who wants too much gets one share, and the others get theirs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
import zmq

from common import limits
from common.ids import DeviceKey, UserId
from common.messages import peer, tracker
from common.messages.refusals import Code
from common.net import codec
from tests.support import zmtp
from tests.support.attacked_download import AttackedDownload
from tests.support.attackers import AttackSwarm, Fetcher, Send, user_of
from tests.support.processes import Person
from tests.support.tracker_process import Device, Devices, running
from tests.support.waiting import PATIENCE_S
from tracker.core.context import Caller, CheckPassword
from tracker.service import passwords
from tracker.service.passwords import Passwords

BIG_PIECE = limits.PIECE_LENGTH_DEFAULT
# Pieces that the honest one wants: many times the size of a scheduler's epoch.
SHARE = 64 * limits.MIB // BIG_PIECE
UPLOAD_RATE = 40 * limits.MIB
EQUAL = 0.8


class Greedy(threading.Thread):
    """Wishes for everything, over and over, on one connection, until told to end."""

    def __init__(self, fetcher: Fetcher, group: str, content: bytes, ticket: bytes) -> None:
        super().__init__(daemon=True)
        self.fetcher = fetcher
        self.pieces = 0
        self.ending = threading.Event()
        assert isinstance(fetcher.open(group, content, ticket), peer.Opened)

    def run(self) -> None:
        for at in range(0, SHARE, 64):
            self.fetcher.request(*range(at, at + 64))
        while not self.ending.is_set():
            if not self.fetcher.socket.poll(50):
                continue
            answer = self.fetcher.receive()
            if isinstance(answer, peer.Piece):
                self.pieces += 1
                self.fetcher.request(answer.index)


class Spammer(threading.Thread):
    """Sends the longest requests as fast as they are taken, and reads nothing of what comes."""

    def __init__(self, fetcher: Fetcher) -> None:
        super().__init__(daemon=True)
        self.fetcher = fetcher
        self.ending = threading.Event()

    def run(self) -> None:
        wishes = codec.pack(b"", peer.Request(1, [n % SHARE for n in range(512)], 0))
        while not self.ending.is_set():
            try:
                self.fetcher.socket.send_multipart(wishes, zmq.DONTWAIT)
            except zmq.Again:
                self.ending.wait(0.001)


@pytest.fixture
def dora(arena: AttackSwarm) -> Iterator[Person]:
    """A peer that serves no faster than the clients here can read, so that it chooses."""
    dora = Person(arena.swarm, "dora")
    dora.up("--upload-limit", str(UPLOAD_RATE))
    dora.ok("create-user", "dora", dora.password)
    dora.ok("login", "dora", dora.password)
    yield dora
    dora.down()


def test_h27_a_flood_of_requests_leaves_others_their_share(
    arena: AttackSwarm, dora: Person
) -> None:
    group = arena.group()
    arena.alice.let_in(group, dora)
    path = arena.swarm.folder() / "big.bin"
    path.write_bytes(os.urandom(BIG_PIECE) * SHARE)
    dora.share(path, group)
    honest, greedy = arena.member(group), arena.member(group, "greedy")
    content = honest.request(tracker.FindShare(group, path.name)).row.content
    theirs = arena.ticket(greedy, group)
    floods = [Greedy(arena.fetcher(greedy, at=dora), group, content, theirs) for _ in range(4)]
    spam = arena.fetcher(greedy, at=dora)
    spam.open(group, content, theirs)
    spammer = Spammer(spam)
    for thread in (*floods, spammer):
        thread.start()
    try:
        fetcher = arena.fetcher(honest, at=dora)
        assert isinstance(fetcher.open(group, content, arena.ticket(honest, group)), peer.Opened)
        before = sum(flood.pieces for flood in floods)
        for at in range(0, SHARE, 64):
            fetcher.request(*range(at, at + 64))
        mine = 0
        while mine < SHARE:
            if isinstance(fetcher.receive(), peer.Piece):
                mine += 1
                fetcher.say(peer.Credit(fetcher.received))
        others = sum(flood.pieces for flood in floods) - before
    finally:
        for thread in (*floods, spammer):
            thread.ending.set()
        for thread in (*floods, spammer):
            thread.join(PATIENCE_S)
    assert others > 0
    assert mine >= EQUAL * (mine + others) / 2, f"{mine} pieces against {others}"


def test_h27_a_flood_of_commands_leaves_others_theirs(arena: AttackSwarm) -> None:
    flood, other = [arena.stranger() for _ in range(4)], arena.device()
    hello = codec.pack(b"flood", tracker.Hello())
    for _ in range(5_000):
        for each in flood:
            each.socket.send_multipart(hello)
    served = sum(
        isinstance(other.request(tracker.ListGroups()), tracker.GroupRows) for _ in range(100)
    )
    assert served == 100
    # The flood is still being turned away while all of those were answered.
    answers = sum(_answers_now(each) for each in flood)
    assert answers < 4 * 5_000


def _answers_now(device: Device) -> int:
    count = 0
    while device.socket.poll(0):
        device.socket.recv_multipart()
        count += 1
    return count


def test_h09_a_source_whose_message_is_beyond_all_measure(arena: AttackSwarm) -> None:
    scene = AttackedDownload(arena)

    def behave(command: object, send: Send) -> None:
        if isinstance(command, peer.Open):
            send(peer.Opened(command.channel, True, 1 << 52))
        if isinstance(command, peer.Request):
            # 4,000 frames of 64 KiB: more than any message may hold on to.
            frames = [bytes(64 * limits.KIB)] * 4_000
            send.raw([codec.SIGNATURE, b"", codec.encode(peer.Piece(command.channel, 0)), *frames])
            scene.lie()

    scene.run(behave)
    with open(f"/proc/{scene.bob.pid}/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert resident < 400 * limits.MIB


# -- passwords ----------------------------------------------------------------------------------


def test_h34_guesses_from_many_devices_are_slowed_and_the_bound_one_is_not(
    tmp_path_factory: pytest.TempPathFactory, devices: Devices
) -> None:
    with running(tmp_path_factory.mktemp("t") / "home", "--bind", "tcp://127.0.0.1:0") as process:
        owner = devices(process.at).enter("owner", "the right one")
        codes = []
        for number in range(12):
            eve = devices(process.at)
            codes.append(eve.refused(tracker.Login("OWNER", f"guess {number}")))
        assert codes.count(Code.WRONG_CREDENTIALS) <= 6  # whatever the key, whatever the spelling
        assert set(codes[7:]) == {Code.SLOW_DOWN}
        assert owner.request(tracker.CreateGroup("still-here")) == tracker.Done()
        again = devices(process.at, owner.pair)
        assert again.request(tracker.Hello()).user == "owner"
        assert again.request(tracker.Login("owner", "the right one")) == tracker.LoggedIn("owner")


@pytest.mark.parametrize("known", [True, False])
def test_h35_an_unknown_user_costs_the_same_work(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import asyncio

    worked: list[str] = []
    verify = passwords._verify
    monkeypatch.setattr(passwords, "MEMORY_BYTES", 1 << 13)
    monkeypatch.setattr(passwords, "PASSES", 1)

    def watched(password_hash: str, password: str) -> bool:
        # What makes a hash cost: the algorithm, its version, memory, passes and lanes.
        worked.append("$".join(password_hash.split("$")[:4]))
        return verify(password_hash, password)

    monkeypatch.setattr(passwords, "_verify", watched)
    made = passwords.hash_password("right")
    guard = Passwords(threads=1)
    order = CheckPassword(UserId("who"), "wrong", made if known else None, False)
    assert asyncio.run(guard.check(Caller(DeviceKey(b"d" * 32)), order)) is False
    guard.close()
    assert worked == ["$".join(made.split("$")[:4])]


def test_h56_without_a_password_nothing_is_told_of_a_name(arena: AttackSwarm) -> None:
    owner, eve = arena.device().request(tracker.Hello()).user, Device(arena.at)
    for name in (owner, "nobody-at-all"):
        assert eve.refused(tracker.CreateUser(name, "")) is Code.USAGE
    assert eve.refused(tracker.CreateUser(owner, "some password")) is Code.TAKEN
    eve.close()


def test_h36_connections_that_do_not_read_their_answers_harm_no_other(arena: AttackSwarm) -> None:
    deaf = [zmtp.Curve(arena.at.endpoint, arena.at.key).shake() for _ in range(20)]
    hello = [codec.SIGNATURE, b"1", codec.encode(tracker.Hello())]
    for each in deaf:
        for _ in range(200):
            each.send(hello)
    other = arena.device()
    assert user_of(other) == other.request(tracker.Hello()).user
    for each in deaf:
        each.close()
