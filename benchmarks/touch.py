"""Short commands and starts: `python -m benchmarks.touch`.

Owns: a tracker and a peer in a temporary folder, and the table of times and CPU. All rows are
interleaved with an empty Python program, since the interpreter itself is a part of each.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter

import click
from rich.console import Console
from rich.table import Table

_BIN = Path(sys.executable).parent
_PEER = str(_BIN / "mini-torrent")
_TRACKER = str(_BIN / "mini-torrent-tracker")

Cost = tuple[float, float]
"""Wall and CPU seconds of one run."""


@dataclass(slots=True)
class Row:
    """One command line, with its runs."""

    name: str
    run: Callable[[], Cost]
    costs: list[Cost] = field(default_factory=list)


class Stage:
    """A tracker and a peer in ``folder``, and homes for more of both."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tracker, self.link, _ = self._start_tracker("t")
        self._peer = ["--home", str(folder / "p")]
        account = ["a", "pass word"]
        for words in (["up", self.link], ["create-user", *account], ["login", *account]):
            _short([_PEER, *self._peer, *words])

    def close(self) -> None:
        """End both."""
        _short([_PEER, *self._peer, "down"])
        _end(self._tracker)

    def rows(self) -> list[Row]:
        """All rows, in the order of the table."""
        rows = [Row("python -c pass", lambda: _short([sys.executable, "-c", "pass"]))]
        for words in ("--version", "--help", "status", "list-groups", "show-downloads"):
            line = [_PEER, *self._peer, words] if words[0] != "-" else [_PEER, words]
            rows.append(Row(f"mini-torrent {words}", lambda line=line: _short(line)))  # type: ignore[misc]
        rows.append(Row("mini-torrent up, cold to ready", self._up))
        rows.append(Row("mini-torrent-tracker --version", lambda: _short([_TRACKER, "--version"])))
        rows.append(Row("mini-torrent-tracker run, first, to ready", lambda: self._run(new=True)))
        rows.append(Row("mini-torrent-tracker run, again, to ready", lambda: self._run(new=False)))
        return rows

    def _up(self) -> Cost:
        home = self._folder / "u"
        shutil.rmtree(home, ignore_errors=True)
        wall_s, cpu_s = _short([_PEER, "--home", str(home), "up", self.link])
        cpu_s += _cpu_of(int((home / "lock").read_text()))
        _short([_PEER, "--home", str(home), "down"])
        return wall_s, cpu_s

    def _run(self, *, new: bool) -> Cost:
        if new:
            shutil.rmtree(self._folder / "r", ignore_errors=True)
        began = perf_counter()
        process, _, cpu_s = self._start_tracker("r")
        wall_s = perf_counter() - began
        _end(process)
        return wall_s, cpu_s

    def _start_tracker(self, name: str) -> tuple[subprocess.Popen[bytes], str, float]:
        home = str(self._folder / name)
        line = [_TRACKER, "run", "--home", home, "--bind", f"ipc://{home}.c"]
        process = subprocess.Popen(
            [*line, "--events", f"ipc://{home}.e"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        if not ready:
            raise click.ClickException("the tracker did not start")
        return process, ready[-1].decode(), _cpu_of(process.pid)


def _short(line: list[str]) -> Cost:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), perf_counter()
    quiet = subprocess.DEVNULL
    done = subprocess.run(line, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True)
    wall_s, after = perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise click.ClickException(f"{' '.join(line[:1] + line[-1:])} failed: {done.stderr}")
    return wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cpu_of(pid: int) -> float:
    """CPU seconds of a running process, by the counters of its threads."""
    found = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


@click.command()
@click.option("--rounds", default=20, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Time short commands and starts, in interleaved rounds."""
    for name in [name for name in os.environ if name.startswith("MINI_TORRENT")]:
        del os.environ[name]
    # Not in TMPDIR: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mt") as folder:
        stage = Stage(Path(folder))
        try:
            rows = stage.rows()
            for _ in range(rounds):
                for row in rows:
                    row.costs.append(row.run())
        finally:
            stage.close()
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    table = Table(title=f"medians and ranges of {rounds} rounds; load {load}")
    for heading in ("command", "ms", "range", "CPU ms"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for row in rows:
        walls = [1e3 * wall_s for wall_s, _ in row.costs]
        cpu = 1e3 * median(cpu_s for _, cpu_s in row.costs)
        spread = f"{min(walls):.0f}–{max(walls):.0f}"
        table.add_row(row.name, f"{median(walls):.0f}", spread, f"{cpu:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
