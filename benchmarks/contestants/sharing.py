"""Sharing a large file: `upload-file` beside `b3sum`.

Timed: for ours, from typing `upload-file` at a running prompt until its answer, the registration at
the tracker included; for b3sum, the whole program. Both use all cores. The digest is compared with
one that was made before. CPU: tracker, peer and prompt within the span; b3sum as a whole.
"""

from __future__ import annotations

from blake3 import blake3

from benchmarks.contestants.base import Outcome, missing_program
from benchmarks.contestants.ours import BenchmarkSwarm, not_installed
from benchmarks.environment import RunEnvironment
from benchmarks.processes import BenchmarkError
from benchmarks.report import OURS
from benchmarks.workloads import Workload


class UploadFile:
    """`upload-file` at a running peer."""

    def __init__(self, name: str = OURS, *, native: bool = True) -> None:
        self.name = name
        self._native = native

    def skip_reason(self, workload: Workload) -> str | None:
        return not_installed()

    def run(self, env: RunEnvironment) -> Outcome:
        swarm = BenchmarkSwarm(env, share=False, native=self._native)
        prompt = swarm.prompt(swarm.seeders[0])
        known = _digest(env)
        clock = env.start_clock()
        prompt.write_line(swarm.upload_line())
        answer = prompt.read_json()
        span = clock.stop()
        _check(self.name, known, str(answer["digest"]))
        return Outcome(span.wall_s, span, (), {"elapsed_s": float(answer["elapsed_s"])})


class B3sum:
    """BLAKE3's own program."""

    name = "b3sum"

    def skip_reason(self, workload: Workload) -> str | None:
        return missing_program("b3sum")

    def run(self, env: RunEnvironment) -> Outcome:
        known = _digest(env)
        clock = env.start_clock()
        program = env.processes.start("b3sum", ["b3sum", env.source])
        output = program.read_all()
        program.check_exit()
        span = clock.stop()
        _check(self.name, known, output.split()[0])
        return Outcome(span.wall_s, span, ())


def _digest(env: RunEnvironment) -> str:
    return blake3(max_threads=blake3.AUTO).update_mmap(env.source).hexdigest()


def _check(name: str, known: str, printed: str) -> None:
    if known != printed:
        raise BenchmarkError(f"{name} printed {printed}, which is not the content's digest")
