"""Command line of the benchmarks: `python -m benchmarks`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TextIO

import click

from benchmarks.contestants.registry import contestants_for
from benchmarks.match import Match, Skipped
from benchmarks.processes import BenchmarkError
from benchmarks.report import Result, print_table
from benchmarks.workloads import KIB, MIB, WORKLOADS, Workload

_SMOKE_BYTES = {"w1": 8 * MIB, "w2": 8 * MIB, "w3": 2 * MIB, "w4": 800 * KIB, "w5": MIB}
_SMOKE_BYTES |= {"w6": MIB, "u1": 8 * MIB, "u2": 8 * MIB, "u3": 3200 * KIB}
_UNITS = {"K": KIB, "M": MIB, "G": 1024 * MIB}


class Size(click.ParamType[int]):
    """Number of bytes; the suffixes K, M and G are powers of 1024."""

    name = "size"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        text = str(value).upper().removesuffix("IB").removesuffix("B")
        unit = _UNITS.get(text[-1:], 1)
        try:
            size = int(float(text.rstrip("KMG")) * unit)
        except ValueError:
            self.fail(f"{value!r} is not a size: write 4096, 64K, 256M or 1G", param, ctx)
        if size < 1:
            self.fail("must be at least one byte", param, ctx)
        return size


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("keys", nargs=-1, metavar="[w1|w2|w3|w4|w5|w6|u1|u2|u3|h]...")
@click.option(
    "--rounds",
    default=3,
    show_default=True,
    type=click.IntRange(1),
    help="Runs of each contestant.",
)
@click.option("--size", type=Size(), help="Size of the content; default: the workload's.")
@click.option(
    "--settle",
    "settle_s",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0),
    help="Longest wait, in seconds, for a quiet machine before each run.",
)
@click.option(
    "--nice",
    default=0,
    type=click.IntRange(-20, 19),
    help="Niceness of all contestants; below 0 needs root.",
)
@click.option(
    "--only", multiple=True, metavar="WORD", help="Only contestants with this in the name."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the JSON lines.  [default: bench-results/TIME.jsonl]",
)
@click.option("--smoke", is_flag=True, help="Tiny contents, one round: check that everything runs.")
def main(
    keys: Sequence[str],
    rounds: int,
    size: int | None,
    settle_s: float,
    nice: int,
    only: Sequence[str],
    json_path: Path | None,
    smoke: bool,
) -> None:
    """Time Mini-Torrent beside other programs, on this machine, in interleaved rounds.

    Without a workload all of them run. Contestants that are not installed, and the workload that
    needs root for its network, are skipped with a message.

    Example: python -m benchmarks w1 w3 --rounds 5
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if smoke:
        rounds, settle_s = 1, 0.0
    workloads = [_sized(key.lower(), size, smoke) for key in keys or WORKLOADS]
    path = json_path or Path("bench-results", f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    skipped: list[Skipped] = []
    try:
        with path.open("a") as out:
            for workload in workloads:
                skipped += _run_workload(workload, rounds, settle_s, nice, only, out, results)
    except BenchmarkError as error:
        raise click.ClickException(str(error)) from error
    finally:
        if results or skipped:
            print_table(results, skipped)
            click.echo(f"JSON lines: {path}")
    if any("failed" in reason for _, _, reason in skipped):
        sys.exit(1)


def _run_workload(
    workload: Workload,
    rounds: int,
    settle_s: float,
    nice: int,
    only: Sequence[str],
    out: TextIO,
    results: list[Result],
) -> list[Skipped]:
    contestants = contestants_for(workload)
    chosen = [c for c in contestants if not only or any(word in c.name for word in only)]
    match = Match(workload, chosen)

    def report(result: Result) -> None:
        results.append(result)
        result.write(out)
        click.echo(
            f"{result.workload} {result.contestant}: {result.wall_s:.2f} s,"
            f" {result.cpu_s:.2f} CPU-s, others {result.others_s:.2f} CPU-s",
            err=True,
        )

    click.echo(f"{workload.key}: {workload.title}", err=True)
    match.run(rounds, report, settle_s=settle_s, nice=nice)
    return match.skipped


def _sized(key: str, size: int | None, smoke: bool) -> Workload:
    if key not in WORKLOADS:
        raise click.BadParameter(f"{key}: there are {', '.join(WORKLOADS)}")
    workload = WORKLOADS[key]
    if smoke:
        return workload.resized(_SMOKE_BYTES.get(key, MIB))
    return workload.resized(size) if size else workload


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Turn each signal into `KeyboardInterrupt`, so that every `finally` runs."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
