"""Command line of the tracker's load: `python -m benchmarks.tracker`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep

import click
import zmq
from rich.console import Console
from rich.table import Table

from benchmarks.tracker.contents import GROUP, Plan, fill
from benchmarks.tracker.deliveries import deliveries
from benchmarks.tracker.offers import durable_offers
from benchmarks.tracker.peers import held_through_a_restart
from benchmarks.tracker.process import TrackerProcess
from benchmarks.tracker.questions import Asker
from common.messages import tracker
from tracker.store.sqlite_store import SqliteStore

MIB = 1 << 20
SUBSCRIBERS = 1_000
SETTLE_S = 3.0  # the first thing that a tracker hashes takes 64 MiB for a moment
Row = tuple[str, str]

COMMANDS = {
    "FindShare": tracker.FindShare(GROUP, "file-000123.bin"),
    "ListFiles, 500 rows": tracker.ListFiles(GROUP),
    "EventsSince, 500 entries": tracker.EventsSince(GROUP, 100),
    "GetDevices": tracker.GetDevices(GROUP),
    "Follow": tracker.Follow(),
}


def questions(folder: Path) -> Iterator[Row]:
    """The cost of questions, of one device with many on their way."""
    home = _home(folder, "q")
    (pair,) = fill(SqliteStore(home / "tracker.db"), Plan(offers=4))
    process, context = TrackerProcess(home, tcp=True), zmq.Context()
    asker = Asker(context, process, pair)
    try:
        asker.request(tracker.Announce("tcp://127.0.0.1:9", []))
        for name, command in COMMANDS.items():
            rate, loop_us, cpu_us = asker.cost(command, 1_500)
            yield name, f"{loop_us:.0f} µs of the loop, {cpu_us:.0f} of all threads, {rate:,.0f}/s"
    finally:
        asker.close()
        context.term()
        process.end()


def start(folder: Path, scale: float) -> Iterator[Row]:
    """The start with many accounts and offers."""
    plan = Plan(
        accounts=round(100_000 * scale),
        groups=round(2_500 * scale),
        shares=round(250_000 * scale),
        offers=4,
        entries=10,
    )
    home = _home(folder, "s")
    fill(SqliteStore(home / "tracker.db"), plan)
    process = TrackerProcess(home)
    cpu_s = process.cpu_s
    sleep(SETTLE_S)
    found = f"{process.start_s:.1f} s, {cpu_s:.1f} CPU-s, {process.memory / MIB:.0f} MiB"
    process.end()
    yield f"start, {plan.accounts:,} accounts, {plan.shares * 4:,} offers", found


def _home(folder: Path, name: str) -> Path:
    home = folder / name
    home.mkdir(mode=0o700)
    TrackerProcess(home).end()  # makes its keys and its tables
    return home


@click.command()
@click.argument(
    "rows", nargs=-1, type=click.Choice(["questions", "offers", "deliveries", "start", "peers"])
)
@click.option("--peers", default=9_800, show_default=True, help="Logged-in peers of that row.")
@click.option("--scale", default=1.0, show_default=True, help="Size of the database of `start`.")
@click.option("--on-way", default=64, show_default=True, help="Commands of `offers` at a tracker.")
def main(rows: tuple[str, ...], peers: int, scale: float, on_way: int) -> None:
    """Load trackers on this machine, by clients on the same cores.

    CPU per operation counts more than seconds, since clients take their part of the cores.
    """
    for name in [name for name in os.environ if name.startswith("MINI_TORRENT")]:
        del os.environ[name]
    table = Table(title="trackers")
    for heading in ("row", "measured"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="mt") as text:
        folder = Path(text)
        every: dict[str, Callable[[], Iterator[Row]]] = {
            "questions": lambda: questions(folder),
            "offers": lambda: durable_offers(on_way),
            "deliveries": lambda: deliveries(_home(folder, "d"), SUBSCRIBERS),
            "start": lambda: start(folder, scale),
            "peers": lambda: held_through_a_restart(_home(folder, "p"), peers),
        }
        for name in rows or every:
            for row in every[name]():
                table.add_row(*row)
                click.echo(": ".join(row), err=True)
    load = " ".join(f"{one:.1f}" for one in os.getloadavg())
    table.caption = f"load {load}"
    Console().print(table)


if __name__ == "__main__":
    main()
