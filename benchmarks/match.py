"""Match of all contestants on one workload: content once, then round by round, A B A B.

Owns: order, new folders for each run, and the comparison of outputs. Not here: the timed span (see
benchmarks.contestants).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from benchmarks.contestants.base import Contestant
from benchmarks.environment import (
    RunEnvironment,
    loopback_nodes,
    temporary_storage,
    write_ballast,
)
from benchmarks.network import Nodes, network, network_unavailable
from benchmarks.processes import BenchmarkError, ProcessGroup, wait_until_quiet
from benchmarks.report import Result
from benchmarks.updates import make_update
from benchmarks.workloads import Workload, make_content, same_content

Skipped = tuple[str, str, str]
"""Workload, contestant, reason."""

_SEED = 20261122


class Match:
    """One workload, its contestants, and the skipped ones with their reasons."""

    def __init__(self, workload: Workload, contestants: Sequence[Contestant]) -> None:
        self.workload = workload
        self.skipped: list[Skipped] = []
        self._runnable: list[Contestant] = []
        needs_network = workload.shaped or workload.update
        unavailable = network_unavailable() if needs_network else None
        for contestant in contestants:
            reason = unavailable or contestant.skip_reason(workload)
            if reason:
                self._skip(contestant, reason)
            else:
                self._runnable.append(contestant)

    def run(
        self, rounds: int, report: Callable[[Result], None], *, settle_s: float = 0, nice: int = 0
    ) -> None:
        """Run `rounds` rounds. Before each run, wait up to `settle_s` seconds for a quiet machine.

        `nice` is added to the niceness of all processes. A contestant that fails is reported and
        left out from then on.
        """
        if not self._runnable:
            return
        # Ballast and outputs never exist at the same time.
        with temporary_storage(self.workload.size + self.workload.bytes_needed()) as folder:
            rng = Random(_SEED)
            source = make_content(self.workload, folder, rng)
            earlier = None
            if self.workload.update:
                earlier, changed = source, folder / "changed"
                changed.mkdir()
                source = make_update(self.workload, earlier, changed, rng)
            for number in range(1, rounds + 1):
                for contestant in tuple(self._runnable):
                    try:
                        wait_until_quiet(settle_s)
                        report(self._once(contestant, source, earlier, number, nice))
                    except BenchmarkError as error:
                        self._runnable.remove(contestant)
                        self._skip(contestant, f"failed in round {number}: {error}")

    def _once(
        self, contestant: Contestant, source: Path, earlier: Path | None, number: int, nice: int
    ) -> Result:
        workload = self.workload
        with temporary_storage(workload.bytes_needed()) as root:
            ballast, logs, work = root / "ballast", root / "logs", root / "w"
            logs.mkdir()
            work.mkdir()
            with (
                self._nodes() as (tracker, seeders, leechers),
                ProcessGroup(logs, nice) as processes,
            ):
                write_ballast(ballast, workload.ballast_bytes())
                outcome = contestant.run(
                    RunEnvironment(
                        *(workload, source, work, processes, tracker, seeders, leechers, ballast),
                        earlier,
                    )
                )
            same = all(same_content(source, output) for output in outcome.outputs)
        if not same:
            raise BenchmarkError("its output differs from the source")
        return Result(
            workload=workload.key,
            contestant=contestant.name,
            round=number,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            size=workload.size,
            handled_bytes=workload.handled_bytes,
            wall_s=round(outcome.wall_s, 4),
            cpu_s=round(outcome.span.cpu_s, 4),
            others_s=round(outcome.span.others_s, 4),
            same=same,
            notes={name: round(value, 4) for name, value in outcome.notes.items()},
        )

    @contextmanager
    def _nodes(self) -> Iterator[Nodes]:
        loopback = nullcontext(loopback_nodes(self.workload))
        separate = self.workload.shaped or self.workload.update
        with network(self.workload) if separate else loopback as nodes:
            yield nodes

    def _skip(self, contestant: Contestant, reason: str) -> None:
        self.skipped.append((self.workload.key, contestant.name, reason))
