"""A swarm of real processes, and people who use it through the real command line.

`Swarm` is a directory, a tracker and the people in it; a `Person` is a user at a device of their
own. A command is run in the test's process by default, which is the whole of the command line but
the start of Python; `Person.spawn` and `Person.command` run the installed program.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from common.host.home import lock_holder
from peer import cli
from peer.cli import daemon_process
from tests.support import reaper
from tests.support.waiting import PATIENCE_S, wait_for

BIN = Path(sys.executable).parent
PEER = str(BIN / "mini-torrent")
TRACKER = str(BIN / "mini-torrent-tracker")
MEMORY = "/dev/shm"
ROOM_BYTES = 2 << 30
LOG_TAIL_BYTES = 6_000
SMALL_PIECE = 16 * 1024  # the smallest there is: a small file has many of them


@dataclass(frozen=True, slots=True)
class Ran:
    """Result of a command line."""

    words: Sequence[str]
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        # A word that is no text must not break the report of the test that it broke.
        text = f"{' '.join(self.words)} -> {self.code}\n{self.out}{self.err}"
        return text.encode("utf-8", "backslashreplace").decode()


def run_here(words: Sequence[str], *, stdin: str = "", cwd: Path | None = None) -> Ran:
    """A command line of `mini-torrent` in this process; from other threads: `run_program`."""
    # Why: the streams are those of the process, so two at once would print into each other's.
    assert threading.current_thread() is threading.main_thread(), f"{words} in a thread"
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "stdin", io.StringIO(stdin)),
        contextlib.chdir(cwd) if cwd is not None else contextlib.nullcontext(),
    ):
        code = cli.run(list(words))
    return Ran(words, code, out.getvalue(), err.getvalue())


def run_program(
    words: Sequence[str], *, stdin: str | None = None, cwd: Path | None = None, **options: Any
) -> Ran:
    """The same by the installed program; ``words`` begin with it."""
    done = subprocess.run(
        list(words),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=PATIENCE_S,
        **options,
    )
    return Ran(words, done.returncode, done.stdout, done.stderr)


def operate(home: Path, *words: str) -> Any:
    """A command of the tracker's operator that must succeed, by its JSON."""
    ran = run_program([TRACKER, *words, "--home", str(home), "--json"])
    assert ran.code == 0, str(ran)
    return ran.json


class RunningTracker:
    """A `mini-torrent-tracker run` with its standard output and its log in files."""

    def __init__(
        self, swarm: Swarm, name: str, bind: str, *words: str, before: Sequence[str] = ()
    ) -> None:
        """Start a command. ``before``: options before the command."""
        self.home = swarm.root / name
        self.words = words
        self.before = before
        self.bind = bind
        self.log = swarm.root / f"{name}.log"
        self.printed = swarm.root / f"{name}.out"
        self.link = ""
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        """Start it, where it was before if it ran before, and wait until it serves."""
        words = [TRACKER, *self.before, "run", *self.words, "--home", str(self.home)]
        if self.bind:
            words += ["--bind", self.bind]
        with self.log.open("ab") as log, self.printed.open("wb") as printed:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=printed, stderr=log
            )
        line = wait_for(self._first_line, "the tracker's first line")
        self.link = line.removeprefix("tracker ready: ")
        if self.bind:
            address = self.link.rpartition("/")[0]
            ipc = address.startswith("mini-torrent+")
            self.bind = (
                address.removeprefix("mini-torrent+")
                if ipc
                else address.replace("mini-torrent://", "tcp://")
            )

    def _first_line(self) -> str:
        ended = self.process.poll() is not None
        line, newline, _ = self.printed.read_text().partition("\n")
        assert newline or not ended, f"the tracker ended: {self.log.read_text()}"
        return line if newline else ""

    def end(self) -> int:
        """End it in order; returns its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        """End it in no order at all."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def restart(self) -> None:
        """End it and start it again at the same place."""
        self.end()
        self.start()


class Swarm:
    """A short directory, a tracker in it, and people.

    ``transport``: tcp or ipc. ``native``: whether peers use the compiled data path.
    """

    alive: list[Swarm] = []  # noqa: RUF012 - whose logs are shown when a test fails

    def __init__(
        self, transport: str = "tcp", *, tracker: bool = True, native: bool = True
    ) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="mt-", dir=_memory_or_disk()))
        self.keeper = reaper.start(self.root)
        self.transport = transport
        self.native = native
        self.people: dict[str, Person] = {}
        self.spawned: list[subprocess.Popen[str]] = []
        self._numbers = itertools.count(1)
        Swarm.alive.append(self)
        self.tracker: RunningTracker
        try:
            if tracker:
                self.tracker = RunningTracker(self, "t", self.any_endpoint("t"))
        except BaseException:
            self.close()
            raise

    def any_endpoint(self, name: str) -> str:
        """Somewhere free to bind."""
        return "tcp://127.0.0.1:0" if self.transport == "tcp" else f"ipc://{self.root}/{name}.sock"

    def fresh(self, what: str) -> str:
        """A name that nothing else in this swarm has."""
        return f"{what}{next(self._numbers)}"

    def folder(self, what: str = "d") -> Path:
        """A new directory."""
        path = self.root / self.fresh(what)
        path.mkdir()
        return path

    def named(self, name: str) -> Person:
        """The person that was made under that name."""
        return next(person for person in self.people.values() if person.name == name)

    def person(self, name: str, *, log_in: bool = True, options: Sequence[str] = ()) -> Person:
        """A person at a device with a peer that runs, and an account that is logged in."""
        person = Person(self, name)
        person.up(*options)
        if log_in:
            person.ok("create-user", name, person.password)
            person.ok("login", name, person.password)
        return person

    def file(self, size: int, name: str = "", *, folder: Path | None = None) -> Path:
        """A file with a content that no device of this swarm has yet."""
        path = (folder or self.folder()) / (name or self.fresh("file"))
        path.write_bytes(content(size, next(self._numbers)))
        return path

    def logs(self) -> Iterator[tuple[str, str]]:
        """The end of every log, by which the reason can be found."""
        for path in sorted([*self.root.glob("*.log"), *self.root.glob("*/peer.log")]):
            with contextlib.suppress(OSError):
                text = path.read_bytes()[-LOG_TAIL_BYTES:].decode("utf-8", "replace")
                yield str(path), text

    def close(self) -> None:
        """End everything that runs for this swarm and remove it."""
        Swarm.alive.remove(self)
        try:
            reaper.sweep(self.root)
        finally:
            for process in self.spawned:
                process.communicate()
            daemon_process.reap()
            assert self.keeper.stdin is not None
            self.keeper.stdin.close()
            self.keeper.wait(PATIENCE_S)


def _memory_or_disk() -> str | None:
    """In memory where there is enough of it: syncing costs nothing there. A container often has
    next to none."""
    with contextlib.suppress(OSError):
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM_BYTES:
            return MEMORY
    return None


class Person:
    """A user at a device: a home, the peer that runs for it, and the command line."""

    def __init__(self, swarm: Swarm, name: str, home: Path | None = None) -> None:
        self.swarm = swarm
        self.name = name
        self.native = swarm.native
        self.password = f"password of {name}"
        self.home = home or swarm.root / swarm.fresh(name[:4])
        swarm.people[str(self.home)] = self

    # -- the command line -----------------------------------------------------------------------

    def words(self, words: Sequence[str | Path]) -> list[str]:
        return ["--home", str(self.home), *map(str, words)]

    def run(self, *words: str | Path, stdin: str = "", cwd: Path | None = None) -> Ran:
        """A command, whatever becomes of it."""
        return run_here(self.words(words), stdin=stdin, cwd=cwd)

    def ok(self, *words: str | Path, stdin: str = "", cwd: Path | None = None) -> str:
        """A command that must succeed; returns what it printed."""
        ran = self.run(*words, stdin=stdin, cwd=cwd)
        assert ran.code == 0, str(ran)
        return ran.out

    def json(self, *words: str | Path) -> Any:
        """A command that must succeed, by its JSON."""
        return json.loads(self.ok("--json", *words))

    def refused(self, *words: str | Path, code: int = 1, stdin: str = "") -> str:
        """A command that must fail with ``code`` and nothing but an error; returns that."""
        ran = self.run(*words, stdin=stdin)
        assert ran.code == code, str(ran)
        assert ran.out == "", str(ran)
        said = [line for line in ran.err.splitlines() if not _is_progress(line)]
        assert said, str(ran)
        assert said[0].startswith("error: "), str(ran)
        assert len(said) == 1 or (len(said) == 2 and said[1].startswith("hint: ")), str(ran)
        return said[0].removeprefix("error: ")

    def command(self, *words: str | Path, **options: Any) -> Ran:
        """The same by the installed program."""
        return run_program([PEER, *self.words(words)], **options)

    def spawn(self, *words: str | Path) -> subprocess.Popen[str]:
        """The installed program, which goes on running."""
        process = subprocess.Popen(
            [PEER, *self.words(words)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.swarm.spawned.append(process)
        return process

    # -- the peer -------------------------------------------------------------------------------

    def up(self, *options: str, tracker: str | None = None) -> str:
        """Start the peer."""
        if tracker is None and not (self.home / "peer.toml").exists():
            tracker = self.swarm.tracker.link
        if not self.native and not self.home.exists():
            self.home.mkdir(mode=0o700)
            (self.home / "peer.toml").write_text("native = false\n")
        return self.ok("up", *options, *(["--tracker", tracker] if tracker else []))

    def down(self) -> None:
        """End the peer."""
        self.ok("down")

    def restart(self) -> None:
        """End the peer in order and start it again."""
        self.down()
        self.up()

    @property
    def pid(self) -> int:
        pid = lock_holder(self.home)
        assert pid, f"no peer of {self.name}"
        return pid

    def kill(self) -> None:
        """End the peer in no order at all."""
        os.kill(self.pid, signal.SIGKILL)
        wait_for(lambda: lock_holder(self.home) is None, "the end of the peer")
        daemon_process.reap()

    def bulk_port(self) -> int | None:
        """The endpoint for bulk connections to this peer; None if others make none."""
        rows = json.loads(self.run("--json", "doctor").out)  # which may find something else wrong
        [told] = [row["found"] for row in rows if row["check"] == "bulk connections"]
        found = re.match(r"port (\d+);", told)
        return None if found is None else int(found[1])

    def status(self) -> Any:
        return self.json("status")

    # -- what people do all the time ------------------------------------------------------------

    def let_in(self, group: str, *others: Person) -> str:
        """Have ``others`` ask to be let in, and accept them."""
        for other in others:
            other.ok("join-group", group)
            self.ok("accept-request", group, other.name)
        return group

    def group_with(self, *others: Person) -> str:
        """A new group of one's own with ``others`` in it."""
        group = self.swarm.fresh("group")
        self.ok("create-group", group)
        return self.let_in(group, *others)

    def share(self, path: Path, group: str, *options: str) -> Any:
        """Share a path; returns its row."""
        return self.json("upload-file", path, group, *options)

    def fetch(self, group: str, name: str, dest: Path, *options: str) -> Any:
        """Download and wait; returns what is told of it."""
        return self.json("download-file", group, name, dest, *options)

    def files(self, group: str) -> dict[str, Any]:
        """The rows of ``list-files`` by name."""
        return {row["name"]: row for row in self.json("list-files", group)}

    def downloads(self) -> dict[tuple[str, str], Any]:
        """The rows of ``show-downloads`` by group and name."""
        return {(row["group"], row["name"]): row for row in self.json("show-downloads")}

    def state_of(self, group: str, name: str) -> str:
        """The state of a download; empty when there is none."""
        row = self.downloads().get((group, name))
        return row["state"] if row else ""

    def copy(self, name: str = "") -> Person:
        """A further device of the same user, with a peer that runs, and not logged in."""
        other = Person(self.swarm, name or self.name)
        other.password = self.password
        other.up()
        return other


def _is_progress(line: str) -> bool:
    """Recognise ``NAME: digesting, …``: the plain lines of long work."""
    return not line.startswith(("error: ", "hint: ")) and ": " in line


def content(size: int, seed: int = 0) -> bytes:
    """Return ``size`` bytes in which no two pieces are alike."""
    import random

    return random.Random(f"{seed}/{size}").randbytes(size)


def clear(path: Path) -> None:
    """Remove what is at ``path``."""
    shutil.rmtree(path) if path.is_dir() else path.unlink()
