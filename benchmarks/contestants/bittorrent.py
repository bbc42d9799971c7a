"""libtorrent (rasterbar), in a process a node, tuned and unencrypted.

Timed: from the first leecher's `add_torrent` in a session that already runs and has the torrent in
memory, to the last leecher's seeding state (what it still has queued for the disk then is left out
of the time, to its advantage, and noted as `flushed_s`). Seeders have loaded and checked the
torrent before, and peers are told to each other by hand, so neither a tracker nor a start-up is in
the span. CPU: all sessions' processes within the span.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.arena import Arena, Place
from benchmarks.contestants.base import Outcome
from benchmarks.crew import Worker
from benchmarks.torrents import make_torrent
from benchmarks.workloads import MIB, Workload

_REPOSITORY = Path(__file__).resolve().parents[2]


class Libtorrent:
    """The library behind qBittorrent and Deluge, by its Python binding."""

    name = "libtorrent"

    def __init__(
        self, overrides: dict[str, Any] | None = None, *, piece_length: int | None = None
    ) -> None:
        self._overrides = overrides
        self._piece_length = piece_length

    def unfit(self, workload: Workload) -> str | None:
        if importlib.util.find_spec("libtorrent") is None:
            return "libtorrent is not installed"
        return None

    def run(self, arena: Arena) -> Outcome:
        torrent = arena.root / "content.torrent"
        make_torrent(
            arena.source,
            torrent,
            announce="http://127.0.0.1:1/announce",
            piece_length=self._piece_length or best_piece_length(arena.workload),
        )
        seeders = [self._start(arena, place) for place in arena.seeders]
        for peer, _ in seeders:
            _ask(peer, do="open", torrent=str(torrent), save=str(arena.source.parent), seed=True)
            peer.hear()
        leechers = [self._start(arena, place) for place in arena.leechers]
        outputs = []
        for index, (peer, _) in enumerate(leechers):
            save = arena.folder(f"leecher{index}")
            outputs.append(save / arena.source.name)
            _ask(peer, do="open", torrent=str(torrent), save=str(save), seed=False)
            peer.hear()
        known = [endpoint for _, endpoint in seeders]
        clock = arena.start_clock()
        for peer, endpoint in leechers:
            _ask(peer, do="go", peers=known)
            known.append(endpoint)
        reports = [json.loads(peer.hear()) for peer, _ in leechers]
        span = clock.stop()
        started = min(report["started"] for report in reports)
        wall_s = max(report["done"] for report in reports) - started
        flushed_s = max(report["flushed"] for report in reports) - started
        return Outcome(wall_s, span, tuple(outputs), {"flushed_s": flushed_s})

    def _start(self, arena: Arena, place: Place) -> tuple[Worker, tuple[str, int]]:
        port = place.free_port()
        argv: list[str | Path] = [sys.executable, "-m", "benchmarks.programs.libtorrent_peer"]
        overrides = self._overrides
        if overrides is None:
            overrides = best_overrides(arena.workload)
        argv += [place.address, str(port), json.dumps(overrides)]
        worker = arena.crew.start("libtorrent", place.argv(argv), cwd=_REPOSITORY)
        return worker, (place.address, port)


def best_piece_length(workload: Workload) -> int:
    """Bytes: the best for libtorrent of 256 KiB to 4 MiB in each kind of workload."""
    if workload.shaped:
        return 256 * 1024
    return MIB if workload.is_folder else 4 * MIB


def best_overrides(workload: Workload) -> dict[str, Any]:
    """What did better than the tuning for one fast link, in each kind of workload."""
    if workload.shaped:
        # Short queues: what waits at one peer cannot be had from another.
        return {
            "max_out_request_queue": 100,
            "request_queue_time": 1,
            "send_buffer_watermark": 256 * 1024,
            "send_buffer_low_watermark": 64 * 1024,
        }
    # Connections start on a tick: a short transfer gains by an earlier one, a long one loses.
    return {"tick_interval": 100} if workload.is_folder else {}


def _ask(peer: Worker, **order: object) -> None:
    peer.say(json.dumps(order))
