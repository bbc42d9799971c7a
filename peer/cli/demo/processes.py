"""Processes of the demo: a tracker and peers in a temporary directory.

Invariant: no process and no file of them is left afterwards, whatever happens.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import IO

from common.errors import StorageError
from common.hints import hint, shell_hint
from common.host import detached
from common.host.home import lock_holder
from common.messages import control
from common.units import size_text
from peer.cli import daemon_process
from peer.cli.signals import unbroken
from peer.control.client import CommandFailed, ControlClient, Ended

TRACKER_START_S = 60.0
END_S = 5.0


@contextlib.contextmanager
def temporary_directory(needed: int) -> Iterator[Path]:
    """A private directory with room for ``needed`` bytes, in memory if that has plenty of it."""
    places = [Path(tempfile.gettempdir()), Path("/var/tmp")]
    if _free_memory() >= 2 * needed:
        places.insert(0, Path("/dev/shm"))
    for place in places:
        if os.access(place, os.W_OK | os.X_OK) and shutil.disk_usage(place).free >= needed:
            break
    else:
        raise StorageError(
            f"the demo needs {size_text(needed)} of temporary space",
            hint("make room, set TMPDIR, or use less", "demo", options=("--size", "64M")),
        )
    directory = None
    try:
        with unbroken():
            directory = Path(tempfile.mkdtemp(prefix="mini-torrent-demo-", dir=place))
        yield directory
    finally:
        if directory is not None:
            with unbroken():
                shutil.rmtree(directory, ignore_errors=True)
        if directory is not None and directory.exists():
            raise StorageError(
                f"{directory} could not be removed",
                shell_hint("remove it", "rm", "-r", str(directory)),
            )


def _free_memory() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


# -- processes ----------------------------------------------------------------------------------


@dataclass(slots=True)
class DemoPeer:
    """One peer of the demo."""

    name: str
    home: Path
    folder: Path
    status: control.StatusIs

    def request(self, command: control.Command) -> Ended:
        """Return the answer; raises `CommandFailed` if it is refused."""
        with ControlClient(self.home) as client:
            return client.result(command)


@dataclass(slots=True)
class DemoProcesses:
    """The processes in ``directory``; `clear` ends every one of them."""

    directory: Path
    peers: list[DemoPeer] = field(default_factory=list)
    _homes: list[Path] = field(default_factory=list)
    _tracker: subprocess.Popen[bytes] | None = None

    @property
    def tracker_pid(self) -> int:
        return self._tracker.pid if self._tracker is not None else 0

    def start_tracker(self) -> str:
        """Start the tracker at a free port; returns its link."""
        log = self.directory / "tracker.log"
        words = ["-P", "-m", "tracker.cli", "run", "--bind", "tcp://127.0.0.1:0"]
        with open(log, "wb") as errors, unbroken():
            self._tracker = subprocess.Popen(
                [sys.executable, *words, "--home", str(self.directory / "tracker")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=detached.environment(),
                start_new_session=True,
            )
        assert self._tracker.stdout is not None
        line = _line_within(self._tracker.stdout, TRACKER_START_S)
        if not line.startswith("tracker ready: "):
            self._tracker.kill()
            raise CommandFailed(daemon_process.startup_error(log, 0, self._tracker.wait()))
        return line.removeprefix("tracker ready: ")

    def start_peer(self, name: str, link: str) -> DemoPeer:
        """Start a peer in a home of its own."""
        home = self.directory / name / "home"
        folder = self.directory / name / "files"
        folder.mkdir(parents=True)
        self._homes.append(home)
        options = {"tracker": link, "listen": "tcp://127.0.0.1:0"}
        status = daemon_process.start(home, options, remember=False)
        peer = DemoPeer(name, home, folder, status)
        self.peers.append(peer)
        return peer

    def clear(self) -> None:
        """End all processes: in order if they are able to, by force if they are not."""
        pids = [pid for home in self._homes if (pid := lock_holder(home))]
        for pid in pids:
            _kill(pid, signal.SIGTERM)
        if self._tracker is not None:
            self._tracker.terminate()
        deadline = monotonic() + END_S
        while any(map(detached.is_running, pids)) and monotonic() < deadline:
            sleep(0.02)
        for pid in pids:
            if detached.is_running(pid):
                _kill(pid, signal.SIGKILL)
        if self._tracker is not None:
            try:
                self._tracker.wait(END_S)
            except subprocess.TimeoutExpired:
                self._tracker.kill()
                self._tracker.wait()
        daemon_process.reap()


def _kill(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _line_within(stream: IO[bytes], timeout_s: float) -> str:
    """The next line of a process; empty when none comes in time or it ended."""
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(timeout_s)
    return found[0].decode("utf-8", "replace").strip() if found else ""
