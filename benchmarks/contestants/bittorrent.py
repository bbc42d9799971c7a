"""libtorrent (rasterbar), one process for each node, tuned and unencrypted.

Timed: from the first leecher's `add_torrent`, in a running session that has the torrent in memory,
to the last leecher's seeding state. Writes that are still queued then are left out of the time, to
its advantage, and noted as `flushed_s`. Seeders have loaded and checked the torrent before. Peers
come from a tracker: peers added by hand are connected by a timer, up to a second later.
CPU: all sessions' processes and the tracker within the span.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.contestants.base import Outcome
from benchmarks.contestants.torrent_setup import Client, prepare
from benchmarks.environment import RunEnvironment
from benchmarks.processes import ChildProcess
from benchmarks.workloads import MIB, Workload
from common.manifest import piece_length_for

_REPOSITORY = Path(__file__).resolve().parents[2]


class Libtorrent:
    """The library behind qBittorrent and Deluge, by its Python binding."""

    def __init__(
        self,
        name: str = "libtorrent",
        overrides: dict[str, Any] | None = None,
        *,
        as_ours: bool = False,
    ) -> None:
        self.name = name
        self._overrides = overrides
        self._as_ours = as_ours
        """Use our default piece length instead of the best one for libtorrent."""

    def skip_reason(self, workload: Workload) -> str | None:
        if self._as_ours and workload.shaped:
            return "its best piece length for this workload is as small as ours"
        if importlib.util.find_spec("libtorrent") is None:
            return "libtorrent is not installed"
        return None

    def run(self, env: RunEnvironment) -> Outcome:
        def start(client: Client, *, seed: bool) -> ChildProcess:
            overrides = self._overrides
            if overrides is None:
                overrides = best_overrides(env.workload)
            argv: list[str | Path] = [sys.executable, "-m", "benchmarks.programs.libtorrent_peer"]
            argv += [client.node.address, str(client.port), json.dumps(overrides)]
            peer = env.processes.start("libtorrent", client.node.argv(argv), cwd=_REPOSITORY)
            order = {"torrent": str(client.torrent), "save": str(client.folder), "seed": seed}
            peer.write_line(json.dumps(order))
            peer.read_line()
            return peer

        workload = env.workload
        piece_length = (
            piece_length_for(workload.size) if self._as_ours else best_piece_length(workload)
        )
        clients = prepare(env, piece_length, lambda client: start(client, seed=True))
        leechers = [start(client, seed=False) for client in clients]
        clock = env.start_clock()
        for peer in leechers:
            peer.write_line("go")
        reports = [json.loads(peer.read_line()) for peer in leechers]
        span = clock.stop()
        started = min(report["started"] for report in reports)
        wall_s = max(report["done"] for report in reports) - started
        flushed_s = max(report["flushed"] for report in reports) - started
        outputs = tuple(client.folder / env.source.name for client in clients)
        return Outcome(wall_s, span, outputs, {"flushed_s": flushed_s})


def best_piece_length(workload: Workload) -> int:
    """Return the best piece length for libtorrent, in bytes (64 KiB to 4 MiB were tried)."""
    return 256 * 1024 if workload.shaped else 4 * MIB


def best_overrides(workload: Workload) -> dict[str, Any]:
    """Return the settings that replace the tuning for fast links on slow links."""
    if not workload.shaped:
        return {}
    # Short queues: a request that waits at one peer is not sent to another.
    return {
        "max_out_request_queue": 100,
        "request_queue_time": 1,
        "send_buffer_watermark": 256 * 1024,
        "send_buffer_low_watermark": 64 * 1024,
    }
