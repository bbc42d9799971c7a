"""Start and stop of the tracker of a home in the background.

Owns: the log of a tracker in the background, and the wait until it is ready or gone. Not here: the
tracker itself (see tracker.service.main).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from time import sleep

from common.errors import MiniTorrentError, Refused
from common.hints import shell_hint
from common.host import detached
from common.host.clock import monotonic
from common.host.home import lock_holder, open_home
from common.messages import operator as messages
from common.messages.refusals import Code
from tracker.operator_client import NoTrackerRunning, holder_of, request

LOG = "tracker.log"
START_S = 60.0  # a large database is checked and loaded first
TURN_S = 0.02


class StartFailed(Refused):
    """The tracker ended before it was ready; ``code`` and exit code are those of the process."""

    def __init__(self, message: str, hint: str | None, exit_code: int) -> None:
        super().__init__(Code.USAGE if exit_code == 2 else Code.FAILED, message, hint)
        self._exit_code = exit_code if exit_code > 0 else 1

    @property
    def exit_status(self) -> int:
        return self._exit_code


def running(home: Path) -> messages.StatusIs | None:
    """Return the status of the tracker of ``home``, once it is ready; None if none runs."""
    try:
        return request(home, messages.Status(messages.FORM), messages.StatusIs, START_S)
    except NoTrackerRunning:
        return None


def start(home: Path, words: Sequence[str]) -> messages.StatusIs:
    """Start `run` with the options ``words``, and return its status once it is ready.

    Raise `StartFailed` with the reason in its log.
    """
    home = open_home(home)
    command = [sys.executable, "-P", "-m", "tracker.cli", "run", "--home", str(home), *words]
    process = None
    try:
        with detached.open_log(home / LOG) as log:
            began = log.tell()
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=detached.environment(),
                start_new_session=True,
            )
        return _ready(home, process, began)
    except BaseException:
        if process is not None and process.poll() is None:
            detached.end(process)
        raise


def _ready(home: Path, process: subprocess.Popen[bytes], began: int) -> messages.StatusIs:
    deadline = monotonic() + START_S
    while monotonic() < deadline:
        if process.poll() is not None and lock_holder(home) is None:
            raise StartFailed(*detached.startup_error(home / LOG, began), process.returncode)
        if (home / LOG).stat().st_size > began and (status := _answer(home)) is not None:
            return status
        sleep(TURN_S)
    raise StartFailed(
        f"the tracker was not ready after {START_S:.0f} s",
        shell_hint("its log may say why", "tail", str(home / LOG)),
        1,
    )


def _answer(home: Path) -> messages.StatusIs | None:
    try:
        return request(home, messages.Status(messages.FORM), messages.StatusIs, TURN_S)
    except (NoTrackerRunning, Refused) as error:
        if isinstance(error, Refused) and error.code is not Code.BUSY:
            raise
        return None


def stop(home: Path) -> int:
    """End the tracker of ``home`` in order, and wait until its process is gone.

    Return its process id. Raise `NoTrackerRunning` if there is none.
    """
    pid = holder_of(home)
    try:
        request(home, messages.Stop(), messages.Changed, detached.END_S / 3)
    except (NoTrackerRunning, Refused):
        # Its answer may be lost with its socket; a frozen one, or one of another release, gets a
        # signal. 0 (not known yet) would mean our whole group.
        if pid > 0 and lock_holder(home) == pid:
            os.kill(pid, signal.SIGTERM)
    deadline = monotonic() + detached.END_S
    while lock_holder(home) == pid or detached.is_running(pid):
        if monotonic() > deadline:
            raise MiniTorrentError(
                f"the tracker (PID {pid}) has not ended after {detached.END_S:.0f} s",
                shell_hint("end it; nothing acknowledged is lost", "kill", "-9", str(pid)),
            )
        sleep(TURN_S)
    return pid
