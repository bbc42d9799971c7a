"""The long rows of the tracker: hundreds of kills, thousands of peers, a minute of frost."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from common.crypto import keys
from common.ids import UserId
from common.link import parse_link
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.chaos.stage import Skipped, Stage
from tests.support.faults import MIB, begin, faults, frozen, settle
from tests.support.paths import ROOT
from tests.support.processes import Swarm
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for
from tracker.core.changes.accounts import AccountCreated, DeviceBound
from tracker.store.sqlite_store import SqliteStore
from tracker.store.tables import metadata

BACK_S = 60.0
FROST_S = 60.0


class Writer(threading.Thread):
    """Shares under one name after the other, and remembers what was acknowledged."""

    def __init__(self, device: Device, content: bytes, run: int) -> None:
        super().__init__(daemon=True)
        self.device = device
        self.content = content
        self.number = run
        self.done: list[str] = []
        self.over = threading.Event()

    def run(self) -> None:
        while True:
            name = f"r{self.number}-{len(self.done)}"
            request_id = self.device.send(tracker.Offer("lab", name, self.content))
            if (reply := self._answer(request_id)) is None:
                return
            assert not isinstance(reply, Refusal), reply
            self.done.append(name)

    def _answer(self, request_id: bytes) -> object:
        """The answer; None if none will come."""
        while True:
            try:
                return self.device.receive(request_id, timeout_s=0.2)
            except AssertionError:
                if self.over.is_set():
                    return None


def f01_every_answered_command_survives_200_kills(stage: Stage) -> str:
    """Killed while it commits; afterwards all is there, and the log has neither gap nor double."""
    kills, acknowledged = stage.count(200), set[str]()
    with stage.swarm() as swarm:
        first = Device(parse_link(swarm.tracker.link).first).enter("alice")
        first.request(tracker.CreateGroup("lab"))
        content = first.share("lab", "first")
        for run in range(kills):
            device = Device(parse_link(swarm.tracker.link).first, first.pair)
            writer = Writer(device, content, run)
            writer.start()
            wanted = stage.rng.randrange(1, 40)
            wait_for(lambda w=writer: len(w.done), "answers", until=lambda n, w=wanted: n >= w)
            swarm.tracker.kill()
            writer.over.set()
            writer.join(10.0)
            device.close()
            swarm.tracker.start()
            acknowledged |= set(writer.done)
            again = Device(parse_link(swarm.tracker.link).first, first.pair)
            for name in writer.done[-5:]:
                again.request(tracker.FindShare("lab", name))
            again.close()
        last = Device(parse_link(swarm.tracker.link).first, first.pair)
        log: list[events.LogEntry] = []
        seq, head = 0, 1
        while seq < head:
            page = last.request(tracker.EventsSince("lab", seq))
            log, head = log + page.entries, page.head
            seq = log[-1].seq
        files: set[str] = set()
        more, after = True, ""
        while more:
            listed = last.request(tracker.ListFiles("lab", after))
            files |= {row.name for row in listed.rows}
            more, after = listed.more, listed.rows[-1].name
        last.close()
        first.close()
        # Of a long log the latest entries alone are kept, without a gap among them.
        assert [entry.seq for entry in log] == list(range(log[0].seq, head + 1))
        told = [entry.event.name for entry in log if isinstance(entry.event, events.Shared)]
        assert len(set(told)) == len(told)
        assert acknowledged <= files, f"{len(acknowledged - files)} are lost"
    return f"{kills} kills, {len(acknowledged)} answered commands"


class Fleet:
    """Processes full of devices that are logged in by their keys."""

    def __init__(self, swarm: Swarm, pairs: list[keys.KeyPair], processes: int) -> None:
        self.reports = [{"up": 0, "times": 0} for _ in range(processes)]
        self.processes = []
        for number in range(processes):
            path = swarm.root / f"keys{number}"
            mine = pairs[number::processes]
            path.write_text("".join(f"{p.public.hex()} {p.secret.hex()}\n" for p in mine))
            words = [sys.executable, "-m", "tests.chaos.fleet", swarm.tracker.link, str(path)]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=ROOT, text=True)
            self.processes.append(process)
            threading.Thread(target=self._read, args=(number,), daemon=True).start()

    def _read(self, number: int) -> None:
        stdout = self.processes[number].stdout
        assert stdout is not None
        for text in stdout:
            self.reports[number] = json.loads(text)

    @property
    def up(self) -> int:
        return sum(report["up"] for report in self.reports)

    @property
    def times(self) -> int:
        return sum(report["times"] for report in self.reports)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def _with_accounts(swarm: Swarm, count: int) -> list[keys.KeyPair]:
    """End the tracker, and start it again with ``count`` users whose passwords match nothing:
    a device can log in by its key alone."""
    swarm.tracker.end()
    pairs = [keys.new_pair() for _ in range(count)]
    store = SqliteStore(swarm.tracker.home / "tracker.db")
    changes = []
    for number, pair in enumerate(pairs):
        user = UserId(f"u{number}")
        changes += [AccountCreated(user, "none", 1), DeviceBound(pair.public, user, 1)]
    store.commit(changes)
    store.close()
    swarm.tracker.start()
    return pairs


def f08_thousands_of_peers_are_back_within_a_minute(stage: Stage) -> str:
    """5,000 devices with the peer's own link to the tracker, which is killed under them."""
    count = stage.count(5000)
    if stage.left_s < 240:
        raise Skipped("there is not enough time left for it")
    with stage.swarm() as swarm:
        fleet = Fleet(swarm, _with_accounts(swarm, count), 3)
        try:
            wait_for(lambda: fleet.up, "the fleet", until=lambda n: n == count, patience_s=180.0)
            swarm.tracker.kill()
            wait_for(lambda: fleet.up, "its loss", until=lambda n: n == 0)
            swarm.tracker.start()
            began = time.monotonic()
            wait_for(lambda: fleet.up, "its return", until=lambda n: n == count, patience_s=120.0)
            took_s = time.monotonic() - began
        finally:
            fleet.end()
    assert took_s < BACK_S, f"{count} peers needed {took_s:.0f} s"
    return f"{count} peers back after {took_s:.1f} s"


def f04_a_minute_of_frost_holds_up_no_transfer_and_is_followed_by_no_herd(stage: Stage) -> str:
    """200 devices; one that came back stays, and comes no second time. Two peers exchange pieces
    all the while, long after they have missed the tracker."""
    count, frost_s = stage.count(200), FROST_S * max(stage.scale, 0.25)
    with stage.swarm() as swarm:
        alice, bob = settle(swarm, "alice", "--upload-limit", "256K"), settle(swarm, "bob")
        download = begin(alice, bob, round(frost_s) * MIB // 3)
        download.until(MIB // 4)
        fleet = Fleet(swarm, _with_accounts(swarm, count), 1)
        try:
            wait_for(lambda: fleet.up, "the fleet", until=lambda n: n == count, patience_s=120.0)
            before = fleet.times
            with frozen(swarm.tracker.process.pid):
                for _ in range(6):
                    held = download.verified
                    threading.Event().wait(frost_s / 6)
                    assert download.verified > held
                assert not bob.status()["connected"]
            wait_for(lambda: fleet.up, "its return", until=lambda n: n == count, patience_s=60.0)
            threading.Event().wait(12.0)  # longer than a link that is dead is believed in
            returns = fleet.times - before
            assert fleet.up == count
        finally:
            fleet.end()
        download.finishes(patience_s=120.0)
    assert returns <= 1.1 * count, f"{count} peers came back {returns} times"
    return f"{frost_s:.0f} s; {count} peers came back {returns} times in all"


SHORT_LIVES = {
    "RECEIPT_LIFE_S": 2,
    "TOMBSTONE_LIFE_S": 2,
    "UNSHARED_MANIFEST_LIFE_S": 2,
    "HOUSEKEEPING_S": 0.5,
    "LOG_ENTRIES_MAX": 100,
    "LOG_ENTRIES_KEPT": 50,
    "ENTRIES_BURST": 3_000,
    "ENTRIES_RATE": 40.0,
    "GROUPS_BURST": 50,
    "GROUPS_RATE": 1.0,
}
WRITING_S = 90.0


class Restless(threading.Thread):
    """A device that makes rows and takes them away again, one after the other."""

    def __init__(self, device: Device, steps: Callable[[int], list[object]]) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.done = self.refused = 0
        self._device = device
        self._steps = steps

    def run(self) -> None:
        turn = 0
        while not self.over.is_set():
            for command in self._steps(turn):
                # What takes a row away is not to be lost because a device may ask no faster.
                while (code := getattr(self._device.try_(command), "code", None)) is Code.BUSY:
                    self.refused += 1
                refused = code is not None
                self.refused += refused
                self.done += not refused
            turn += 1


def f51_one_account_that_writes_all_the_time_leaves_the_tables_flat(stage: Stage) -> str:
    """Groups, shares, logins and requests come and go as fast as one account may, on six devices.

    Times for which something is remembered, and budgets, are smaller than in the product, so that
    both have come to their end in the first half.
    """
    with stage.swarm() as swarm:
        with faults(limits=SHORT_LIVES):
            swarm.tracker.kill()
            swarm.tracker.start()
        at = parse_link(swarm.tracker.link).first
        owner, eve = Device(at).enter("owner"), Device(at).enter("eve")
        owner.request(tracker.CreateGroup("others"))
        for number in range(30):
            eve.request(tracker.CreateGroup(f"own{number}"))
        content = eve.share("own0", "first")
        kinds: list[Callable[[int], list[object]]] = [
            lambda n: [tracker.CreateGroup(f"g{n}"), tracker.LeaveGroup(f"g{n}")],
            lambda n: [tracker.Offer("own1", f"{n}", content), tracker.StopShare("own1", f"{n}")],
            lambda n: [tracker.Offer("own2", "a", content), tracker.StopShare("own2", "a")],
            lambda n: [tracker.JoinGroup("others"), tracker.LeaveGroup("others")],
            lambda n: [tracker.Logout(), tracker.Login("eve", "a password")],
            lambda n: [tracker.CreateUser(f"user{n}", "a password")],
        ]
        busy = [
            Restless(Device(at, eve.pair if number == 0 else None), steps)
            for number, steps in enumerate(kinds)
        ]
        for each in busy[1:]:
            each._device.request(tracker.Login("eve", "a password"))
        for each in busy:
            each.start()
        sizes: list[dict[str, int]] = []
        began = time.monotonic()
        while time.monotonic() < began + max(20.0, WRITING_S * stage.scale):
            threading.Event().wait(0.5)
            sizes.append(_table_sizes(swarm.tracker.home / "tracker.db"))
        for each in busy:
            each.over.set()
        for each in busy:
            each.join(30.0)
            each._device.close()
        for device in (owner, eve):
            device.close()
    half = len(sizes) // 2
    accounts = sum(each.done for each in busy[-1:])
    grown = {
        table: (early, late)
        for table in sizes[0]
        if table != "accounts"  # these stay; how many there may be is bounded
        for early in [max(size[table] for size in sizes[:half])]
        for late in [max(size[table] for size in sizes[half:])]
        if late > 1.1 * early + 50
    }
    assert not grown, f"the tables grow: {grown}"
    done, refused = (sum(getattr(each, what) for each in busy) for what in ("done", "refused"))
    most = max(size["log"] for size in sizes)
    return f"{done} writes, {refused} refused, {most} log entries at most, {accounts} accounts"


def _table_sizes(path: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        names = metadata.tables
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
