"""Reaper: no process and no file of a test's swarm outlives the test's own process.

It is started beside each swarm, as a process in a session of its own, and holds the end of a pipe.
When the pipe breaks, since the tests ended or were killed, it ends every process that bears the
swarm's directory in its command line or in the environment that it was started with, and removes
the directory. `sweep` does the same from within. The name of the directory is random, so no other
process bears it. Why the environment: `up` may start a peer as a copy of itself, and a copy shows
the command line of `up`, which names no home if that comes from HOME.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SWEEP_S = 10.0


def start(root: Path) -> subprocess.Popen[bytes]:
    """A keeper of ``root``; close its standard input to let it sweep."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, str(root)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )


def processes_of(root: Path) -> list[int]:
    """The processes that were started for ``root``, keepers and ourselves excepted."""
    wanted, keeper = os.fsencode(root), os.fsencode(__file__)
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = _read(entry, "cmdline")
            if keeper not in words.split(b"\0") and wanted in words + _read(entry, "environ"):
                found.append(int(entry))
    return found


def _read(entry: str, name: str) -> bytes:
    with open(f"/proc/{entry}/{name}", "rb") as file:
        return file.read()


def sweep(root: Path) -> list[int]:
    """End every process of ``root`` and remove it; return the ended ones."""
    ended: list[int] = []
    deadline = time.monotonic() + SWEEP_S
    while (alive := processes_of(root)) and time.monotonic() < deadline:
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        ended += [pid for pid in alive if pid not in ended]
        _reap(alive)
        time.sleep(0.02)
    shutil.rmtree(root, ignore_errors=True)
    return ended


def _reap(pids: list[int]) -> None:
    # Our own children stay visible until their exit codes are collected.
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    sweep(Path(sys.argv[1]))
