"""Processes of one contestant in one run: start, CPU accounting, and a certain end.

Owns: process lifetime and CPU accounting. CPU is user plus system time of every started process
and of all its descendants: from `wait4` for ended processes, from `/proc` for live ones.
Limits: `/proc` counts in clock ticks, usually 10 ms for each process.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

_PR_SET_PDEATHSIG = 1
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A contestant failed; the message names it and quotes its output."""


class _Ended(BenchmarkError):
    """A process closed its standard output."""


class ChildProcess:
    """One child process with pipes; its CPU is counted up to its end (`wait4`)."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self._popen = popen
        self._log = log
        self._used_cpu_s: float | None = None
        self._buffer = bytearray()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def write_line(self, line: str) -> None:
        """Write one line to its standard input."""
        pipe = cast(IO[bytes], self._popen.stdin)
        try:
            pipe.write(line.encode() + b"\n")
            pipe.flush()
        except BrokenPipeError as error:
            raise BenchmarkError(f"{self.name} ended early: {self.stderr_tail()}") from error

    def read_line(self, timeout_s: float = 300.0) -> str:
        """Return the next line of its output; raise `BenchmarkError` if it ends or times out."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            self._read(deadline)
        line, _, rest = bytes(self._buffer).partition(b"\n")
        self._buffer[:] = rest
        return line.decode()

    def read_json(self) -> Any:
        """Return the next JSON document of its output, which may have several lines."""
        text = ""
        while True:
            text += self.read_line() + "\n"
            try:
                return json.loads(text)
            except ValueError:
                continue

    def read_all(self, timeout_s: float = 300.0) -> str:
        """Return its remaining output, up to the end."""
        deadline = time.monotonic() + timeout_s
        try:
            while True:
                self._read(deadline)
        except _Ended:
            return self._buffer.decode()

    def _read(self, deadline: float) -> None:
        pipe = cast(IO[bytes], self._popen.stdout)
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise BenchmarkError(f"{self.name} timed out without output: {self.stderr_tail()}")
        chunk = os.read(pipe.fileno(), 1 << 16)
        if not chunk:
            raise _Ended(f"{self.name} ended early: {self.stderr_tail()}")
        self._buffer += chunk

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        if self._used_cpu_s is None:
            _, status, usage = os.wait4(self.pid, 0)
            self._ended(status, usage.ru_utime + usage.ru_stime)
        return cast(int, self._popen.returncode)

    def check_exit(self) -> None:
        """Wait for its end; raise `BenchmarkError` unless the exit code is 0."""
        code = self.wait()
        if code != 0:
            raise BenchmarkError(f"{self.name} ended with {code}: {self.stderr_tail()}")

    def poll(self) -> bool:
        """Return whether it has ended."""
        if self._used_cpu_s is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._ended(status, usage.ru_utime + usage.ru_stime)
        return self._used_cpu_s is not None

    def used_cpu_s(self) -> float:
        """Return its CPU seconds so far, descendants included."""
        if self.poll():
            return cast(float, self._used_cpu_s)
        return sum(_ticks(pid) for pid in _with_descendants(self.pid)) / _TICKS

    def end(self, deadline: float) -> None:
        """Terminate its process group; kill it at `deadline`."""
        self._signal(signal.SIGTERM)
        while not self.poll() and time.monotonic() < deadline:
            time.sleep(0.01)
        # Also if the leader has ended: a descendant may still run.
        self._signal(signal.SIGKILL)
        self.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    pass

    def stderr_tail(self) -> str:
        try:
            text = self._log.read_text(errors="replace").strip()
        except OSError:
            text = ""
        return text[-600:] or "(nothing on standard error)"

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            pass

    def _ended(self, status: int, used_cpu_s: float) -> None:
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        self._used_cpu_s = used_cpu_s


class ProcessGroup:
    """Context manager that ends all its processes. `nice` is added to their niceness."""

    def __init__(self, logs: Path, nice: int = 0) -> None:
        self._logs = logs
        self._nice = nice
        self._children: list[ChildProcess] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        quiet: bool = False,
    ) -> ChildProcess:
        """Start a process in its own group; it dies with this one. `quiet` drops its output."""
        log = self._logs / f"{len(self._children):02d}-{name}.log"
        with log.open("wb") as errors:
            popen = subprocess.Popen(
                [os.fspath(part) for part in argv],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL if quiet else subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=_before_exec(self._nice),
            )
        child = ChildProcess(name, popen, log)
        self._children.append(child)
        return child

    def used_cpu_s(self) -> float:
        """Return the CPU seconds of all processes so far."""
        return sum(child.used_cpu_s() for child in self._children)

    def end(self) -> None:
        deadline = time.monotonic() + 5.0
        for child in reversed(self._children):
            child.end(deadline)
        self._children.clear()


class Clock:
    """Stopwatch from its creation to `stop`: wall time, CPU of the group, CPU of the rest."""

    def __init__(self, processes: ProcessGroup) -> None:
        self._processes = processes
        self._busy_s = _machine_busy_s()
        self._used_cpu_s = processes.used_cpu_s()
        self.started = time.monotonic()

    def stop(self) -> Span:
        """Return the span from the creation until now."""
        wall_s = time.monotonic() - self.started
        cpu_s = self._processes.used_cpu_s() - self._used_cpu_s
        return Span(wall_s, cpu_s, max(0.0, _machine_busy_s() - self._busy_s - cpu_s))


@dataclass(frozen=True, slots=True)
class Span:
    """Measurement of a clock, in seconds."""

    wall_s: float
    cpu_s: float
    """CPU of the contestant's processes."""
    others_s: float
    """CPU used by the rest of the machine or taken by its host; near 0 on a quiet machine."""


def wait_until_quiet(timeout_s: float) -> None:
    """Wait at most `timeout_s` until the machine used less than 0.2 cores for 0.5 s."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        busy_s = _machine_busy_s()
        time.sleep(0.5)
        if _machine_busy_s() - busy_s < 0.1:
            return


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = 60.0) -> None:
    """Poll `condition` every 2 ms (under 1 % of a core); raise `BenchmarkError` on timeout."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"timed out after {timeout_s:.0f} s waiting for {what}")
        time.sleep(0.002)


def _before_exec(nice: int) -> Callable[[], None]:
    """Return a hook that the child runs between fork and exec.

    The kernel kills the child when this process dies. A priority that is not allowed is skipped.
    """
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def hook() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        try:
            os.nice(nice)
            # With autogroups, the kernel applies niceness within a session only.
            Path("/proc/self/autogroup").write_text(str(nice))
        except OSError:
            pass

    return hook


def _with_descendants(pid: int) -> list[int]:
    """Return `pid` and its live descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _stat_fields(int(entry))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for member in found:
        found.extend(children.get(member, ()))
    return found


def _ticks(pid: int) -> int:
    """Return clock ticks of `pid` and of its children that it has waited for."""
    return sum(int(field) for field in _stat_fields(pid)[11:15])


def _machine_busy_s() -> float:
    """Return busy CPU seconds of all cores, including stolen ones."""
    user, nice, system, _idle, _wait, *rest = (
        int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + sum(rest)) / _TICKS


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of `/proc/PID/stat` from the third (state) on; [] if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    # The process name, in parentheses, may contain blanks.
    return text.rpartition(")")[2].split()
