"""Tracker under test: a process of its own, and its CPU and memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from time import perf_counter

from benchmarks.processes import BenchmarkError

# Without the bound on the commands of one device, of which the load comes.
_PROGRAM = (
    "import mini_torrent_start; mini_torrent_start.collect_rarely(); from common import limits;"
    "limits.COMMAND_RATE = limits.COMMAND_BURST = 1e9; from tracker.cli import main; main()"
)


class TrackerProcess:
    """A running tracker, over ipc unless told otherwise. ``start_s``: until it was ready.

    ``database``: URL of PostgreSQL; empty for SQLite.
    """

    def __init__(
        self, home: Path, *, tcp: bool = False, endpoint: str = "", database: str = ""
    ) -> None:
        began = perf_counter()
        where = ["tcp://127.0.0.1:0"] * 2 if tcp else [f"ipc://{home}.c", f"ipc://{home}.e"]
        if endpoint:
            where[0] = endpoint
        program = [sys.executable, "-c", _PROGRAM, "run", "--home", str(home)]
        if database:
            program += ["--database", database]
        self._process = subprocess.Popen(
            [*program, "--bind", where[0], "--events", where[1]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        ready = self._process.stdout.readline().split()
        if not ready:
            raise BenchmarkError("the tracker did not start")
        self.link = ready[-1].decode()
        self.start_s = perf_counter() - began

    @property
    def cpu_s(self) -> float:
        """CPU of all threads."""
        return sum(map(self._cpu_of, self._folder.joinpath("task").iterdir()))

    @property
    def loop_s(self) -> float:
        """CPU of the event loop's thread alone."""
        return self._cpu_of(self._folder / "task" / str(self._process.pid))

    @property
    def memory(self) -> int:
        """Resident bytes."""
        for line in self._folder.joinpath("status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    @property
    def _folder(self) -> Path:
        return Path("/proc", str(self._process.pid))

    @staticmethod
    def _cpu_of(task: Path) -> float:
        return int((task / "schedstat").read_text().split()[0]) / 1e9

    def kill(self) -> None:
        """End it without warning."""
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End it in order."""
        self._process.terminate()
        self._process.wait()
