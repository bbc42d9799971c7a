"""F4, F6, F7, F9, F14, F16, F17, F18: the tracker, or the way to it, is not there."""

from __future__ import annotations

import json
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import zmq

from common import limits
from common.ids import ContentId, DeviceKey
from common.link import parse_link
from common.messages import peer, tracker
from common.messages.refusals import Code
from common.net import codec, sockets
from tests.support.faults import MIB, PIECE, begin, events_port, faults, fetch, frozen, settle
from tests.support.faulty_link import FaultyLink, TrackerLine
from tests.support.processes import TRACKER, Person, Swarm
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for

SIZE = 6 * MIB
SHORT = {"TICKET_LIFE_S": 3, "CLOCK_SKEW_S": 1}


def slow(own: Swarm, limit: str = "3M") -> Person:
    return settle(own, "alice", "--upload-limit", limit)


def connected(*people: Person) -> None:
    for each in people:
        wait_for(lambda who=each: who.status()["connected"], f"{each.name} at the tracker")


def test_f06_a_tracker_that_is_down_stops_new_commands_and_nothing_else(own: Swarm) -> None:
    alice, bob = slow(own), settle(own, "bob")
    download = begin(alice, bob, SIZE)
    download.until(MIB)
    own.tracker.kill()
    wait_for(lambda: not bob.status()["connected"], "the loss of the tracker")
    for words in (["list-groups"], ["list-files", download.group], ["create-group", "another"]):
        said = bob.refused(*words, code=4)
        assert "cannot be reached" in said
    assert download.state == "downloading"
    download.finishes()
    own.tracker.start()
    connected(alice, bob)
    rows = wait_for(
        lambda: alice.files(download.group),
        "both as seeders",
        until=lambda rows: rows[download.name]["seeders"] == 2,
    )
    assert set(rows[download.name]["shared_by"]) == {"alice", "bob"}


def test_f26_a_member_removed_after_the_backup_may_fetch_again_once_it_is_restored(
    own: Swarm,
) -> None:
    """Peers that go on running remember the removal, which the tracker knows nothing of."""
    alice, bob = settle(own, "alice"), settle(own, "bob")
    group, backup, home = alice.group_with(bob), str(own.root / "backup"), str(own.tracker.home)
    subprocess.run([TRACKER, "backup", backup, "--home", home], check=True)
    alice.ok("remove-member", group, "bob")
    own.tracker.end()
    subprocess.run([TRACKER, "restore", backup, "--home", home], check=True)
    own.tracker.start()
    connected(alice, bob)
    path = own.file(MIB)
    alice.share(path, group)
    wait_for(lambda: path.name in bob.files(group), "the share in Bob's list")
    fetch(bob, group, path).finishes()


def test_f04_a_frozen_tracker_holds_up_no_transfer(own: Swarm) -> None:
    alice, bob = slow(own), settle(own, "bob")
    download = begin(alice, bob, SIZE)
    download.until(MIB)
    with frozen(own.tracker.process.pid):
        download.until(SIZE)
    download.finishes()
    connected(alice, bob)
    wait_for(
        lambda: bob.files(download.group),
        "both as seeders",
        until=lambda rows: rows[download.name]["seeders"] == 2,
    )


@pytest.mark.timeout(240)
def test_f07_without_a_tracker_serving_ends_with_the_tickets_and_goes_on_with_it() -> None:
    with faults(limits=SHORT):
        own = Swarm("tcp")
        try:
            alice, bob = slow(own, limit="1M"), settle(own, "bob")
            download = begin(alice, bob, 10 * MIB)
            download.until(PIECE)
            own.tracker.kill()

            def note() -> str:
                (row,) = bob.json("why-slow", download.group, download.name)
                return str(row["verdict"])

            wait_for(note, "the end of serving", until=lambda said: "expired" in said)
            held = download.verified
            assert held < 10 * MIB
            own.tracker.start()
            # The source is tried again with a backoff that grew while its tickets were expired.
            wait_for(
                lambda: download.verified,
                "progress",
                until=lambda found: found >= held + MIB,
                patience_s=100.0,
            )
        finally:
            own.close()


class Requester:
    """The plainest fetcher there is: one ticket, and one piece after the other."""

    def __init__(self, device: Device, group: str, name: str) -> None:
        self.device = device
        self.group = group
        found = device.request(tracker.FindShare(group, name))
        (source,) = device.request(tracker.GetSources(group, ContentId(found.row.content))).sources
        self.content = found.row.content
        self.ticket = self.fresh_ticket()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = sockets.make_socket(
            self._context,
            zmq.DEALER,
            sockets.Connect(device.pair, DeviceKey(source.device)),
            message_bytes_max=limits.REPLY_BYTES_MAX,
        )
        self.socket.connect(source.endpoint)
        self._answers: codec.Decoder[peer.Answer] = codec.Decoder(
            peer.Answer, data_frames=limits.DATA_FRAMES_MAX
        )
        self.received = 0

    def fresh_ticket(self) -> bytes:
        (row,) = self.device.request(tracker.GetTickets([self.group])).rows
        return bytes(row.token)

    def say(self, command: peer.ClientMessage) -> None:
        self.socket.send_multipart(codec.pack(b"", command))

    def open(self) -> peer.Answer:
        self.say(peer.Open(1, self.group, self.content, self.ticket))
        return self.receive()

    def piece(self, index: int) -> peer.Answer:
        self.say(peer.Request(1, [index], self.received))
        return self.receive()

    def receive(self) -> peer.Answer:
        assert self.socket.poll(20_000), "the peer did not answer"
        envelope = self._answers.unpack(self.socket.recv_multipart())
        self.received += len(envelope.data or b"")
        return envelope.body

    def close(self) -> None:
        self._context.destroy(linger=0)


def test_f09_a_seeder_cut_off_never_serves_beyond_a_tickets_life(
    line: Callable[..., FaultyLink],
) -> None:
    """Bob is removed from the group, which the seeder cannot hear."""
    with faults(limits=SHORT):
        own = Swarm("tcp")
        device = Device(parse_link(own.tracker.link).first)
        try:
            cut = TrackerLine(line, own.tracker.link, events_port(own))
            owner = settle(own, "owner")
            alice = settle(own, "alice", tracker=cut.link)
            group = owner.group_with(alice)
            device.enter("bob")
            device.request(tracker.JoinGroup(group))
            owner.ok("accept-request", group, "bob")
            path = own.file(MIB)
            alice.share(path, group, "--piece-size", "16K")
            bob = Requester(device, group, path.name)
            # It may take the seeder a moment to hear that Bob is a member now.
            wait_for(bob.open, "an open", until=lambda said: isinstance(said, peer.Opened))
            cut.hold()
            issued_before = time.monotonic()
            bob.ticket = bob.fresh_ticket()
            bob.say(peer.Renew(group, bob.ticket))
            issued_after = time.monotonic()
            owner.ok("remove-member", group, "bob")
            served = 0
            while isinstance(answer := bob.piece(served % 64), peer.Piece):
                served += 1
                life_s = SHORT["TICKET_LIFE_S"] + SHORT["CLOCK_SKEW_S"]
                assert time.monotonic() < issued_after + life_s + 1.0
            assert isinstance(answer, peer.Closed)
            assert answer.refusal.code is Code.TICKET_EXPIRED
            assert served  # it was a right while it lasted
            assert time.monotonic() > issued_before + SHORT["TICKET_LIFE_S"] - 0.5
            assert isinstance(bob.open(), peer.Closed)
            bob.close()
        finally:
            device.close()
            own.close()


class Watcher:
    """Process of ``watch --json``."""

    def __init__(self, who: Person) -> None:
        self.process = who.spawn("--json", "watch")
        self.rows: list[dict[str, object]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self.rows.append(json.loads(text))

    def seqs(self, group: str) -> list[int]:
        return [int(str(row["seq"])) for row in self.rows if row["group"] == group]


class Storm:
    """A device in a group of Alice's that makes one event after the other."""

    def __init__(self, alice: Person, *others: Person) -> None:
        self.group = alice.group_with(*others)
        user = alice.swarm.fresh("storm")
        self.device = Device(parse_link(alice.swarm.tracker.link).first).enter(user)
        self.device.request(tracker.JoinGroup(self.group))
        alice.ok("accept-request", self.group, user)
        self.content = self.device.share(self.group, "first")
        self.names = {"first"}

    def event(self) -> None:
        name = f"s{len(self.names)}"
        offer = tracker.Offer(self.group, name, self.content)
        # One device may ask so much and no more.
        wait_for(
            lambda: self.device.try_(offer), "it", until=lambda r: isinstance(r, tracker.Offered)
        )
        self.names.add(name)

    def watched_by(self, who: Person) -> Watcher:
        """A watcher that has heard something."""
        watcher = Watcher(who)

        def heard() -> list[int]:
            self.event()
            return watcher.seqs(self.group)

        wait_for(heard, "the first event")
        return watcher

    def heard_by(self, watcher: Watcher) -> None:
        """All was heard since the first: each once, and in order."""
        head = self.device.request(tracker.EventsSince(self.group, 0)).head
        seqs = wait_for(
            lambda: watcher.seqs(self.group), "the last event", until=lambda seqs: head in seqs
        )
        assert seqs == list(range(seqs[0], head + 1))


@pytest.fixture
def storms() -> Iterator[Callable[..., Storm]]:
    made: list[Storm] = []

    def make(*people: Person) -> Storm:
        made.append(Storm(*people))
        return made[-1]

    yield make
    for storm in made:
        storm.device.close()


def test_f14_connections_reset_in_a_storm_lose_no_event(
    own: Swarm, line: Callable[..., FaultyLink], storms: Callable[..., Storm]
) -> None:
    alice = settle(own, "alice")
    cut = TrackerLine(line, own.tracker.link, events_port(own))
    bob = settle(own, "bob", tracker=cut.link)
    storm = storms(alice, bob)
    watcher = storm.watched_by(bob)
    resets = 8
    for _ in range(resets):
        storm.event()
        assert cut.reset()
        storm.event()
        connected(bob)
    storm.heard_by(watcher)
    # Two sockets each time, and not many more than were reset: no peer hammers.
    assert cut.connections <= 2 + resets * 8


def test_f16_events_that_are_lost_are_noticed_and_asked_for(
    own: Swarm, storms: Callable[..., Storm]
) -> None:
    alice = settle(own, "alice")
    with faults(deaf=0.4):
        bob = settle(own, "bob")
    storm = storms(alice, bob)
    watcher = storm.watched_by(bob)
    for _ in range(100):
        storm.event()
    storm.heard_by(watcher)
    assert set(bob.files(storm.group)) == storm.names


def test_f16_a_frozen_subscriber_disturbs_no_other(
    alice: Person, bob: Person, storms: Callable[..., Storm]
) -> None:
    storm = storms(alice, bob)
    of_alice, of_bob = storm.watched_by(alice), storm.watched_by(bob)
    with frozen(bob.pid):
        for _ in range(300):
            storm.event()
        storm.heard_by(of_alice)
        assert set(alice.files(storm.group)) == storm.names
    storm.heard_by(of_bob)


def test_f17_a_late_subscriber_misses_no_event(
    alice: Person, bob: Person, storms: Callable[..., Storm]
) -> None:
    storm = storms(alice, bob)
    bob.down()
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.005):
            storm.event()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        bob.up()
        watcher = Watcher(bob)
        wait_for(lambda: len(watcher.seqs(storm.group)) > 50, "events")
    finally:
        over.set()
        thread.join()
    storm.heard_by(watcher)
    assert set(bob.files(storm.group)) == storm.names


def test_f18_commands_whose_way_is_cut_are_done_once(
    own: Swarm, line: Callable[..., FaultyLink], rng: random.Random
) -> None:
    """A command that is typed again after an error was done, or is done then."""
    cut = TrackerLine(line, own.tracker.link, events_port(own))
    bob = settle(own, "bob", tracker=cut.link)
    wanted = [f"g{number}" for number in range(12)]
    for name in wanted:
        scissors = threading.Timer(rng.uniform(0.0, 0.02), cut.reset)
        scissors.start()

        def tried(name: str = name) -> int:
            ran = bob.run("create-group", name)
            assert ran.code in (0, 4), str(ran)
            return ran.code

        wait_for(tried, f"the group {name}", until=lambda code: code == 0)
        scissors.join()
    connected(bob)
    assert sorted(row["group"] for row in bob.json("list-groups")) == sorted(wanted)
