"""Detached processes of ours: their environment, their log, and why one did not start.

Owns: what the starts of a peer and of a tracker share. Not here: their options, and how each tells
that it is ready (see peer.cli.daemon_process, tracker.background).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import IO

from common.errors import StorageError
from common.hints import shell_hint

LOG_BYTES_MAX = 10 * 1024 * 1024
END_S = 15.0  # a process that ends in order needs less


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


def reason(log: Path, began: int) -> tuple[str, str | None]:
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
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing")
        message = f"start failed: {last}"
        hint = shell_hint("its log may say why", "tail", str(log))
    return message, hint


def end(process: subprocess.Popen[bytes]) -> None:
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
