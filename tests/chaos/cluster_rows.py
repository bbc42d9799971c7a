"""The long rows of several trackers: kills, frost and a database that ends, under writers."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time

from common.link import parse_link
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.chaos.crowd import Watcher
from tests.chaos.stage import Stage
from tests.support.cluster import (
    ClusterWriter,
    TrackerCluster,
    cluster_of,
    log_of,
    names_in,
    names_listed,
)
from tests.support.commit_eater import SOCKET
from tests.support.faults import MIB, begin, frozen, settle
from tests.support.faulty_link import links
from tests.support.postgres import Server, own_server
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import Device, TrackerProcess
from tests.support.waiting import wait_for

WRITERS = 4
PATIENCE_S = 60.0
PEERS = 5
COMMANDS = 30  # a fault comes after at most that many


class Town:
    """Writers of one group, spread over the trackers of a cluster."""

    def __init__(self, cluster: TrackerCluster) -> None:
        self.cluster = cluster
        self.owner = self._device(0).enter("owner")
        self.owner.request(tracker.CreateGroup("lab"))
        self.writers = []
        for number in range(WRITERS):
            device = self._device(number).enter(f"w{number}")
            self.owner.let_in("lab", device, f"w{number}")
            content = device.share("lab", f"first{number}", b"%d" % number)
            self.writers.append(ClusterWriter(cluster, device, "lab", content, number))
        for writer in self.writers:
            writer.start()

    def _device(self, number: int) -> Device:
        where = self.cluster.trackers[number % len(self.cluster.trackers)]
        return Device(where.at)

    @property
    def done(self) -> int:
        return sum(len(writer.done) for writer in self.writers)

    def goes_on(self) -> float:
        """Wait until every writer was answered again; return how long that took."""
        began, before = time.monotonic(), [len(writer.done) for writer in self.writers]
        wait_for(
            lambda: all(
                len(writer.done) > count or writer.error is not None
                for writer, count in zip(self.writers, before, strict=True)
            ),
            "an answer to every writer",
            patience_s=PATIENCE_S,
        )
        return time.monotonic() - began

    def does(self, commands: int) -> None:
        """Wait until so many commands more were acknowledged, or every writer has failed."""
        wanted = self.done + commands
        wait_for(
            lambda: self.done >= wanted or all(writer.error for writer in self.writers),
            f"{commands} commands",
            patience_s=PATIENCE_S,
        )

    def check(self) -> int:
        """Whether the log is whole and the same everywhere; return its length."""
        for writer in self.writers:
            writer.end()
        logs, listed = [], []
        for each in self.cluster.trackers:
            reader = Device(each.at, self.owner.pair)
            reader.request(tracker.Hello())  # which waits for the head
            # Of a database that was frozen the first page may be refused.
            logs.append(wait_for(lambda who=reader: log_of(who, "lab"), "the log"))
            listed.append(names_listed(reader, "lab"))
            reader.close()
        assert all(log == logs[0] for log in logs)
        assert all(names == listed[0] for names in listed)
        # A long log has lost its oldest entries.
        seqs = [entry.seq for entry in logs[0]]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
        shared = names_in(logs[0])
        for writer in self.writers:
            for name in writer.done:
                assert name in listed[0], name
                assert shared.count(name) <= 1, name
        return seqs[-1]


def f36_trackers_die_and_freeze_under_writers(stage: Stage) -> str:
    """Nothing acknowledged is lost or done twice; the others go on."""
    worst, kills = {"killed": 0.0, "frozen": 0.0, "ended": 0.0}, stage.count(12)
    with own_server() as server, cluster_of(3, server) as cluster:
        town = Town(cluster)
        for _ in range(kills):
            victim, how = stage.rng.choice(cluster.trackers), stage.rng.choice(list(worst))
            town.goes_on()
            town.does(stage.rng.randrange(COMMANDS))
            worst[how] = max(worst[how], _harm(victim, how, town))
        length = town.check()
    pauses = ", ".join(f"{how} {pause_s:.1f} s" for how, pause_s in worst.items())
    return f"{kills} times; {town.done} acknowledged of {length}; longest pauses: {pauses}"


def _harm(victim: TrackerProcess, how: str, town: Town) -> float:
    if how == "frozen":
        with frozen(victim.process.pid):
            return town.goes_on()
    if how == "ended":
        assert victim.end() == 0
    else:
        victim.kill()
    pause_s = town.goes_on()
    victim.restart()
    return pause_s


def f34_the_database_ends_under_writers_at_two_trackers(stage: Stage) -> str:
    """Questions are answered from memory meanwhile; the log is whole afterwards."""
    ends, worst = stage.count(6), 0.0
    with own_server() as server, cluster_of(2, server) as cluster:
        town = Town(cluster)
        for _ in range(ends):
            town.goes_on()
            how = stage.rng.choice([signal.SIGINT, signal.SIGKILL])
            server.end(how)
            reader = Device(stage.rng.choice(cluster.trackers).at, town.owner.pair)
            assert reader.request(tracker.ListFiles("lab")).rows
            reader.close()
            server.start()
            worst = max(worst, town.goes_on())
        length = town.check()
        refused = sum(writer.refused for writer in town.writers)
    return (
        f"{ends} ends; {town.done} acknowledged of {length}, {refused} refused meanwhile;"
        f" longest pause {worst:.1f} s"
    )


def f174_a_frozen_tracker_is_left_and_devices_spread_again(stage: Stage) -> str:
    """Peers: commands, downloads and `watch` go on at another tracker; it gets its share back."""
    worst, rounds = 0.0, stage.count(3)
    swarm = Swarm("tcp", tracker=False)
    try:
        with own_server() as server, cluster_of(2, server) as cluster:
            swarm.tracker = cluster  # type: ignore[assignment]
            people = [settle(swarm, f"p{at}", "--upload-limit", "1M") for at in range(PEERS)]
            group = people[0].group_with(*people[1:])
            watchers = [Watcher(who.spawn("--json", "watch", group), group) for who in people[:2]]
            for number in range(rounds):
                download = begin(people[0], people[1], 12 * MIB, group=group)
                download.until(MIB)
                left = cluster.trackers[number % 2]
                at = left.at.endpoint
                began = time.monotonic()
                with frozen(left.process.pid):
                    for who in people:
                        _leaves(who, at)
                        who.share(swarm.file(20_000), group)
                        worst = max(worst, time.monotonic() - began)
                    download.finishes()
                wait_for(
                    lambda: abs(_online(cluster, 0) - _online(cluster, 1)) <= 1,
                    "as many devices at one tracker as at the other",
                    until=lambda even: even,
                    patience_s=2 * PATIENCE_S,
                )
            people[0].share(swarm.file(20_000), group)
            owner = people[0].json("list-files", group)
            assert len(owner) == rounds * (PEERS + 1) + 1
            wait_for(lambda: watchers[0].seqs[-1:] == watchers[1].seqs[-1:], "the last event")
            for watcher in watchers:
                first, last = watcher.seqs[0], watcher.seqs[-1]
                assert watcher.seqs == list(range(first, last + 1))
    finally:
        swarm.close()
    return f"{rounds} times, {PEERS} peers; the last one worked elsewhere after {worst:.1f} s"


def _leaves(who: Person, endpoint: str) -> None:
    """Wait until a peer is at another tracker than the one at ``endpoint``."""
    wait_for(
        lambda: parse_link(who.status()["tracker"]).first.endpoint,
        "another tracker",
        until=lambda found: found != endpoint,
        patience_s=PATIENCE_S,
    )


def _online(cluster: TrackerCluster, number: int) -> int:
    """Number of devices at one tracker, as it tells the others."""
    endpoint = cluster.trackers[number].at.endpoint
    query = f"SELECT connections FROM trackers WHERE endpoint = '{endpoint}'"
    [[count]] = cluster.server.execute(query, cluster.database) or [[-PEERS]]
    return int(str(count))


def f175_a_frozen_database_is_waited_out(stage: Stage) -> str:
    """Questions are answered, changes and log pages refused in bounded time; then all goes on."""
    slowest = dict.fromkeys(("greeting", "question", "change", "log page"), 0.0)
    frost_s, rounds = 25.0 * max(0.5, stage.scale), stage.count(3)
    with own_server() as server, cluster_of(2, server) as cluster:
        town = Town(cluster)
        readers = [Device(each.at, town.owner.pair) for each in cluster.trackers]
        for number in range(rounds):
            town.goes_on()
            for reader in readers:
                log_of(reader, "lab")  # so that there are connections which freeze
            server.freeze()
            ends_at = time.monotonic() + frost_s
            while time.monotonic() < ends_at:
                for reader in readers:
                    for what, command, code in (
                        ("greeting", tracker.Hello(), None),
                        ("question", tracker.ListFiles("lab"), None),
                        ("change", tracker.CreateGroup(f"never{number}"), Code.READ_ONLY),
                        ("log page", tracker.EventsSince("lab", 0), Code.STORAGE),
                    ):
                        began = time.monotonic()
                        reply = reader.try_(command)
                        slowest[what] = max(slowest[what], time.monotonic() - began)
                        assert (reply.code if isinstance(reply, Refusal) else None) is code, reply
            server.thaw()
        town.goes_on()
        length = town.check()
    times = ", ".join(f"{what} {longest_s:.1f} s" for what, longest_s in slowest.items())
    return f"{rounds} times; {town.done} acknowledged of {length}; slowest answers: {times}"


def f176_a_synchronous_standby_takes_over_and_nothing_is_lost(stage: Stage) -> str:
    """The primary is killed, or stays frozen for ever, under writers."""
    notes = []
    for how in ("killed", "frozen"):
        with own_server() as primary, own_server(of=primary) as standby:
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.execute("SELECT pg_reload_conf()")
            with cluster_of(2, primary, _either(primary, standby)) as cluster:
                town = Town(cluster)
                town.does(stage.rng.randrange(50, 150))
                if how == "killed":
                    primary.end(signal.SIGKILL)
                else:
                    primary.freeze()
                standby.execute("SELECT pg_promote()")
                pause_s = town.goes_on()
                town.does(20)
                length = town.check()
                assert not any(each.logged("has lost commits") for each in cluster.trackers)
                notes.append(f"{how}: {town.done} acknowledged of {length}, pause {pause_s:.1f} s")
    return "; ".join(notes)


def _either(primary: Server, standby: Server) -> str:
    """The URL of a database at whichever server can be written."""
    name = primary.url("").partition("?")[0]
    primary.execute("CREATE DATABASE town")
    return f"{name}town?host={primary.folder},{standby.folder}&target_session_attrs=read-write"


def f177_a_standby_without_the_last_commits_takes_over(stage: Stage) -> str:
    """All trackers load it and have the same state; groups get numbers that were never used."""
    with (
        own_server() as primary,
        own_server(of=primary) as standby,
        cluster_of(2, primary, _either(primary, standby)) as cluster,
    ):
        owner = Device(cluster.trackers[0].at).enter("owner")
        owner.request(tracker.CreateGroup("lab"))
        content = owner.share("lab", "before")
        [[reached]] = primary.execute("SELECT pg_current_wal_lsn()")
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{reached}'"
        wait_for(lambda: standby.execute(replayed)[0][0], "the commits at the standby")
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
        standby.execute("SELECT pg_reload_conf()")
        receives = "SELECT count(*) = 0 FROM pg_stat_wal_receiver"
        wait_for(lambda: standby.execute(receives)[0][0], "the end of replication")
        for number in range(stage.count(20)):
            owner.request(tracker.Offer("lab", f"lost{number}", content))
        seq = log_of(owner, "lab")[-1].seq
        primary.end(signal.SIGKILL)
        standby.execute("SELECT pg_promote()")
        readers = [Device(each.at, owner.pair) for each in cluster.trackers]
        for reader in readers:
            wait_for(
                lambda who=reader: who.try_(tracker.Offer("lab", "after", content)),
                until=lambda reply: not isinstance(reply, Refusal),
            )
        logs = []
        for reader in readers:
            reader.request(tracker.Hello())
            assert names_listed(reader, "lab") == {"before", "after"}
            logs.append(log_of(reader, "lab"))
        assert logs[0] == logs[1]
        assert logs[0][-1].seq > seq + 1_000
        # The first that meets it says so, and leaves a gap in the journal for all others.
        assert any(each.logged("has lost commits") for each in cluster.trackers)
        assert all(each.logged("the database was loaded anew") for each in cluster.trackers)
    return f"the log goes on at {logs[0][-1].seq} after {seq}"


def f178_a_tracker_alone_is_cut_off_from_the_database(stage: Stage) -> str:
    """The others go on; it answers questions, refuses changes, and misses nothing."""
    slowest, worst, rounds = 0.0, 0.0, stage.count(4)
    with links() as make, own_server() as server, cluster_of(2, server) as cluster:
        line = make(server.folder / SOCKET)
        through = f"postgresql://tracker@{line.host}:{line.port}/{cluster.database}"
        with cluster.another(through) as alone:
            town = Town(cluster)
            reader = Device(alone.at, town.owner.pair)
            for number in range(rounds):
                town.goes_on()
                town.does(stage.rng.randrange(COMMANDS))
                stage.rng.choice([line.hold, line.refuse])()
                town.does(COMMANDS)  # at the others
                for command, code in (
                    (tracker.CreateGroup(f"never{number}"), Code.READ_ONLY),
                    (tracker.ListFiles("lab"), None),
                ):
                    began = time.monotonic()
                    reply = reader.try_(command)
                    slowest = max(slowest, time.monotonic() - began)
                    assert (reply.code if isinstance(reply, Refusal) else None) is code, reply
                line.heal()
                worst = max(worst, town.goes_on())
            length = town.check()
            reader.close()
    return (
        f"{rounds} times; {town.done} acknowledged of {length}; slowest answer {slowest:.1f} s;"
        f" all go on after {worst:.1f} s"
    )


def f37_writers_and_lost_listeners_for_a_minute(stage: Stage) -> str:
    """Connections to the database are cut at random, those of turns included."""
    with own_server() as server, cluster_of(2, server) as cluster:
        town, over = Town(cluster), threading.Event()
        cuts = threading.Thread(target=_cut, args=(cluster, stage.rng, over), daemon=True)
        cuts.start()
        ends_at = time.monotonic() + 60.0 * stage.scale
        while time.monotonic() < ends_at:
            town.goes_on()
        over.set()
        cuts.join()
        length = town.check()
    return f"{town.done} acknowledged of {length}"


def _cut(cluster: TrackerCluster, rng: random.Random, over: threading.Event) -> None:
    """End one connection of a tracker to the database now and then."""
    while not over.wait(rng.uniform(0.1, 0.6)):
        with contextlib.suppress(Exception):
            cluster.server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                f" WHERE datname = '{cluster.database}' AND pid <> pg_backend_pid()"
                f" ORDER BY pid OFFSET {rng.randrange(6)} LIMIT 1"
            )
