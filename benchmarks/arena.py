"""Where one run takes place: memory-backed folders with room enough, and addresses to listen on.

Owns temporary storage and places. A place is one node: an address of its own, on the loopback or
in a network namespace, and the way to start a program there.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.crew import BenchmarkError, Clock, Crew
from benchmarks.workloads import Workload

_MEMORY_BACKED = Path("/dev/shm")
_PREFIX = "mtb"
_FIRST_PORT = 20_000
_BALLAST_WRITE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Place:
    """One node. `address` is its own among those of an arena."""

    address: str
    namespace: str | None = None

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """The command line that runs `argv` here."""
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return prefix + [os.fspath(part) for part in argv]

    def free_port(self) -> int:
        """A port that nobody has; in a namespace of its own any is free."""
        if self.namespace:
            return _FIRST_PORT
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((self.address, 0))
            return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class Arena:
    """All that a contestant gets for one run."""

    workload: Workload
    source: Path
    """The content; read only."""
    root: Path
    """An empty folder that is removed after the run."""
    crew: Crew
    tracker: Place
    seeders: tuple[Place, ...]
    leechers: tuple[Place, ...]
    ballast: Path
    """A file as large as what will arrive; see `start_clock`."""

    def start_clock(self) -> Clock:
        """Begin the timed span: free the ballast and start counting.

        A virtual machine's free memory may have gone back to its host, and who touches it first
        again pays for it: several seconds a GiB, as much as a whole run. The ballast holds memory
        that has been touched, so that it is the next to be handed out, to everyone alike.
        """
        self.ballast.unlink(missing_ok=True)
        return Clock(self.crew)

    def folder(self, name: str) -> Path:
        """A new folder of this run."""
        path = self.root / name
        path.mkdir(parents=True)
        return path


def loopback_places(workload: Workload) -> tuple[Place, tuple[Place, ...], tuple[Place, ...]]:
    """Tracker, seeders and leechers with an address each.

    Own addresses, since some BitTorrent clients take one peer an address only.
    """
    places = [Place(f"127.0.0.{10 + i}") for i in range(1 + workload.seeders + workload.leechers)]
    return places[0], tuple(places[1 : 1 + workload.seeders]), tuple(places[1 + workload.seeders :])


def lay_ballast(path: Path, size: int) -> None:
    """Touch `size` bytes of memory and hold them in a file."""
    zeros = bytes(_BALLAST_WRITE_BYTES)
    with path.open("wb", buffering=0) as out:
        for _ in range(0, size, len(zeros)):
            out.write(zeros)


@contextmanager
def storage(bytes_needed: int) -> Iterator[Path]:
    """A folder in memory-backed storage with at least `bytes_needed` free, removed at the end."""
    if not _MEMORY_BACKED.is_dir():
        raise BenchmarkError(f"{_MEMORY_BACKED} is not there: no memory-backed storage to time in")
    _sweep()
    free = shutil.disk_usage(_MEMORY_BACKED).free
    if free < bytes_needed:
        raise BenchmarkError(
            f"{_MEMORY_BACKED} has {free >> 20} MiB free and {bytes_needed >> 20} MiB are needed"
        )
    # Short, because paths of ipc sockets are limited to about 100 bytes.
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=_MEMORY_BACKED))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep() -> None:
    """Remove the folders of runs that were killed."""
    for folder in _MEMORY_BACKED.glob(f"{_PREFIX}-*-*"):
        pid = folder.name.split("-")[1]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
