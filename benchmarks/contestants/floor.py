"""Floor of this architecture, see `benchmarks/programs/floor_pipe.py`.

Timed: from opening the target and connecting (CURVE handshake included) until the last piece is
verified and written. The piece digests are known before.
CPU: both sides' processes within the span.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

from benchmarks.arena import Arena
from benchmarks.contestants.base import Outcome
from benchmarks.workloads import Workload

_REPOSITORY = Path(__file__).resolve().parents[2]
_PROGRAM = (sys.executable, "-m", "benchmarks.programs.floor_pipe")


class Floor:
    """Floor contestant: each leecher fetches from all seeders in turn."""

    def __init__(self, name: str = "floor (CURVE, BLAKE3, pwrite)", cipher: str = "curve") -> None:
        self.name = name
        self._cipher = cipher

    def unfit(self, workload: Workload) -> str | None:
        for module in ("zmq", "blake3", "cryptography"):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        if workload.is_folder:
            return "the floor moves one file"
        if workload.shaped:
            return "a star: its time would be that of the shaped link alone"
        return None

    def run(self, arena: Arena) -> Outcome:
        sources, digests = [], "[]"
        for place in arena.seeders:
            endpoint = f"tcp://{place.address}:{place.free_port()}"
            argv = place.argv([*_PROGRAM, "serve", self._cipher, endpoint, arena.source])
            ready = json.loads(arena.crew.start("floor-serve", argv, cwd=_REPOSITORY).hear())
            sources.append([endpoint, ready["key"]])
            digests = json.dumps(ready["digests"])
        fetchers, outputs = [], []
        for index, place in enumerate(arena.leechers):
            target = arena.root / f"leecher{index}.bin"
            argv = place.argv([*_PROGRAM, "fetch", self._cipher, target, json.dumps(sources)])
            fetcher = arena.crew.start("floor-fetch", argv, cwd=_REPOSITORY)
            fetcher.say(digests)
            fetcher.hear()
            fetchers.append(fetcher)
            outputs.append(target)
        clock = arena.start_clock()
        for fetcher in fetchers:
            fetcher.say("go")
        reports = [json.loads(fetcher.hear()) for fetcher in fetchers]
        span = clock.stop()
        wall_s = max(r["done"] for r in reports) - min(r["started"] for r in reports)
        return Outcome(wall_s, span, tuple(outputs))
