"""Steps of many fault rows: faults in processes, small disks, the damage."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from common.host.home import lock_holder
from common.link import parse_link
from common.messages import tracker
from tests.support.faulty_link import SourceLine
from tests.support.processes import Person, Swarm
from tests.support.tracker_process import Device
from tests.support.waiting import wait_for

TAMPER = Path(__file__).parent / "tamper"
MIB = 1024 * 1024
PIECE = 16 * 1024
DISK_BYTES = 24 * MIB


@contextlib.contextmanager
def faults(**what: Any) -> Iterator[None]:
    """Processes that are started within have these faults (``tamper/sitecustomize``)."""
    before = os.environ.get("PYTHONPATH")
    path = f"{TAMPER}{os.pathsep}{before}" if before else str(TAMPER)
    with mock.patch.dict(os.environ, {"FAULTS": json.dumps(what), "PYTHONPATH": path}):
        yield


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """The process stands still within."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def without_descriptors(pid: int) -> Iterator[None]:
    """The process can open nothing more within."""
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Those that it has stay open, whatever their numbers.
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid: int) -> int:
    """Memory of its own: that of mapped files, which the system may take back, is not counted."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 if found else 0


class Highest(threading.Thread):
    """Watches how much memory a process takes at most."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid = pid
        self.bytes = 0
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.wait(0.05):
                self.bytes = max(self.bytes, resident_bytes(self.pid))

    def end(self) -> int:
        self._over.set()
        self.join()
        return self.bytes


# -- disks ----------------------------------------------------------------------------------------


@dataclass
class Small:
    """A disk of 24 MiB, or one whose device can shrink under its file system."""

    path: Path
    image: Path | None = None

    def fill(self) -> None:
        """Nothing more goes onto it; with a ``thin`` one, that shows when it is synced."""
        _fill(self._filled)

    def empty(self) -> None:
        (self._filled / "filler").unlink()

    @property
    def _filled(self) -> Path:
        return self.path if self.image is None else self.image.parent

    def unplug(self) -> None:
        """Its files are gone from its place, where an empty folder is left."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)

    def plug(self) -> None:
        """They are back."""
        assert self.image is not None
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.path)], check=True)

    def break_(self) -> None:
        """Bytes beyond the first MiB can no longer be read or written: EIO."""
        self._resize(MIB)

    def mend(self) -> None:
        self._resize(DISK_BYTES)

    def _resize(self, size: int) -> None:
        assert self.image is not None
        os.truncate(self.image, size)
        found = subprocess.run(
            ["losetup", "-j", str(self.image)], check=True, capture_output=True, text=True
        )
        device = found.stdout.partition(":")[0]
        subprocess.run(["losetup", "-c", device], check=True)


def _fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for block in (64 * 1024, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(block))


@contextlib.contextmanager
def small_disk(base: Path, kind: str) -> Iterator[Small]:
    """Mount ``tmpfs``, or ``ext4`` on a loop device; ``thin``: has less space than it reports."""
    disk, below = base / "disk", base / "below"
    image = None if kind == "tmpfs" else below / "image"
    words = ["-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "tmpfs"]
    for path in (disk, below):
        path.mkdir()
    if kind == "thin":
        _mount(*words, below)
    if image is not None:
        with image.open("wb") as file:
            file.truncate(DISK_BYTES)
        make = [
            "mkfs.ext4",
            "-q",
            "-b",
            "4096",
            "-O",
            "^has_journal",
            "-E",
            "lazy_itable_init=0",
            str(image),
        ]
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("this row needs mkfs.ext4")
        subprocess.run(make, check=True, capture_output=True)
        words = ["-o", "loop", str(image)]
    try:
        _mount(*words, disk)
        yield Small(disk, image)
    finally:
        for path in (disk, below):
            subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)


def _mount(*words: str | Path) -> None:
    done = subprocess.run(["mount", *map(str, words)], capture_output=True, check=False)
    if os.geteuid() != 0 or done.returncode:
        pytest.skip("this row needs the right to mount a small disk")


# -- people ---------------------------------------------------------------------------------------


def settle(
    swarm: Swarm,
    name: str,
    *options: str,
    tracker: str | None = None,
    native: bool | None = None,
) -> Person:
    """A person with an account, at a peer that was started with these options."""
    made = Person(swarm, name)
    made.native = swarm.native if native is None else native
    made.up(*options, tracker=tracker)
    made.ok("create-user", name, made.password)
    made.ok("login", name, made.password)
    return made


def behind(
    swarm: Swarm,
    line: SourceLine,
    name: str,
    *options: str,
    native: bool | None = None,
    **more: Any,
) -> Person:
    """A person at a peer that others reach through ``line`` only, and that has these faults."""
    with faults(announce=line.announced, **more):
        made = settle(swarm, name, "--listen", "tcp://127.0.0.1:0", *options, native=native)
    line.lead_to(int(made.status()["listen"].rpartition(":")[2]), made.bulk_port())
    return made


# -- downloads ------------------------------------------------------------------------------------


@dataclass
class Fetch:
    """A download of Bob's that is under way."""

    who: Person
    group: str
    name: str
    target: Path
    expected: bytes

    @property
    def row(self) -> Any:
        return self.who.downloads().get((self.group, self.name))

    @property
    def verified(self) -> int:
        row = self.row
        return row["verified_bytes"] if row else 0

    @property
    def state(self) -> str:
        return self.who.state_of(self.group, self.name)

    @property
    def part(self) -> Path:
        return self.target.with_name(self.target.name + ".part")

    @property
    def journal(self) -> Path:
        # Others may rest there, of downloads that an earlier test left.
        found = (self.who.home / "journals").iterdir()
        return max(found, key=lambda path: path.stat().st_mtime_ns)

    @property
    def synced(self) -> int:
        """The pieces that the journal names."""
        return max(0, (self.journal.stat().st_size - 40) // 8)

    def until(self, verified: int) -> int:
        """Wait until so many bytes are verified."""
        return wait_for(lambda: self.verified, "progress", until=lambda found: found >= verified)

    def never_lies(self) -> None:
        """The final name is not there, or it has the whole content, on the disk as well."""
        if self.target.exists():
            with self.target.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert self.target.read_bytes() == self.expected

    def finishes(self, patience_s: float = 60.0) -> Fetch:
        """Wait for its end, and compare every bit."""

        def done() -> Any:
            row = self.row
            assert row is None or row["state"] != "failed", row
            return row and row["state"] == "complete"

        wait_for(done, f"the end of {self.name}, {self.row}", patience_s=patience_s)
        assert self.target.exists()
        self.never_lies()
        assert not self.part.exists()
        return self


def begin(
    owner: Person, who: Person, size: int, *, group: str = "", folder: Path | None = None
) -> Fetch:
    """Have ``owner`` share a file in small pieces, and ``who`` begin to fetch it."""
    group = group or owner.group_with(who)
    path = owner.swarm.file(size)
    owner.share(path, group, "--piece-size", "16K")
    return fetch(who, group, path, folder=folder)


def fetch(who: Person, group: str, path: Path, *, folder: Path | None = None) -> Fetch:
    """Have ``who`` begin to fetch ``path``, which is shared already."""
    folder = folder or who.swarm.folder("got")
    wait_for(lambda: path.name in who.files(group), "the share in the list")
    who.ok("download-file", group, path.name, folder, "--no-wait")
    return Fetch(who, group, path.name, folder / path.name, path.read_bytes())


def pieces_served(who: Person) -> int:
    """Number of pieces that a peer has sent since its start."""
    rows = json.loads(who.run("--json", "doctor").out)
    return next(int(row["found"]) for row in rows if row["check"] == "pieces served")


def notices(who: Person) -> list[str]:
    rows = json.loads(who.run("--json", "doctor").out)
    return [row["found"] for row in rows if row["check"] == "notice"]


def events_port(swarm: Swarm) -> int:
    """The endpoint of the published events, as the tracker announces it."""
    device = Device(parse_link(swarm.tracker.link).first)
    try:
        told: str = device.request(tracker.Hello()).events
        return int(told.rpartition(":")[2])
    finally:
        device.close()


def alive(who: Person, pid: int) -> bool:
    """Whether the same process still runs."""
    return lock_holder(who.home) == pid
