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

from benchmarks.contestants.base import Outcome
from benchmarks.environment import RunEnvironment
from benchmarks.workloads import Workload

_REPOSITORY = Path(__file__).resolve().parents[2]
_PROGRAM = (sys.executable, "-m", "benchmarks.programs.floor_pipe")


class Floor:
    """Floor contestant: each leecher fetches from all seeders in turn."""

    def __init__(self, name: str = "floor (CURVE, BLAKE3, pwrite)", cipher: str = "curve") -> None:
        self.name = name
        self._cipher = cipher

    def skip_reason(self, workload: Workload) -> str | None:
        for module in ("zmq", "blake3", "cryptography"):
            if importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        if workload.is_folder:
            return "the floor moves one file"
        if workload.shaped:
            return "a star: its time would be that of the shaped link alone"
        return None

    def run(self, env: RunEnvironment) -> Outcome:
        sources, digests = [], "[]"
        for node in env.seeders:
            endpoint = f"tcp://{node.address}:{node.free_port()}"
            argv = node.argv([*_PROGRAM, "serve", self._cipher, endpoint, env.source])
            ready = json.loads(
                env.processes.start("floor-serve", argv, cwd=_REPOSITORY).read_line()
            )
            sources.append([endpoint, ready["key"]])
            digests = json.dumps(ready["digests"])
        fetchers, outputs = [], []
        for index, node in enumerate(env.leechers):
            target = env.root / f"leecher{index}.bin"
            argv = node.argv([*_PROGRAM, "fetch", self._cipher, target, json.dumps(sources)])
            fetcher = env.processes.start("floor-fetch", argv, cwd=_REPOSITORY)
            fetcher.write_line(digests)
            fetcher.read_line()
            fetchers.append(fetcher)
            outputs.append(target)
        clock = env.start_clock()
        for fetcher in fetchers:
            fetcher.write_line("go")
        reports = [json.loads(fetcher.read_line()) for fetcher in fetchers]
        span = clock.stop()
        wall_s = max(r["done"] for r in reports) - min(r["started"] for r in reports)
        return Outcome(wall_s, span, tuple(outputs))
