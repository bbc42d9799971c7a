"""`mini-torrent demo`: a whole swarm on this machine, as real as anywhere.

Owns the story: a tracker and peers as processes of their own in a temporary directory, accounts, a
group, its requests, one who shares and all others who fetch at once, and the comparison of every
byte. Whatever happens, no process and no file is left behind. What it looks like is
`peer.demo_picture`'s business.
"""

from __future__ import annotations

import contextlib
import os
import secrets
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

from common.config import lock_holder
from common.errors import IntegrityError, StorageError
from common.messages import control
from peer import launch
from peer.console import Console
from peer.control_client import CommandFailed, ControlClient, Ended
from peer.demo_picture import Fetch, Story
from peer.interrupts import interruptible, unbroken
from peer.render import size_text

NAMES = ("anna", "bert", "carla", "dora", "emil", "frida", "gustav", "hanna")
GROUP = "demo"
SLACK_BYTES = 64 << 20  # databases, logs and journals
TRACKER_START_S = 60.0
END_S = 5.0
BLOCK_BYTES = 4 << 20


def run(console: Console, path: str | None, peers: int, size: int) -> int:
    """Tell the whole story; returns 0 only if every byte arrived everywhere."""
    content = Path(path) if path is not None else None
    size = size if content is None else size_of(content)
    copies = peers if content is None else peers - 1
    story = Story(console)
    with interruptible(), _directory(size * copies + SLACK_BYTES) as directory:
        stage = Stage(directory)
        try:
            _play(stage, story, content, peers, size)
        finally:
            with unbroken():
                stage.clear()
    story.end()
    return 0


def _play(stage: Stage, story: Story, content: Path | None, peers: int, size: int) -> None:
    if content is None:
        content = stage.directory / "film.bin"
        _make_file(content, size)
    story.tell(f"place     {stage.directory}")
    link = stage.start_tracker()
    story.tell(f"tracker   {link}, process {stage.tracker_pid}")
    for at in range(peers):
        actor = stage.start_peer(_name(at), link)
        story.tell(f"peer      {actor.status.listen}, process {actor.status.pid}")
    owner, *others = stage.actors
    for actor in stage.actors:
        password = secrets.token_urlsafe(12)
        actor.ask(control.CreateUser(actor.name, password))
        actor.ask(control.Login(actor.name, password))
    story.tell(f"accounts  {', '.join(actor.name for actor in stage.actors)}")
    _gather(owner, others, story)
    uploaded = owner.ask(control.UploadFile(str(content), GROUP))
    assert isinstance(uploaded, control.Uploaded)
    story.shared(owner.name, uploaded)
    fetches = [Fetch(actor.name, uploaded.row.size) for actor in others]
    story.watch(fetches, lambda: _fetch_all(others, fetches, uploaded.row.name))
    _compare(content, others, fetches, story)
    story.table(fetches, uploaded)


def _name(at: int) -> str:
    return NAMES[at] if at < len(NAMES) else f"peer{at + 1}"


def _gather(owner: Actor, others: list[Actor], story: Story) -> None:
    owner.ask(control.CreateGroup(GROUP))
    for actor in others:
        actor.ask(control.JoinGroup(GROUP))
    requests = owner.ask(control.ListRequests(GROUP))
    asking = [row.user for row in requests.rows] if isinstance(requests, control.Users) else []
    for user in asking:
        owner.ask(control.AcceptRequest(GROUP, user))
    story.tell(f"group     {GROUP}, owned by {owner.name}, who let in {', '.join(asking)}")


# -- fetching -----------------------------------------------------------------------------------


def _fetch_all(actors: list[Actor], fetches: list[Fetch], name: str) -> list[threading.Thread]:
    """Start every download; each thread fills in its `Fetch`."""
    threads = [
        threading.Thread(target=_fetch, args=(actor, fetch, name), daemon=True)
        for actor, fetch in zip(actors, fetches, strict=True)
    ]
    for thread in threads:
        thread.start()
    return threads


def _fetch(actor: Actor, fetch: Fetch, name: str) -> None:
    try:
        with ControlClient(actor.home) as client:
            fetch.began_at = monotonic()
            ask = control.DownloadFile(GROUP, name, str(actor.folder))
            for said in client.ask(ask):
                match said:
                    case control.Progress():
                        fetch.progress = said
                    case control.Downloaded():
                        fetch.done = said
                    case control.Failed():
                        fetch.error = CommandFailed(said)
                    case _:
                        pass
    except Exception as error:
        fetch.error = error
    finally:
        fetch.ended_at = monotonic()


def _compare(content: Path, actors: list[Actor], fetches: list[Fetch], story: Story) -> None:
    for fetch in fetches:
        if fetch.error is not None:
            raise fetch.error
    original = digest_of(content)
    for actor, fetch in zip(actors, fetches, strict=True):
        if fetch.done is None or digest_of(Path(fetch.done.path)) != original:
            raise IntegrityError(f"what {actor.name} has is not what was shared")
    story.same(original)


# -- the processes ------------------------------------------------------------------------------


@dataclass(slots=True)
class Actor:
    """One peer of the story."""

    name: str
    home: Path
    folder: Path
    status: control.StatusIs

    def ask(self, ask: control.Ask) -> Ended:
        """What its peer answers; raises when it refuses."""
        with ControlClient(self.home) as client:
            return client.result(ask)


@dataclass(slots=True)
class Stage:
    """The processes in ``directory``; `clear` ends every one of them."""

    directory: Path
    actors: list[Actor] = field(default_factory=list)
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
                env=launch.environment(),
                start_new_session=True,
            )
        assert self._tracker.stdout is not None
        line = _line_within(self._tracker.stdout, TRACKER_START_S)
        if not line.startswith("tracker ready: "):
            self._tracker.kill()
            raise CommandFailed(launch.last_words(log, 0, self._tracker.wait()))
        return line.removeprefix("tracker ready: ")

    def start_peer(self, name: str, link: str) -> Actor:
        """Start a peer in a home of its own."""
        home = self.directory / name / "home"
        folder = self.directory / name / "files"
        folder.mkdir(parents=True)
        self._homes.append(home)
        options = {"tracker": link, "listen": "tcp://127.0.0.1:0"}
        status = launch.start(home, options, remember=False)
        actor = Actor(name, home, folder, status)
        self.actors.append(actor)
        return actor

    def clear(self) -> None:
        """End all processes: in order if they are able to, by force if they are not."""
        pids = [pid for home in self._homes if (pid := lock_holder(home))]
        for pid in pids:
            _kill(pid, signal.SIGTERM)
        if self._tracker is not None:
            self._tracker.terminate()
        deadline = monotonic() + END_S
        while any(map(launch.lives, pids)) and monotonic() < deadline:
            sleep(0.02)
        for pid in pids:
            if launch.lives(pid):
                _kill(pid, signal.SIGKILL)
        if self._tracker is not None:
            try:
                self._tracker.wait(END_S)
            except subprocess.TimeoutExpired:
                self._tracker.kill()
                self._tracker.wait()
        launch.reap()


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


# -- files --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _directory(needed: int) -> Iterator[Path]:
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
            "make room, set TMPDIR to a place that has it, or use a smaller --size",
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
            raise StorageError(f"{directory} could not be removed", f"rm -r {directory}")


def _free_memory() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _make_file(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for at in range(0, size, BLOCK_BYTES):
            file.write(os.urandom(min(BLOCK_BYTES, size - at)))


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def digest_of(path: Path) -> str:
    """One BLAKE3 over a file, or over the paths and contents of a folder; read from the disk."""
    from blake3 import blake3

    whole = blake3(max_threads=blake3.AUTO)
    if path.is_file():
        _digest_file(whole, path)
        return str(whole.hexdigest())
    for file in sorted(path.rglob("*")):
        kind = "folder" if file.is_dir() else f"file of {file.stat().st_size} bytes"
        whole.update(f"{file.relative_to(path)}\0{kind}\0".encode(errors="surrogateescape"))
        if file.is_file():
            _digest_file(whole, file)
    return str(whole.hexdigest())


def _digest_file(digest: object, path: Path) -> None:
    with open(path, "rb", buffering=0) as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)  # type: ignore[attr-defined]
