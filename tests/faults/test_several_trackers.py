"""F36, F37, F145 to F154: several trackers on one database, with real processes."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator

import pytest

from common import limits
from common.link import Tracker, parse_link
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.chaos.crowd import Watcher
from tests.support.cluster import (
    ClusterWriter,
    Listener,
    TrackerCluster,
    cluster_of,
    log_of,
    names_in,
)
from tests.support.commit_eater import CommitEater
from tests.support.faults import MIB, begin, settle
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import PATIENCE_S, Device, Devices, TrackerProcess
from tests.support.waiting import wait_for
from tracker.store.cluster_tables import APPLICATION
from tracker.store.migrate import HEAD

PEER = "tcp://127.0.0.1:19000"


@pytest.fixture(scope="module")
def cluster() -> Iterator[TrackerCluster]:
    with cluster_of(2) as made:
        yield made


@pytest.fixture
def devices() -> Iterator[Devices]:
    made = Devices()
    yield made
    made.close()


def group_with(owner: Device, name: str, *members: tuple[Device, str]) -> str:
    owner.request(tracker.CreateGroup(name))
    for member, user in members:
        owner.let_in(name, member, user)
    return name


def test_f37_four_writers_at_two_trackers_leave_no_gap_and_no_double(
    cluster: TrackerCluster, devices: Devices
) -> None:
    one, two = cluster.trackers
    owner = devices(one.at).enter("f37owner")
    people = [(devices(each.at).enter(f"f37w{n}"), f"f37w{n}", n) for n, each in
              enumerate((one, two, one, two))]  # fmt: skip
    group = group_with(owner, "f37", *((device, user) for device, user, _ in people))
    contents = [device.share(group, f"first{n}", b"%d" % n) for device, _, n in people]
    listeners = [Listener(devices(each.at, owner.pair), group) for each in cluster.trackers]
    for listener in listeners:
        listener.start()
    writers = [
        ClusterWriter(cluster, device, group, content, n)
        for (device, _, n), content in zip(people, contents, strict=True)
    ]
    with contextlib.ExitStack() as writing:
        for writer in writers:
            writing.enter_context(writer)
        wait_for(lambda: all(each.has_done(25) for each in writers), "a hundred offers")
    for writer in writers:
        writer.end()
    log = max((log_of(devices(each.at, owner.pair), group) for each in cluster.trackers), key=len)
    for each in cluster.trackers:
        reader = devices(each.at, owner.pair)  # whose questions may be a moment behind
        wait_for(lambda who=reader: log_of(who, group), until=lambda found: found == log)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    shared = names_in(log)
    for writer in writers:
        for name in writer.done:
            assert shared.count(name) == 1, name
    for listener in listeners:
        wait_for(lambda who=listener: who.entries[-1].seq == log[-1].seq, "the last entry")
        listener.end()
        heard = listener.seqs()
        assert heard == list(range(heard[0], log[-1].seq + 1))
        assert listener.entries == log[heard[0] - 1 :]


def test_swarms_span_trackers(cluster: TrackerCluster, devices: Devices) -> None:
    one, two = cluster.trackers
    alice, bob = devices(one.at).enter("span-alice"), devices(two.at).enter("span-bob")
    group_with(alice, "span", (bob, "span-bob"))
    alice.share("span", "data")
    alice.announce(PEER)
    found = wait_for(lambda: bob.request(tracker.FindShare("span", "data")).sources)
    assert [source.endpoint for source in found] == [PEER]
    bob.subscribe()
    bob.follow_share("span", "data")
    alice.request(tracker.Depart())
    down = bob.next_event(lambda event: isinstance(event, events.PeerUpdate) and event.down)
    assert (down.up, down.down) == ([], [alice.key])
    alice.announce(PEER)
    up = bob.next_event(lambda event: isinstance(event, events.PeerUpdate))
    assert [source.device for source in up.up] == [alice.key]
    # Who moves is there throughout.
    moved = devices(two.at, alice.pair)
    moved.announce(PEER)
    found = wait_for(
        lambda: devices(one.at, bob.pair).request(tracker.FindShare("span", "data")).sources,
        until=lambda sources: len(sources) == 1,
    )
    assert [source.device for source in found] == [alice.key]


def test_f150_an_answer_of_one_tracker_holds_at_the_other_at_once(
    cluster: TrackerCluster, devices: Devices
) -> None:
    """No refusal comes from a tracker that is behind, and `Hello` finds what was done elsewhere."""
    one, two = cluster.trackers
    alice, bob = devices(one.at).enter("f150-alice"), devices(two.at).enter("f150-bob")
    content = b""
    for at in range(15):
        name = f"f150-{at}"
        alice.request(tracker.CreateGroup(name))
        bob.request(tracker.JoinGroup(name))
        alice.request(tracker.AcceptRequest(name, "f150-bob"))
        assert bob.request(tracker.EventsSince(name, 0)).head
        content = content or alice.share(name, "data")
        if at:
            alice.request(tracker.Offer(name, "data", content))
        assert bob.request(tracker.FindShare(name, "data")).row.content == content
        bob.request(tracker.LeaveGroup(name))
        refused = alice.try_(tracker.RemoveMember(name, "f150-bob"))
        assert isinstance(refused, Refusal)
    for at in range(10):
        device = devices(one.at)
        device.request(tracker.Login("f150-alice", "a password"))
        elsewhere = devices(two.at, device.pair)
        assert elsewhere.request(tracker.Hello()).user == "f150-alice", at


def test_f18_a_command_repeated_at_another_tracker_is_recognised(
    cluster: TrackerCluster, devices: Devices
) -> None:
    one, two = cluster.trackers
    alice = devices(one.at).enter("f18-alice")
    again = devices(two.at, alice.pair)
    for at in range(10):
        request_id = at.to_bytes(8, "big")
        command = tracker.CreateGroup(f"f18-{at}")
        assert alice.try_(command, request_id=request_id) == tracker.Done()
        assert again.try_(command, request_id=request_id) == tracker.Done()
        assert again.refused(command) is Code.TAKEN


def test_h157_guesses_at_two_trackers_count_at_both(
    cluster: TrackerCluster, devices: Devices
) -> None:
    one, two = cluster.trackers
    devices(one.at).enter("h157")
    guessers = [devices(one.at), devices(two.at)]
    codes = [guessers[at % 2].refused(tracker.Login("h157", "wrong one")) for at in range(12)]
    assert codes.count(Code.WRONG_CREDENTIALS) <= 6, codes
    assert set(codes[-2:]) == {Code.SLOW_DOWN}


def test_f35_without_listeners_nothing_is_lost(cluster: TrackerCluster, devices: Devices) -> None:
    one, two = cluster.trackers
    alice, bob = devices(one.at).enter("f35-alice"), devices(two.at).enter("f35-bob")
    group_with(alice, "f35", (bob, "f35-bob"))
    content = alice.share("f35", "first")
    listener = Listener(devices(two.at, bob.pair), "f35")
    listener.start()
    for at in range(5):
        database = cluster.database
        cluster.server.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            f" WHERE datname = '{database}' AND application_name = '{APPLICATION}'"
        )
        alice.request(tracker.Offer("f35", f"name{at}", content))
    head = log_of(alice, "f35")[-1].seq
    wait_for(lambda: listener.seqs() and listener.seqs()[-1] == head, "the last entry")
    listener.end()
    assert listener.seqs() == list(range(listener.seqs()[0], head + 1))


def test_f151_a_commit_of_a_later_release_is_refused_with_words(
    cluster: TrackerCluster, devices: Devices
) -> None:
    one, two = cluster.trackers
    alice, bob = devices(one.at).enter("f151-alice"), devices(two.at).enter("f151-bob")
    cluster.server.execute(
        "INSERT INTO changes SELECT max(serial) + 1, ''::bytea, ''::bytea, 0, 99, ''::bytea"
        " FROM changes",
        cluster.database,
    )
    group_with(alice, "f151", (bob, "f151-bob"))
    wait_for(lambda: one.logged("a tracker of a later release wrote it"), "words in the log")
    log = log_of(alice, "f151")
    elsewhere = devices(two.at, alice.pair)
    wait_for(lambda: log_of(elsewhere, "f151"), until=lambda found: found == log)


def test_f173_trackers_are_updated_one_after_the_other(
    cluster: TrackerCluster, devices: Devices
) -> None:
    """A writer goes on, and a follower at the other tracker misses nothing."""
    owner = devices(cluster.trackers[0].at).enter("f173")
    owner.request(tracker.CreateGroup("f173"))
    content = owner.share("f173", "first")
    with ClusterWriter(cluster, owner, "f173", content, 0) as writer:
        for at, updated in enumerate(cluster.trackers):
            listener = Listener(devices(cluster.trackers[1 - at].at, owner.pair), "f173")
            listener.start()
            assert updated.end() == 0
            for step in (updated.restart, lambda: None):
                wanted = len(writer.done) + 10
                wait_for(lambda wanted=wanted: writer.has_done(wanted), "ten offers")
                step()
            reader = devices(updated.at, owner.pair)
            reader.request(tracker.Hello())
            head = log_of(reader, "f173")[-1].seq
            wait_for(lambda who=listener, head=head: who.seqs()[-1] >= head, "the last entry")
            listener.end()
            assert listener.seqs() == list(range(listener.seqs()[0], listener.seqs()[-1] + 1))
    writer.end()
    shared = Counter(names_in(log_of(devices(cluster.trackers[0].at, owner.pair), "f173")))
    # Earlier ones may have left the log.
    kept = writer.done[-limits.LOG_ENTRIES_KEPT // 2 :]
    assert [name for name in kept if shared[name] != 1] == []


def test_f173_a_tracker_too_old_for_the_database_ends_with_words(
    cluster: TrackerCluster, devices: Devices
) -> None:
    """Those that serve already go on."""
    alice = devices(cluster.trackers[0].at).enter("f173-alice")
    schema = "UPDATE alembic_version SET version_num = '{}'"
    cluster.server.execute(schema.format("9999"), cluster.database)
    try:
        place = ("--bind", "tcp://127.0.0.1:0", "--database", cluster.url)
        late = TrackerProcess(cluster.root / "late", *place, wait=False)
        assert late.process.wait(PATIENCE_S) == 1
        wait_for(lambda: late.logged("schema 9999"), "words")
        alice.request(tracker.CreateGroup("f173-late"))
    finally:
        cluster.server.execute(schema.format(HEAD), cluster.database)


@pytest.mark.parametrize("lost", ["answer", "commit"])
def test_f153_a_commit_in_doubt_is_looked_up(
    cluster: TrackerCluster, devices: Devices, lost: str
) -> None:
    eater = CommitEater(cluster.server)
    group, users = f"f153{lost}", (f"f153{lost}-alice", f"f153{lost}-bob")
    with cluster.another(eater.url(cluster.url)) as two:
        alice = devices(cluster.trackers[0].at).enter(users[0])
        bob = devices(two.at).enter(users[1])
        group_with(alice, group, (bob, users[1]))
        content = bob.share(group, "first")
        names = [f"name{at}" for at in range(3)]
        for count, name in enumerate(names, 1):
            eater.eat(lost)
            bob.request(tracker.Offer(group, name, content))
            assert eater.eaten == count
        alice.request(tracker.Hello())  # which waits for the head
        log = log_of(alice, group)
        assert [names_in(log).count(name) for name in names] == [1, 1, 1]
        elsewhere = devices(two.at, alice.pair)
        wait_for(lambda: log_of(elsewhere, group), until=lambda found: found == log)
        said = "took place" if lost == "answer" else "did not happen"
        assert two.logged(f"the commit in doubt {said}")
    eater.close()


def test_a_tracker_that_ends_takes_its_devices_along_at_once(
    cluster: TrackerCluster, devices: Devices
) -> None:
    with cluster.another() as one:
        two, third = cluster.trackers[:2]
        alice, bob = devices(one.at).enter("ends-alice"), devices(two.at).enter("ends-bob")
        group_with(alice, "ends", (bob, "ends-bob"))
        alice.share("ends", "data")
        alice.announce(PEER)
        wait_for(lambda: bob.request(tracker.FindShare("ends", "data")).sources)
        bob.subscribe()
        bob.follow_share("ends", "data")
        assert one.end() == 0
        down = bob.next_event(lambda event: isinstance(event, events.PeerUpdate) and event.down)
        assert down.down == [alice.key]
        # Killed trackers of earlier tests may still be in the list.
        known = bob.request(tracker.Hello()).trackers
        assert {two.at.endpoint, third.at.endpoint} <= set(known)
        assert one.at.endpoint not in known


def test_budgets_of_a_user_count_at_all_trackers(cluster: TrackerCluster, devices: Devices) -> None:
    one, two = cluster.trackers
    alice = devices(one.at).enter("spender")
    sides, codes = (alice, devices(two.at, alice.pair)), list[Code | None]()
    while codes[-2:] != [Code.SLOW_DOWN] * 2 and len(codes) < 2 * limits.INVITATIONS_TRIED_BURST:
        wrong = tracker.Redeem(len(codes).to_bytes(32, "big"))
        codes.append(sides[len(codes) % 2].refused(wrong))
    assert len(codes) <= limits.INVITATIONS_TRIED_BURST + 3, codes


@pytest.mark.timeout(180)
def test_f36_a_killed_tracker_is_left_at_once_and_nothing_is_lost(
    cluster: TrackerCluster,
) -> None:
    """Peers go on at another tracker: commands, downloads and `watch`."""
    swarm = Swarm("tcp", tracker=False)
    swarm.tracker = cluster  # type: ignore[assignment]
    try:
        alice = settle(swarm, "f36-alice", "--upload-limit", "3M")
        bob = settle(swarm, "f36-bob")
        group = alice.group_with(bob)
        watcher = Watcher(bob.spawn("--json", "watch", group), group)
        download = begin(alice, bob, 6 * MIB, group=group)
        small = [swarm.file(20_000) for _ in range(6)]
        for path in small[:3]:
            alice.share(path, group)
        wait_for(lambda: watcher.seqs, "an event")
        download.until(MIB)
        (lost,) = (
            each for each in cluster.trackers if each.at.endpoint == tracker_of(alice).endpoint
        )
        lost.kill()
        for path in small[3:]:
            wait_for(lambda path=path: alice.run("upload-file", path, group).code == 0, "a command")
        download.finishes()
        # Alice's peer is a source there, and nothing that was acknowledged is lost.
        others = [each for each in cluster.trackers if each is not lost]
        assert tracker_of(alice).endpoint in [each.at.endpoint for each in others]
        rows = wait_for(
            lambda: bob.files(group),
            "all shares",
            until=lambda rows: (
                {path.name for path in small} <= rows.keys()
                and all(rows[path.name]["seeders"] == 1 for path in small)
                and rows[download.name]["seeders"] == 2
            ),
        )
        assert len(rows) == len(small) + 1
        alice.ok("create-group", swarm.fresh("after"))
        count = len(watcher.seqs)
        alice.share(swarm.file(20_000), group)
        wait_for(lambda: len(watcher.seqs) > count, "the last event")
        first, last = watcher.seqs[0], watcher.seqs[-1]
        assert watcher.seqs == list(range(first, last + 1))
        lost.restart()
    finally:
        swarm.close()


def tracker_of(who: Person) -> Tracker:
    """The tracker that a peer uses now: the first one of its link."""
    return parse_link(who.status()["tracker"]).first
