"""Batch of commands: collected from the queue, decided, committed and delivered together.

Owns: the bounds of a batch and the progress of its commands. Not here: the steps and their order
(see tracker.service.command_loop).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from common import limits
from common.host.clock import monotonic
from common.ids import DeviceKey
from common.messages import tracker
from common.messages.base import Refusal
from tracker.core import commands
from tracker.core.changes.base import Change
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    Nudge,
    ReleaseLease,
    RenewLease,
    Reply,
)
from tracker.core.fair_queue import FairQueue

BATCH_S = 0.02  # for collecting a batch, and for deciding it; then the sockets are served
BATCH_WEIGHT = 5_000  # durable changes and changes of swarms in a batch: tens of milliseconds
Answer: TypeAlias = Callable[[Reply, bytes | None], None]


@dataclass(slots=True)
class Job:
    """A command in progress; ``answer`` is called once, with the reply and its data.

    ``writes``: it may change something, so it is decided with the turn at writing.
    """

    caller: Caller
    command: tracker.Command | commands.InternalCommand
    answer: Answer
    data: bytes | None = field(default=None, repr=False)
    began: float = field(default_factory=monotonic)
    writes: bool = False


@dataclass(slots=True)
class Batch:
    """Commands that are committed together.

    ``jobs``: those that wait for the turn, in order; ``decisions``: of the first of them;
    ``changes``, ``nudged`` and ``weight``: of these decisions together. If a batch is full before
    all are decided, the remaining jobs are the first of the next one.
    """

    jobs: deque[Job] = field(default_factory=deque)
    decisions: list[Decision] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    nudged: list[DeviceKey] = field(default_factory=list)
    weight: int = 0
    _collect_max: int | None = None  # jobs still to be collected; None before the first of them
    _collect_until: float = 0.0

    def begin(self) -> None:
        """Discard all decisions, to decide the jobs again and to collect more of them."""
        self._forget_decisions()
        self._collect_max = None

    def collect(self, queue: FairQueue[Job], now: float) -> Job | None:
        """Return the next job of ``queue``, which is the last of ``jobs`` now; None at a bound.

        Limits: ``BATCH_S`` and ``limits.COMMANDS_PER_BATCH_MAX``, from the first job of ``queue``;
        that many jobs may wait.
        """
        if len(self.jobs) >= limits.COMMANDS_PER_BATCH_MAX:
            return None
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

    def undecided(self) -> Job | None:
        """Return the first job without a decision; None if there is none or the batch is full."""
        if len(self.decisions) == len(self.jobs) or self.weight >= BATCH_WEIGHT:
            return None
        return self.jobs[len(self.decisions)]

    def add(self, decision: Decision, weight: int) -> None:
        """Add the decision of the first undecided job."""
        self.decisions.append(decision)
        self.changes += decision.changes
        self.nudged += (effect.device for effect in decision.effects if isinstance(effect, Nudge))
        self.weight += weight

    def take_decided(self) -> list[tuple[Job, Decision]]:
        """Remove and return the decided jobs."""
        decided = [(self.jobs.popleft(), decision) for decision in self.decisions]
        self._forget_decisions()
        return decided

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Put ``jobs`` first, to be decided again."""
        self.jobs.extendleft(reversed(list(jobs)))

    def _forget_decisions(self) -> None:
        self.decisions, self.changes, self.nudged, self.weight = [], [], [], 0


def weight_of(context: Context, decision: Decision) -> int:
    """Return the work of delivering ``decision``, in changes; it is not part of ``BATCH_S``."""
    weight, presence = len(decision.changes), context.presence
    for effect in decision.effects:
        match effect:
            case RenewLease(device, user, endpoint):
                weight += presence.expected_changes(context.state, device, user, endpoint)
            case ReleaseLease(device):
                weight += presence.swarm_count(device)
            case _:
                pass
    return weight


def is_refused(decision: Decision) -> bool:
    """Whether ``decision`` refuses its command."""
    return isinstance(decision.reply, Refusal)


def needs_head(job: Job, decision: Decision) -> bool:
    """Whether a question must be decided at the head of all commits, if others write too.

    A refusal, since another tracker may have changed its reason a moment ago. `Hello`, so that a
    device that comes from another tracker finds all that it saw there.
    """
    return is_refused(decision) or isinstance(job.command, tracker.Hello)
