"""The long rows of several trackers: kills, frost and a database that ends, under writers."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time

from common.messages import tracker
from tests.chaos.stage import Stage
from tests.support.cluster import (
    ClusterWriter,
    TrackerCluster,
    cluster_of,
    log_of,
    names_in,
    names_listed,
)
from tests.support.faults import frozen
from tests.support.postgres import own_server
from tests.support.tracker_process import Device, TrackerProcess
from tests.support.waiting import wait_for

WRITERS = 4
PATIENCE_S = 60.0
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
            logs.append(log_of(reader, "lab"))
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
