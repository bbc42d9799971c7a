"""Durable offers a second: of one tracker on SQLite, and of one and two on PostgreSQL.

Owns: the devices that offer, with a fixed number of commands on their way at each tracker. Not
here: the server of PostgreSQL (see tests.support.postgres). All databases are on a disk, in the
folder of temporary files.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import zmq

from benchmarks.tracker.contents import Plan, content_of, fill, group_of
from benchmarks.tracker.process import TrackerProcess
from benchmarks.tracker.questions import Asker
from common.crypto.keys import KeyPair
from common.messages import tracker
from tests.support.postgres import own_server
from tracker.store.postgres_store import PostgresStore
from tracker.store.sqlite_store import SqliteStore

DEVICES = 8  # at each tracker, each of a user with a group of its own
RUN_S = 6.0
_KEYS = ("curve.key", "signing.key", "inbox.key")


def durable_offers(on_way: int) -> Iterator[tuple[str, str]]:
    """Offers with ``on_way`` commands on their way at each tracker."""
    with tempfile.TemporaryDirectory(prefix="mt") as text:
        folder = Path(text)
        home = _home(folder, "sqlite")
        pairs = fill(SqliteStore(home / "tracker.db"), _plan(1))
        yield f"offers ×{on_way}, SQLite", _load([TrackerProcess(home)], pairs, on_way)
        for count in (1, 2):
            with own_server() as server:
                url = server.database()
                homes = [_home(folder, f"pg{count}", url)]
                for number in range(1, count):
                    homes.append(folder / f"pg{count}-{number}")
                    homes[-1].mkdir(mode=0o700)
                    for name in _KEYS:
                        shutil.copy2(homes[0] / name, homes[-1] / name)
                pairs = fill(PostgresStore(url), _plan(count))
                trackers = [TrackerProcess(each, database=url) for each in homes]
                name = f"offers ×{on_way}, PostgreSQL, trackers: {count}"
                yield name, _load(trackers, pairs, on_way)


def _home(folder: Path, name: str, database: str = "") -> Path:
    home = folder / name
    home.mkdir(mode=0o700)
    TrackerProcess(home, database=database).end()  # makes its keys and its tables
    return home


def _plan(trackers: int) -> Plan:
    count = DEVICES * trackers
    return Plan(accounts=count, groups=count, shares=count, offers=1, entries=10, pairs=count)


def _load(trackers: list[TrackerProcess], pairs: list[KeyPair], on_way: int) -> str:
    with contextlib.ExitStack() as stack:
        for each in trackers:
            stack.callback(each.end)
        context, poller = zmq.Context(), zmq.Poller()
        stack.callback(context.term)
        askers = []
        for number, pair in enumerate(pairs):
            asker = Asker(context, trackers[number % len(trackers)], pair)
            stack.callback(asker.close)
            poller.register(asker.socket, zmq.POLLIN)
            askers.append(asker)
        numbers = {asker.socket: number for number, asker in enumerate(askers)}
        sent = done = 0

        def send(number: int) -> None:
            nonlocal sent
            group = group_of(number)
            askers[number].send(tracker.Offer(group, f"new{sent}", content_of(group, 0)))
            sent += 1

        began, cpu_s = perf_counter(), sum(each.cpu_s for each in trackers)
        for number in [*range(len(askers))] * (on_way // DEVICES):
            send(number)
        while (took_s := perf_counter() - began) < RUN_S:
            for socket, _ in poller.poll(1_000):
                number = numbers[socket]
                askers[number].taken(askers[number].receive())
                done += 1
                send(number)
        cpu_s = sum(each.cpu_s for each in trackers) - cpu_s
        return f"{done / took_s:,.0f}/s, {1e6 * cpu_s / done:.0f} µs of their CPU each"
