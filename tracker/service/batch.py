"""Batch of commands: collected from the queue, decided, committed and delivered together.

Owns: the bounds of a batch and the progress of its commands. Not here: the steps and their order
(see tracker.service.command_loop).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from common import limits
from common.host.clock import monotonic
from common.messages import tracker
from tracker.core import commands
from tracker.core.changes import Change
from tracker.core.context import Caller, Decision, Reply
from tracker.core.fair_queue import FairQueue

BATCH_S = 0.02  # for deciding a batch; then the sockets are served
BATCH_WEIGHT = 5_000  # durable changes and changes of swarms in a batch: tens of milliseconds
Answer: TypeAlias = Callable[[Reply, bytes | None], None]


@dataclass(slots=True)
class Job:
    """A command in progress; ``answer`` is called once, with the reply and its data."""

    caller: Caller
    command: tracker.Command | commands.InternalCommand
    answer: Answer
    data: bytes | None = field(default=None, repr=False)
    began: float = field(default_factory=monotonic)


@dataclass(slots=True)
class Batch:
    """Commands that are committed together.

    ``jobs``: those without a reply yet, in order; ``decisions``: of the first of them; ``changes``
    and ``weight``: of these decisions together. If a batch is decided again and is full earlier
    than before, the remaining jobs are the first of the next one.
    """

    jobs: deque[Job] = field(default_factory=deque)
    decisions: list[Decision] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    weight: int = 0
    _collect_max: int | None = None  # jobs still to be collected; None before the first of them
    _collect_until: float = 0.0

    def begin(self) -> None:
        """Discard all decisions, to decide the jobs again and to collect more of them."""
        self._forget_decisions()
        self._collect_max = None

    def collect(self, queue: FairQueue[Job], now: float) -> Job | None:
        """Return the next job to decide, from ``queue`` if none is left; None at a bound.

        Limits: ``BATCH_S`` and ``limits.COMMANDS_PER_BATCH_MAX``, from the first job of ``queue``.
        """
        if len(self.decisions) < len(self.jobs):
            return self.jobs[len(self.decisions)]
        if self._collect_max is None:
            self._collect_max = min(len(queue), limits.COMMANDS_PER_BATCH_MAX)
            self._collect_until = now + BATCH_S
        elif now >= self._collect_until:
            return None
        if not self._collect_max:
            return None
        self._collect_max -= 1
        self.jobs.append(queue.take())
        return self.jobs[-1]

    def add(self, decision: Decision, weight: int) -> None:
        """Add the decision of the first undecided job."""
        self.decisions.append(decision)
        self.changes += decision.changes
        self.weight += weight

    def full(self) -> bool:
        """Whether enough is decided for one commit."""
        return self.weight >= BATCH_WEIGHT

    def take_decided(self) -> list[tuple[Job, Decision]]:
        """Remove and return the decided jobs."""
        decided = [(self.jobs.popleft(), decision) for decision in self.decisions]
        self._forget_decisions()
        return decided

    def _forget_decisions(self) -> None:
        self.decisions, self.changes, self.weight = [], [], 0
