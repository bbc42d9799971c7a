"""Environment of one run: memory-backed folders of the needed size, and network nodes.

Owns: temporary storage and nodes. A node is a network address of its own, on the loopback or in a
network namespace, and the way to start a program there.
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

from benchmarks.processes import BenchmarkError, Clock, ProcessGroup
from benchmarks.workloads import Workload

_MEMORY_BACKED = Path("/dev/shm")
_PREFIX = "mtb"
_FIRST_PORT = 20_000
_BALLAST_WRITE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Node:
    """One node. No two nodes of a run have the same `address`."""

    address: str
    namespace: str | None = None

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        """Return the command line that runs `argv` on this node."""
        prefix = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        return prefix + [os.fspath(part) for part in argv]

    def free_port(self) -> int:
        """Return a free port; in a namespace of its own every port is free."""
        if self.namespace:
            return _FIRST_PORT
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((self.address, 0))
            return int(probe.getsockname()[1])


@dataclass(frozen=True, slots=True)
class RunEnvironment:
    """All that a contestant gets for one run."""

    workload: Workload
    source: Path
    """The content; read only."""
    root: Path
    """An empty folder that is removed after the run."""
    processes: ProcessGroup
    tracker: Node
    seeders: tuple[Node, ...]
    leechers: tuple[Node, ...]
    ballast: Path
    """A file as large as the expected output; see `start_clock`."""
    earlier: Path | None = None
    """The content that the leecher of an update has; read only."""

    def start_clock(self) -> Clock:
        """Begin the timed span: free the ballast and start counting.

        Why: free memory of a virtual machine may have gone back to its host. The first process that
        touches it again pays several seconds a GiB, as much as a whole run. The ballast is memory
        that was touched before; the kernel hands it out next, to every contestant alike.
        """
        self.ballast.unlink(missing_ok=True)
        return Clock(self.processes)

    def folder(self, name: str) -> Path:
        """A new folder of this run."""
        path = self.root / name
        path.mkdir(parents=True)
        return path


def loopback_nodes(workload: Workload) -> tuple[Node, tuple[Node, ...], tuple[Node, ...]]:
    """Return tracker, seeders and leechers with one address each.

    Why: some BitTorrent clients accept only one peer for each address.
    """
    nodes = [Node(f"127.0.0.{10 + i}") for i in range(1 + workload.seeders + workload.leechers)]
    return nodes[0], tuple(nodes[1 : 1 + workload.seeders]), tuple(nodes[1 + workload.seeders :])


def write_ballast(path: Path, size: int) -> None:
    """Touch `size` bytes of memory and keep them in a file."""
    zeros = bytes(_BALLAST_WRITE_BYTES)
    with path.open("wb", buffering=0) as out:
        for _ in range(0, size, len(zeros)):
            out.write(zeros)


@contextmanager
def temporary_storage(bytes_needed: int) -> Iterator[Path]:
    """A folder in memory-backed storage with at least `bytes_needed` free, removed at the end."""
    if not _MEMORY_BACKED.is_dir():
        raise BenchmarkError(f"{_MEMORY_BACKED} is not there: no memory-backed storage to time in")
    _sweep()
    free = shutil.disk_usage(_MEMORY_BACKED).free
    if free < bytes_needed:
        raise BenchmarkError(
            f"{_MEMORY_BACKED} has {free >> 20} MiB free and {bytes_needed >> 20} MiB are needed"
        )
    # Limits: the path of an ipc socket has at most about 100 bytes, so the name is short.
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
