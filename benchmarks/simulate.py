"""Swarms in virtual time: how near to the fluid bound, at what cost in duplicates and messages.

The same deciding core as in the peer, over simulated links; a run is a seed. Prints a table, or
with ``--json`` a line for each run. For example::

    python -m benchmarks.simulate --row W5 --seeds 5
    python -m benchmarks.simulate --row S
    python -m benchmarks.simulate --leechers 50 --size-mib 128 --up-mbit 100 --loss 0.01
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace

from peer.swarm.fetching.picker import Order
from peer.swarm.settings import DownloadSettings
from tests.simulation.swarm import KIB, MBIT, MIB, Result, Scenario, Swarm

ROWS = {
    "W5": Scenario(leechers=8, size=64 * MIB),
    "S100": Scenario(leechers=100, size=256 * MIB, chunk=256 * KIB),
    "S": Scenario(leechers=1000, size=256 * MIB, chunk=256 * KIB),
    "symmetric": Scenario(leechers=100, size=256 * MIB, down=80 * MBIT, chunk=256 * KIB),
    "far": Scenario(leechers=8, size=64 * MIB, delay_s=0.05, loss=0.01, rto_s=0.3),
}
"""Everything at 80 Mbit/s up and 200 down, unless it says otherwise."""


@dataclass(frozen=True)
class Line:
    """One run, as it is printed."""

    seed: int
    median_s: float
    p99_s: float
    last_s: float
    bound_s: float
    over_bound: float
    """p99 over the fluid bound; of fewer than a hundred leechers that is the last."""
    duplicates: float
    """Bytes that came twice, as a part of those that were needed."""
    control_messages: float
    """Requests, cancellations, credits and announcements, for each piece delivered."""
    requests: float
    seeder_copies: float
    """How often the seeders sent the content, all in all."""
    unfinished: int
    wall_s: float


def run(scenario: Scenario, seed: int) -> Line:
    """One run from a seed."""
    began = time.perf_counter()
    swarm = Swarm(scenario, seed)
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
        duplicates=round(result.duplicate_bytes / (scenario.size * scenario.leechers), 4),
        control_messages=round(result.control_per_piece, 2),
        requests=round(result.requests / max(1, result.pieces_delivered), 2),
        seeder_copies=round(sent / scenario.size, 2),
        unfinished=result.unfinished,
        wall_s=round(time.perf_counter() - began, 1),
    )


def scenario_of(options: argparse.Namespace) -> Scenario:
    """The row, with what the options say otherwise."""
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
    return replace(scenario, download=download, **given)  # type: ignore[arg-type]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    text = __doc__ or ""
    top = argparse.ArgumentParser(
        prog="python -m benchmarks.simulate",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--row", choices=ROWS, default="W5", help="where to begin (default: W5)")
    top.add_argument("--seeds", type=int, default=3, help="how many runs (default: 3)")
    top.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    top.add_argument("--json", action="store_true", help="a JSON line for each run")
    for name, kind, text in (
        ("leechers", int, "how many fetch"),
        ("seeders", int, "how many have everything"),
        ("size-mib", int, "size of the content"),
        ("piece-kib", int, "size of a piece"),
        ("up-mbit", float, "uplink of everybody, Mbit/s"),
        ("down-mbit", float, "downlink of everybody, Mbit/s"),
        ("delay-ms", float, "one way between two peers"),
        ("loss", float, "part of the messages that come late by a timeout"),
        ("horizon-s", float, "a window holds what its source gives in this time"),
        ("used-max", int, "sources of one download at a time"),
        ("announce-ms", float, "how long verified pieces are gathered before they are announced"),
    ):
        top.add_argument(f"--{name}", type=kind, help=text)
    top.add_argument("--order", choices=[order.value for order in Order], help="of pieces")
    return top


def main() -> None:
    """Run, and print a line after each run."""
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
        line = asdict(run(scenario, seed))
        if options.json:
            print(json.dumps({"row": options.row, **line}), flush=True)
        else:
            print("  ".join(f"{line[c]!s:>{len(c)}}" for c in columns), flush=True)


if __name__ == "__main__":
    main()
