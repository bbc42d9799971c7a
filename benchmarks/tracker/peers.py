"""Logged-in peers: what each costs at rest, and their return after a restart of the tracker.

Owns: the processes full of devices, each with the peer's own link to the tracker
(`tests.chaos.fleet`).
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

from benchmarks.processes import BenchmarkError
from benchmarks.tracker.process import TrackerProcess
from common.crypto.keys import KeyPair, new_pair
from common.ids import UserId
from common.link import parse_link
from tests.support.paths import ROOT
from tracker.core.changes.accounts import AccountCreated, DeviceBound
from tracker.store.sqlite_store import SqliteStore

PROCESSES = 4
REST_S = 20.0
SETTLE_S = 12.0  # longer than the pause between two announcements
PATIENCE_S = 300.0
KIB = 1024


class Fleet:
    """Devices that stay connected to a tracker, in several processes."""

    def __init__(self, folder: Path, link: str, pairs: list[KeyPair]) -> None:
        self._up = [0] * PROCESSES
        self._processes = [
            self._start(number, folder, link, pairs[number::PROCESSES])
            for number in range(PROCESSES)
        ]

    def _start(
        self, number: int, folder: Path, link: str, pairs: list[KeyPair]
    ) -> subprocess.Popen[bytes]:
        keys = folder / f"keys{number}"
        keys.write_text("".join(f"{p.public.hex()} {p.secret.hex()}\n" for p in pairs))
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.fleet", link, str(keys)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )
        threading.Thread(target=self._read, args=(number, process), daemon=True).start()
        return process

    def _read(self, number: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._up[number] = json.loads(line)["up"]

    def wait(self, reached: Callable[[int], bool]) -> float:
        """Wait until the number of devices that are up fits; return the seconds."""
        began = monotonic()
        while not reached(sum(self._up)):
            if monotonic() - began > PATIENCE_S:
                raise BenchmarkError(f"{sum(self._up)} devices are up after {PATIENCE_S:.0f} s")
            sleep(0.1)
        return monotonic() - began

    def end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def held_through_a_restart(home: Path, count: int) -> Iterator[tuple[str, str]]:
    """Hold ``count`` peers, and kill the tracker under them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    pairs = [new_pair() for _ in range(count)]
    store = SqliteStore(home / "tracker.db")
    for number, pair in enumerate(pairs):
        user = UserId(f"u{number}")
        store.commit([AccountCreated(user, "none", 1), DeviceBound(pair.public, user, 1)])
    store.close()
    process = TrackerProcess(home, tcp=True)
    empty = process.memory
    fleet = Fleet(home, process.link, pairs)
    try:
        yield f"{count:,} peers come up", f"{fleet.wait(lambda up: up == count):.1f} s"
        sleep(SETTLE_S)
        before, began = process.cpu_s, monotonic()
        sleep(REST_S)
        ms = 1e3 * (process.cpu_s - before) / (monotonic() - began) / count
        yield "at rest, CPU a peer", f"{ms:.3f} ms/s"
        yield "memory a peer", f"{(process.memory - empty) / count / KIB:.0f} KiB"
        where = parse_link(process.link).first.endpoint
        process.kill()
        fleet.wait(lambda up: up == 0)
        process = TrackerProcess(home, endpoint=where)
        took_s = fleet.wait(lambda up: up == count)
        yield f"{count:,} peers are back", f"{took_s:.1f} s, {process.cpu_s:.1f} CPU-s"
    finally:
        fleet.end()
        process.kill()
