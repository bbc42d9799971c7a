"""Start and stop of the peer of a home: detached, or in this process.

Owns the wait until a detached peer is ready or gone. Not here: its log and environment (see
common.host.detached), the meaning of the options (see peer.cli.up_options), the peer itself (see
peer.daemon).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from common.crypto.keys import DEVICE_KEY, replace_pair
from common.errors import MiniTorrentError, NoPeerRunning, StorageError
from common.hints import shell_hint
from common.host import detached
from common.host.control_socket import has_socket
from common.host.home import HomeLock, lock_holder, open_home
from common.messages import control
from common.messages.refusals import Code
from common.names import printable
from peer.cli.signals import unbroken
from peer.cli.up_options import STOP_FIRST, AlreadyRuns, check_same, settings_for
from peer.control.client import CommandFailed, ControlClient, holder_of
from peer.settings import Settings, save

LOG = "peer.log"
START_S = 60.0  # a start proves the guard of its sockets and reads what is shared
CONNECT_S = 3.0  # how long `up` waits to be able to say that the tracker answers
END_S = 15.0
TURN_S = 0.005

_OPTIONS = {
    "listen": "--listen",
    "advertise": "--advertise",
    "tracker": "--tracker",
    "upload_limit": "--upload-limit",
    "download_limit": "--download-limit",
    "upload_limit_per_user": "--upload-limit-per-user",
    "download_limit_per_user": "--download-limit-per-user",
    "log_json": "--log-json",
}

_started: list[detached.Process] = []  # by this process; reaped when they have ended


# -- starting -----------------------------------------------------------------------------------


def running(home: Path) -> control.StatusIs | None:
    """The status of the peer of ``home``; None if none runs."""
    if lock_holder(home) is None:
        return None
    try:
        with ControlClient(home) as client:
            status = client.result(control.Status())
    except NoPeerRunning:
        if lock_holder(home) is None:
            return None
        raise
    return status if isinstance(status, control.StatusIs) else None


def start(
    home: Path,
    options: Mapping[str, Any],
    *,
    verbose: int = 0,
    remember: bool = True,
    as_copy: bool = False,
) -> control.StatusIs:
    """Start a detached peer and return its status once it is ready.

    ``as_copy``: the peer may be a copy of this process and show its command line.
    Raises `CommandFailed` with the error and the exit code of a peer that could not start.
    """
    home = open_home(home)
    settings = settings_for(home, options)
    process: detached.Process | None = None
    words = _words(home, options, verbose)
    try:
        with detached.open_log(home / LOG) as log, unbroken():
            log_began = log.tell()
            if as_copy and detached.can_fork():
                process = detached.fork(lambda: _run_words(words), log)
            else:
                process = subprocess.Popen(
                    # -X utf8: names of files are UTF-8 in every locale. -P: the current folder is
                    # no place of our modules.
                    [sys.executable, "-P", "-X", "utf8", "-m", "peer.cli", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=detached.environment(),
                    start_new_session=True,
                )
        status = _wait_until_ready(home, process, log_began)
        if status.pid != process.pid:  # another start was faster
            check_same(status, options)
    except BaseException:
        if process is not None:
            detached.end(process)
        raise
    if status.pid != process.pid:
        detached.end(process)
        return status
    _started.append(process)
    if remember:
        _remember(home, settings)
    return status


def remember(home: Path, options: Mapping[str, Any]) -> None:
    """Save ``options`` of a peer that was started with them, for the next start."""
    _remember(home, settings_for(home, options))


def renew_device_key(home: Path, options: Mapping[str, Any]) -> None:
    """Give ``home`` a device key of its own; the peer that runs for it is ended before.

    Raises `ConfigError` when no peer could be started with ``options``.
    """
    home = open_home(home)
    settings_for(home, options)
    if lock_holder(home) is not None:
        stop(home)
    lock = HomeLock(home)
    try:
        replace_pair(home / DEVICE_KEY)
    finally:
        lock.release()


def _remember(home: Path, settings: Settings) -> None:
    """Save for the next `up`. Why no error: a peer can run although the disk is full."""
    try:
        save(home, settings)
    except StorageError as error:
        text = f"warning: cannot save the options for the next start: {error}"
        print(printable(text), file=sys.stderr, flush=True)


def run_foreground(home: Path, options: Mapping[str, Any], *, verbose: int, remember: bool) -> int:
    """Run the peer of ``home`` in this process until it ends; returns the exit code."""
    from peer import daemon

    if sys.getfilesystemencoding() != "utf-8":  # names of files are, for a peer
        words = [sys.executable, "-P", "-X", "utf8", "-m", "peer.cli", *sys.argv[1:]]
        os.execve(sys.executable, words, {**os.environ, **detached.where_we_are()})
    home = open_home(home)
    settings = settings_for(home, options)
    if (pid := lock_holder(home)) is not None:
        raise AlreadyRuns(
            f"the peer is already running (PID {pid})",
            STOP_FIRST,
        )
    if remember:
        _remember(home, settings)
    return daemon.run(home, settings, foreground=True, verbose=verbose)


def _run_words(words: list[str]) -> int:
    """Run a command line in a copy of this process."""
    from peer.cli.main import run

    sys.argv[1:] = words
    return run(words)


def _words(home: Path, options: Mapping[str, Any], verbose: int) -> list[str]:
    words = ["--home", str(home), *["-v"] * verbose, "up", "--foreground", "--no-remember"]
    for name, value in options.items():
        words += [_OPTIONS[name]] if value is True else [_OPTIONS[name], str(value)]
    return words


def _wait_until_ready(home: Path, process: detached.Process, log_began: int) -> control.StatusIs:
    deadline = monotonic() + START_S
    while monotonic() < deadline:
        # A peer that another command started at the same moment serves as well.
        if (code := process.poll()) is not None and lock_holder(home) is None:
            raise CommandFailed(startup_error(home / LOG, log_began, code))
        # Why the socket first: libzmq tries again a tenth of a second after it came too early.
        if lock_holder(home) is not None and has_socket(home):
            with contextlib.suppress(NoPeerRunning):
                return _status_with_tracker(home)
        sleep(TURN_S)
    raise CommandFailed(
        control.Failed(
            Code.FAILED,
            f"the peer was not ready after {START_S:.0f} s",
            shell_hint("its log may say why", "tail", str(home / LOG)),
        )
    )


def _status_with_tracker(home: Path) -> control.StatusIs:
    """The status of a peer that is ready, as soon as it has heard of its tracker or given up."""
    with ControlClient(home) as client:
        status = client.result(control.Status())
        deadline = monotonic() + CONNECT_S
        while isinstance(status, control.StatusIs):
            if status.connected or status.trouble or monotonic() > deadline:
                return status
            sleep(TURN_S)
            status = client.result(control.Status())
    raise NoPeerRunning(f"the peer of {home} sent no status")


def startup_error(log: Path, began: int, code: int) -> control.Failed:
    """The error of a process of ours that ended before it was ready, from its log."""
    message, hint = detached.startup_error(log, began)
    reason = {2: Code.USAGE, 4: Code.UNREACHABLE, 5: Code.CORRUPT}.get(code, Code.FAILED)
    return control.Failed(reason, message, hint, code if code > 0 else 1)


# -- ending -------------------------------------------------------------------------------------


def stop(home: Path) -> None:
    """End the peer of ``home`` in order and wait until its process is gone.

    Raises `NoPeerRunning` when there is none.
    """
    pid = holder_of(home)
    try:
        with ControlClient(home) as client:
            client.result(control.Down())
    except NoPeerRunning:
        # Its last answer may be lost with its socket; a frozen peer gets a signal instead.
        if pid > 0 and lock_holder(home) == pid:  # 0 (not known yet) would mean our whole group
            os.kill(pid, signal.SIGTERM)
    deadline = monotonic() + END_S
    while lock_holder(home) == pid or detached.is_running(pid):
        if monotonic() > deadline:
            raise MiniTorrentError(
                f"the peer (PID {pid}) has not ended after {END_S:.0f} s",
                shell_hint(
                    "end it; unfinished downloads resume at the next start", "kill", "-9", str(pid)
                ),
            )
        sleep(TURN_S)
    reap()


def reap() -> None:
    """Collect the peers that this process started and that have ended."""
    _started[:] = [process for process in _started if process.poll() is None]
