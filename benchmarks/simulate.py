"""Simulated swarms: time over the fluid bound, duplicate bytes and control messages.

The simulation runs the peer's own core over simulated links on a virtual clock, each run from a
seed. It prints a table, or one line for each run with ``--json``. Examples::

    python -m benchmarks.simulate --row W5 --seeds 5
    python -m benchmarks.simulate --row S
    python -m benchmarks.simulate --leechers 50 --size-mib 128 --up-mbit 100 --loss 0.01
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace

from common.manifest import piece_length_for
from peer.swarm.fetching.picker import Order
from peer.swarm.fetching.settings import DownloadSettings
from tests.simulation.peer import Fault
from tests.simulation.swarm import KIB, MBIT, MIB, Result, Scenario, Swarm

_EQUAL = Scenario(leechers=30, size=64 * MIB, down=80 * MBIT)
_LARGE = replace(_EQUAL, size=256 * MIB, chunk=64 * KIB)
_GIGABIT = replace(
    _LARGE, size=1024 * MIB, piece_length=2 * MIB, up=1000 * MBIT, down=1000 * MBIT, chunk=256 * KIB
)
_ACCESS = (1000, 1000), (100, 100), (10, 40)
"""Mbit/s up and down of every third leecher each, in `mixed`."""

ROWS = {
    "W5": Scenario(leechers=8, size=64 * MIB),
    "S100": Scenario(leechers=100, size=256 * MIB, chunk=64 * KIB),
    "S": Scenario(leechers=1000, size=256 * MIB, chunk=256 * KIB),
    "far": Scenario(leechers=8, size=64 * MIB, delay_s=0.05, loss=0.01, rto_s=0.3),
    "equal-8": replace(_EQUAL, leechers=8),
    "equal-30": _EQUAL,
    "equal-100": replace(_EQUAL, leechers=100),
    "symmetric": replace(_LARGE, leechers=100),
    "symmetric-S": replace(_LARGE, leechers=1000, chunk=256 * KIB),
    "slow": Scenario(leechers=30, size=64 * MIB, up=2 * MBIT),
    "gigabit": _GIGABIT,
    "equal-far": replace(_EQUAL, delay_s=0.025),
    "arrivals": replace(_EQUAL, within_s=10.0),
    "crashes": _EQUAL,
    "liars": _EQUAL,
    "mixed": replace(
        _LARGE,
        up_of={0: 1000 * MBIT} | {i: _ACCESS[i % 3][0] * MBIT for i in range(1, 31)},
        down_of={0: 1000 * MBIT} | {i: _ACCESS[i % 3][1] * MBIT for i in range(1, 31)},
    ),
}
"""All links have 80 Mbit/s up and 200 down unless a row says otherwise.

Links are equal, 80 Mbit/s both ways, in all rows from `equal-8` on but `slow`, `gigabit` and
`mixed`. In `crashes` three of the 30 leechers crash; in `liars` one serves wrong bytes, one sends
nothing, and one declines everything.
"""


def _spoil(swarm: Swarm, row: str) -> None:
    """Add the faults of the row."""
    first, second, third = swarm.leechers[:3]
    if row == "crashes":
        for number, peer in enumerate((first, second, third)):
            swarm.clock.at(1.5 + number, swarm.leave, peer, 0.5)
    elif row == "liars":
        first.fault, second.fault, third.fault = Fault.LIAR, Fault.TARPIT, Fault.EMPTY


@dataclass(frozen=True)
class Line:
    """Printed figures of one run."""

    seed: int
    median_s: float
    p99_s: float
    last_s: float
    bound_s: float
    over_bound: float
    """p99 over the fluid bound; with fewer than 100 leechers p99 is the last one."""
    last_over_bound: float
    duplicates: float
    """Duplicate bytes, as a fraction of the needed bytes."""
    control_messages: float
    """Requests, cancellations, acknowledgements and announcements for each delivered piece."""
    requests: float
    seeder_copies: float
    """Bytes sent by the seeders, in copies of the content."""
    unfinished: int
    wall_s: float


def run(scenario: Scenario, seed: int, row: str = "") -> Line:
    """Run `scenario` once from `seed`, with the faults of the row."""
    began = time.perf_counter()
    swarm = Swarm(scenario, seed)
    if row in ("crashes", "liars"):
        _spoil(swarm, row)
    swarm.start_all()
    result: Result = swarm.run()
    sent = sum(peer.serving.sent_bytes for peer in swarm.seeders)
    return Line(
        seed=seed,
        median_s=round(result.median_s, 3),
        p99_s=round(result.quantile_s(0.99), 3),
        last_s=round(result.last_s, 3),
        bound_s=round(result.bound_s, 3),
        over_bound=round(result.quantile_s(0.99) / result.bound_s, 3),
        last_over_bound=round(result.last_s / result.bound_s, 3),
        duplicates=round(result.duplicate_bytes / (scenario.size * scenario.leechers), 4),
        control_messages=round(result.control_per_piece, 2),
        requests=round(result.requests / max(1, result.pieces_delivered), 2),
        seeder_copies=round(sent / scenario.size, 2),
        unfinished=result.unfinished,
        wall_s=round(time.perf_counter() - began, 1),
    )


def scenario_of(options: argparse.Namespace) -> Scenario:
    """Return the scenario of the chosen row, changed by the options."""
    scenario = ROWS[options.row]
    changes: dict[str, object] = {
        "leechers": options.leechers,
        "seeders": options.seeders,
        "size": options.size_mib and options.size_mib * MIB,
        "piece_length": options.piece_kib and options.piece_kib * KIB,
        "up": options.up_mbit and options.up_mbit * MBIT,
        "down": options.down_mbit and options.down_mbit * MBIT,
        "delay_s": options.delay_ms and options.delay_ms / 2000,
        "loss": options.loss,
    }
    tuning: dict[str, object] = {
        "order": options.order and Order(options.order),
        "horizon_s": options.horizon_s,
        "used_max": options.used_max,
        "announce_batch_s": options.announce_ms and options.announce_ms / 1000,
    }
    download = replace(
        DownloadSettings(),
        **{k: v for k, v in tuning.items() if v is not None},  # type: ignore[arg-type]
    )
    given = {k: v for k, v in changes.items() if v is not None}
    scenario = replace(scenario, download=download, **given)  # type: ignore[arg-type]
    if options.piece_kib is None:
        scenario = replace(scenario, piece_length=piece_length_for(scenario.size))
    return scenario


def parser() -> argparse.ArgumentParser:
    """Return the command-line parser."""
    text = __doc__ or ""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.simulate",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--row", choices=ROWS, default="W5", help="base scenario (default: W5)")
    top.add_argument("--seeds", type=int, default=3, help="number of runs (default: 3)")
    top.add_argument("--seed", type=int, default=0, help="first seed (default: 0)")
    top.add_argument("--json", action="store_true", help="print one JSON line for each run")
    for name, kind, text in (
        ("leechers", int, "number of leechers"),
        ("seeders", int, "number of seeders"),
        ("size-mib", int, "size of the content"),
        ("piece-kib", int, "size of a piece (default: what a share of this size has)"),
        ("up-mbit", float, "uplink of each peer, Mbit/s"),
        ("down-mbit", float, "downlink of each peer, Mbit/s"),
        ("delay-ms", float, "one-way delay between two peers"),
        ("loss", float, "fraction of messages delayed by a retransmission timeout"),
        ("horizon-s", float, "window length: time for which a source has requests"),
        ("used-max", int, "number of sources that one download uses at a time"),
        (
            "announce-ms",
            float,
            "time between two announcements of verified pieces",
        ),
    ):
        top.add_argument(f"--{name}", type=kind, help=text)
    top.add_argument("--order", choices=[order.value for order in Order], help="order of pieces")
    return top


def main() -> None:
    """Run each seed, and print a line after each run."""
    options = parser().parse_args()
    scenario = scenario_of(options)
    columns = list(Line.__dataclass_fields__)
    if not options.json:
        print(
            f"{scenario.seeders} -> {scenario.leechers}, {scenario.size // MIB} MiB in pieces of "
            f"{scenario.piece_length // KIB} KiB, {scenario.up / MBIT:g} Mbit/s up, "
            f"{scenario.down / MBIT:g} down"
        )
        print("  ".join(columns))
    for seed in range(options.seed, options.seed + options.seeds):
        line = asdict(run(scenario, seed, options.row))
        if options.json:
            print(json.dumps({"row": options.row, **line}), flush=True)
        else:
            print("  ".join(f"{line[c]!s:>{len(c)}}" for c in columns), flush=True)


if __name__ == "__main__":
    main()
