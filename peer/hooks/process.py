"""Run of one hook: a process group with a time limit and bounded output. Blocks; for a thread.

The command is a program and its arguments, without a shell. It starts in `/`, without input, in a
session and process group of its own. Invariant: when the run ends, for whatever reason, every
process that is still in the group is killed. Not here: the queue of runs (see peer.hooks.runner).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from time import sleep
from typing import NamedTuple

from common.host.clock import monotonic
from common.names import printable

log = logging.getLogger(__name__)

OUTPUT_MAX = 16 * 1024  # bytes of output that are logged; the rest is read and dropped
LINES_MAX = 200  # of it
LINE_MAX = 1_000  # characters of a line
GRACE_S = 1.0  # between SIGTERM and SIGKILL
POLL_S = 0.2  # how soon a stop is noticed
_CHUNK = 64 * 1024
_PAUSE_S = 0.02  # between chunks beyond the limit: a flood costs its writer time, not this process


class HookResult(NamedTuple):
    """End of a hook. ``code``: the exit code, negative for a signal. ``ended_by``: why it was
    ended, if it was."""

    code: int
    ended_by: str = ""

    @property
    def problem(self) -> str:
        """The reason of a run without success; empty after success."""
        if self.ended_by:
            return self.ended_by
        if self.code < 0:
            return f"ended by signal {-self.code}"
        return f"exit code {self.code}" if self.code else ""


def run_hook(
    words: Sequence[str],
    environment: Mapping[str, str],
    time_limit_s: float,
    stopped: Callable[[], bool],
    on_line: Callable[[str], None],
) -> HookResult:
    """Run a command to its end, the time limit, or ``stopped``. ``on_line`` gets its output.

    Raises `OSError` if it cannot be started.
    """
    process = subprocess.Popen(
        list(words),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=dict(environment),
        start_new_session=True,
    )
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    output = _Output(on_line)
    pidfd = os.pidfd_open(process.pid)
    ended_by = ""
    try:
        deadline = monotonic() + time_limit_s
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while not ended_by:
            ready = dict(poll.poll(POLL_S * 1000))
            if pipe in ready and not output.read(pipe):
                poll.unregister(pipe)  # closed; the process may go on
            if pidfd in ready:
                break
            if monotonic() >= deadline:
                ended_by = f"ended after its time limit of {time_limit_s:g} s"
            elif stopped():
                ended_by = "ended with the peer"
        if ended_by:
            _terminate(process.pid, pidfd)
        # Not reaped yet, so its number cannot belong to another group.
        _kill(process.pid, signal.SIGKILL)
        output.read(pipe)
    finally:
        os.close(pidfd)
        process.stdout.close()
        process.wait()
        output.end()
    return HookResult(process.returncode, ended_by)


def _terminate(pid: int, pidfd: int) -> None:
    """Ask the group to end, and wait a little for its first process."""
    _kill(pid, signal.SIGTERM)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.poll(GRACE_S * 1000)


def _kill(pid: int, number: signal.Signals) -> None:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        log.debug("the process group of a hook had ended")


class _Output:
    """Output of a hook, in printable lines, up to `OUTPUT_MAX`."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._rest = b""
        self._taken = self._dropped = self._lines = 0

    def read(self, fd: int) -> bool:
        """Read what is there, at most one chunk. Return False at the end of the output."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        if not data:
            return False
        taken = data[: OUTPUT_MAX - self._taken]
        *lines, self._rest = (self._rest + taken).split(b"\n")
        self._taken += len(taken)
        for line in lines:
            self._report(line)
        if self._lines > LINES_MAX:
            self._taken = OUTPUT_MAX
        self._dropped += len(data) - len(taken)
        if self._dropped:
            sleep(_PAUSE_S)
        return True

    def end(self) -> None:
        """Report the last line, and how much was dropped."""
        if self._rest:
            self._report(self._rest)
        if self._dropped:
            self._on_line(f"... and {self._dropped:,} further bytes of output")

    def _report(self, line: bytes) -> None:
        self._lines += 1
        if self._lines > LINES_MAX:
            self._dropped += len(line) + 1
            return
        text = printable(line.decode("utf-8", "replace").rstrip("\r"))
        self._on_line(text if len(text) <= LINE_MAX else f"{text[:LINE_MAX]}...")
