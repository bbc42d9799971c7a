"""Detached processes of ours: their environment, their log, and why one did not start.

Owns: what the starts of a peer and of a tracker share, and the start of one by a fork. Not here:
their options, and the proof that each is ready (see peer.cli.daemon_process, tracker.background).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import IO

from common.errors import StorageError
from common.hints import shell_hint
from common.host.clock import monotonic
from common.host.streams import leave

LOG_BYTES_MAX = 10 * 1024 * 1024
_START_BYTES = 1 << 20  # a new home needs less
END_S = 15.0  # a process that ends in order needs less
_TURN_S = 0.005


def environment() -> dict[str, str]:
    """The environment for a process of ours, whose options are all in its command line."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("MINI_TORRENT_")
    }
    return {**environment, **where_we_are(), "PYTHONUNBUFFERED": "1"}


def where_we_are() -> dict[str, str]:
    """The variables by which a process of ours finds our modules."""
    ours = Path(__file__).resolve().parents[2]
    if ours.name in ("site-packages", "dist-packages"):
        return {}
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{ours}{os.pathsep}{path}" if path else str(ours)}


def open_log(path: Path) -> IO[bytes]:
    """Open the log ``path`` at its end; one that is long begins anew. Raises `StorageError`."""
    try:
        if path.is_file() and path.stat().st_size > LOG_BYTES_MAX:
            os.replace(path, path.with_suffix(".log.1"))
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write the log {path}: {error.strerror}") from error
    log = os.fdopen(fd, "ab")
    log.seek(0, os.SEEK_END)
    return log


def startup_error(log: Path, began: int) -> tuple[str, str | None]:
    """The error and the hint of a process that ended before it was ready, from its log."""
    with open(log, "rb") as file:
        file.seek(began)
        lines = file.read(64 * 1024).decode("utf-8", "replace").splitlines()
    message, hint = "", None
    for line in lines:
        if line.startswith("error: "):
            message, hint = line.removeprefix("error: "), None
        elif line.startswith("hint: ") and message:
            hint = line.removeprefix("hint: ")
    if not message:
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        if not last and _is_full(log.parent):
            return f"start failed: no space left in {log.parent}", "free some space there"
        message = f"start failed: {last or 'its log is empty'}"
        hint = shell_hint("its log may say why", "tail", str(log)) if last else None
    return message, hint


def _is_full(folder: Path) -> bool:
    """Whether a start in ``folder`` can have failed for space, without space to log the reason."""
    with suppress(OSError):
        found = os.statvfs(folder)
        return found.f_blocks > 0 and found.f_bavail * found.f_frsize < _START_BYTES
    return False


class Forked:
    """A child process that `fork` made; the part of `subprocess.Popen` that starts need."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code; None while the process runs."""
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            if ended:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; raise `subprocess.TimeoutExpired` after ``timeout`` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and monotonic() > deadline:
                raise subprocess.TimeoutExpired([], timeout or 0.0)
            sleep(_TURN_S)
        return code

    def terminate(self) -> None:
        """Send the process SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


Process = subprocess.Popen[bytes] | Forked


def can_fork() -> bool:
    """Whether a copy of this process can be a serving one.

    A fork copies the calling thread alone, and locks that another thread holds stay locked: so
    there must be no other, of libzmq neither. Names of files are UTF-8 for a serving process.
    """
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:
        return False
    return threads == 1 and sys.getfilesystemencoding() == "utf-8"


def fork(run: Callable[[], int], log: IO[bytes]) -> Forked:
    """Start a detached copy of this process that does ``run`` and ends with its result.

    Why not a fresh interpreter: half of the time of a start is the import of modules that this
    process has already. As there, the copy has a session, an environment, standard streams and
    handlers of signals of its own, and no other open file. Callers check `can_fork`.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            if stream is not None:
                stream.flush()  # or the copy writes it once more
    pid = os.fork()
    if pid:
        return Forked(pid)
    code = 1
    try:
        _detach(log.fileno())
        code = run()
    except BaseException:  # it must not reach the callers, whose work the copy does not continue
        sys.excepthook(*sys.exc_info())
    return leave(code)


def _detach(log: int) -> None:
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, number in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, number)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    ours = environment()
    os.environ.clear()
    os.environ.update(ours)
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout, sys.stderr = (
        open(  # noqa: SIM115
            number, "w", encoding="utf-8", errors=errors, closefd=False, buffering=1
        )
        for number, errors in ((1, "surrogateescape"), (2, "backslashreplace"))
    )


def end(process: Process) -> None:
    """End ``process``, in order if it can, and collect it."""
    process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_running(pid: int) -> bool:
    """Whether another process is running. A process that has ended, and that its parent has not
    collected yet, no longer has a command line."""
    if pid == os.getpid():
        return False
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False
