"""Results: one JSON line for each run, and a table with medians, ranges and ratios."""

from __future__ import annotations

import json
from dataclasses import dataclass
from statistics import median
from typing import TextIO

from rich.console import Console
from rich.table import Table

from benchmarks.workloads import GIB

OURS = "mini-torrent"


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one contestant. CPU in seconds; `handled_bytes` counts all leechers."""

    workload: str
    contestant: str
    round: int
    time: str
    """Time of the end, RFC 3339."""
    size: int
    handled_bytes: int
    wall_s: float
    cpu_s: float
    others_s: float
    """CPU seconds of the rest of the machine meanwhile."""
    same: bool
    """True if every output equals the source, byte for byte."""
    notes: dict[str, float]

    def write(self, out: TextIO) -> None:
        fields = {name: getattr(self, name) for name in self.__slots__}
        out.write(json.dumps(fields) + "\n")
        out.flush()


def print_table(results: list[Result], skipped: list[tuple[str, str, str]]) -> None:
    """Print each workload, fastest first; then the skipped contestants with their reasons."""
    table = Table(title="medians; ratio: ours divided by theirs; others: cores used by the rest")
    for heading in ("workload", "contestant"):
        table.add_column(heading, no_wrap=True)
    for heading in (
        "runs",
        "median s",
        "range s",
        "CPU-s/GiB",
        "others",
        "ratio time",
        "ratio CPU",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for workload in dict.fromkeys(result.workload for result in results):
        table.add_section()
        for row in _rows([result for result in results if result.workload == workload]):
            table.add_row(workload, *row)
    console = Console(width=None if Console().is_terminal else 130)
    console.print(table)
    notes = _notes(results)
    if notes:
        console.print(notes)
    for workload, contestant, reason in skipped:
        console.print(f"skipped {workload} {contestant}: {reason}", style="dim", markup=False)


def _rows(results: list[Result]) -> list[list[str]]:
    by_name: dict[str, list[Result]] = {}
    for result in results:
        by_name.setdefault(result.contestant, []).append(result)
    ours = by_name.get(OURS)
    rows = []
    for name, runs in sorted(by_name.items(), key=lambda item: _wall(item[1])):
        walls = [run.wall_s for run in runs]
        rows.append(
            [
                name if all(run.same for run in runs) else f"{name} (OUTPUT DIFFERS)",
                str(len(runs)),
                f"{_wall(runs):.2f}",
                f"{min(walls):.2f}-{max(walls):.2f}",
                f"{_cpu(runs):.2f}",
                f"{median(run.others_s / run.wall_s for run in runs):.2f}",
                f"{_wall(ours) / _wall(runs):.2f}" if ours and ours is not runs else "",
                f"{_cpu(ours) / _cpu(runs):.2f}" if ours and ours is not runs else "",
            ]
        )
    return rows


def _notes(results: list[Result]) -> str:
    """Return the additional figures of each contestant, as medians."""
    collected: dict[tuple[str, str], dict[str, list[float]]] = {}
    for result in results:
        kept = collected.setdefault((result.workload, result.contestant), {})
        for name, value in result.notes.items():
            kept.setdefault(name, []).append(value)
    lines = [
        f"{workload} {name}: "
        + ", ".join(f"{note} {median(values):.2f}" for note, values in kept.items())
        for (workload, name), kept in collected.items()
        if kept
    ]
    return "\n".join(lines)


def _wall(runs: list[Result]) -> float:
    return median(run.wall_s for run in runs)


def _cpu(runs: list[Result]) -> float:
    """Return CPU seconds per GiB; never zero, because it is a divisor."""
    return max(median(run.cpu_s / run.handled_bytes * GIB for run in runs), 1e-9)
