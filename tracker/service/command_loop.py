"""The desk: commands come in one queue, are decided in order, committed in batches, then answered.

Owns the queue and the order of things: nothing is answered or published before it is durable. While
a batch is on its way to the disk the next one waits, and so do questions, so nobody sees what may
yet be lost. Users take turns, and a batch ends when it has taken long or has much to do: who asks
what is costly waits longer, and not everybody else. When a commit fails, the mirror is taken from
the database again, what would have written is refused, and questions go on being answered. Until
the failures are over commands are written one by one, each before the mirror has it, so that no
further failure costs a reload. What is decided is ``tracker.core.commands``' business, what is told
``tracker.service.publisher``'s; sockets are ``tracker.service.sockets``'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import assert_never

from common import limits
from common.errors import MiniTorrentError, StorageError
from common.host.clock import monotonic, wall_ms
from common.ids import DeviceKey
from common.messages import tracker
from common.messages.refusals import Code, Refusal
from tracker.core import commands
from tracker.core.changes import Change
from tracker.core.context import Caller, Context, Decision, Deferred, Now, ReleaseLease, RenewLease
from tracker.core.fair_queue import FairQueue
from tracker.core.outbox import Outgoing
from tracker.core.presence import SWEEP_S
from tracker.service.deferred import DeferredWork, Finished, ResumeWith
from tracker.service.publisher import Publisher
from tracker.store.statements import LogConflict
from tracker.store.store import Store

log = logging.getLogger(__name__)

BATCH_S = 0.02  # for deciding a batch; then the sockets have their turn
BATCH_WEIGHT = 5_000  # changes and places in swarms that a batch is about: tens of milliseconds
CAREFUL_S = 1.0  # after a failure another one may cost no reload: nobody is answered during it
Answer = Callable[[tracker.Reply, bytes | None], None]


@dataclass(slots=True)
class Job:
    """A command on its way through; ``answer`` is called once, with the reply and its data."""

    caller: Caller
    command: tracker.Command | commands.InternalCommand
    answer: Answer
    data: bytes | None = field(default=None, repr=False)


INTERNAL = Refusal(
    Code.INTERNAL,
    "the tracker failed at this command",
    "its log says why; other commands are not affected",
)


OVERTAKEN = Refusal(
    Code.BUSY, "others changed the same things at the same time", "try again in a moment"
)


def read_only(error: StorageError) -> Refusal:
    """What is answered to commands that cannot be written down."""
    return Refusal(
        Code.READ_ONLY,
        f"the tracker cannot save anything at the moment ({error.message})",
        "tell who runs it: most often its disk is full; it goes on by itself when there is room",
    )


class CommandLoop:
    """Decides, commits, answers and publishes, one batch after the other."""

    def __init__(
        self,
        context: Context,
        store: Store,
        errands: DeferredWork,
        publish: Callable[[Outgoing], None],
    ) -> None:
        self.context = context
        self.counts: Counter[str] = Counter()
        self._store = store
        self._errands = errands
        self._writer = ThreadPoolExecutor(1, "writer")
        self._queue: FairQueue[Job] = FairQueue()
        self._awake = asyncio.Event()
        self._publishing = Publisher(context, publish, self._awake.set)
        self._open: dict[tuple[DeviceKey, bytes], Job] = {}
        self._open_of: Counter[DeviceKey] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stale: StorageError | None = None  # why the mirror has to be loaded again
        self._failed_at: float | None = None  # when the disk did last, until that is over
        self._stopping = False

    # -- coming in ------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Put a command off the wire into the queue, or answer at once that it cannot be.

        A repetition of one that is still open is not done twice: its answer goes to the later one.
        """
        key = (job.caller.device, job.caller.request_id)
        known = self._open.get(key)
        if known is not None and known.command == job.command:
            known.answer = job.answer
            return
        device = job.caller.device
        if (
            len(self._open) >= limits.COMMAND_QUEUE_MAX
            or self._open_of[device] >= limits.COMMANDS_PER_DEVICE_MAX
            or known is not None
        ):
            if not self._open_of[device]:
                del self._open_of[device]
            self.counts["busy"] += 1
            job.answer(Refusal(Code.BUSY, "the tracker is busy", "try again in a moment"), None)
            return
        self._open[key] = job
        self._open_of[device] += 1
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        user = self.context.state.devices.get(job.caller.device)
        # Devices are made up for nothing: strangers count by where they are.
        self._queue.add((user, "" if user else job.caller.address), job)
        self._awake.set()

    def _reply(self, job: Job, reply: tracker.Reply, data: bytes | None = None) -> None:
        if isinstance(job.command, commands.InternalCommand):
            job.answer(reply, data)
        else:
            self._answer((job.caller.device, job.caller.request_id), reply, data)

    def _answer(
        self, key: tuple[DeviceKey, bytes], reply: tracker.Reply, data: bytes | None
    ) -> None:
        job = self._open.pop(key, None)
        if job is None:
            return
        self._open_of[key[0]] -= 1
        if not self._open_of[key[0]]:
            del self._open_of[key[0]]
        if isinstance(reply, Refusal):
            self.counts[f"refused {reply.code}"] += 1
        job.answer(reply, data)

    # -- batches --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop`. Commands that wait then are not answered: they will be repeated."""
        left: deque[Job] = deque()
        while not self._stopping:
            await self._awake.wait()
            self._awake.clear()
            while (left or self._queue or self._publishing.waits) and not self._stopping:
                with self._publishing.held():
                    await self._settle(left)
                self._publishing.go_on(monotonic())
                await asyncio.sleep(0)  # let the sockets have their turn

    def stop(self) -> None:
        """Let `run` return after the batch that it is at."""
        self._stopping = True
        self._awake.set()

    def close(self) -> None:
        """Give up what is left. To be called when `run` has returned."""
        for task in self._tasks:
            task.cancel()
        self._publishing.close()
        self._errands.close()
        self._writer.shutdown(wait=True)

    def _batch(self, jobs: deque[Job]) -> Iterator[Job]:
        """Those in ``jobs``, then whose turn it is, who become part of ``jobs``, for as long as a
        batch may take: the caller removes who is done."""
        yield from tuple(jobs)
        ends_at = monotonic() + BATCH_S
        for _ in range(min(len(self._queue), limits.COMMANDS_PER_BATCH_MAX)):
            jobs.append(self._queue.take())
            yield jobs[-1]
            if monotonic() >= ends_at:
                return

    async def _settle(self, jobs: deque[Job], attempts: int = 3) -> None:
        """Take a batch from the queue and see it through. ``jobs`` were taken before; in it stays
        who is behind the end of a batch that was decided again and had more to do by then."""
        batch = self._batch(jobs)
        if self._stale is not None and not await self._load():
            for job in batch:
                self._reply(job, read_only(self._stale))
            jobs.clear()
            return
        now = Now(wall_ms(), monotonic())
        try:
            await self._write_first(jobs, batch, now)
            await self._write_together(jobs, batch, now)
            return
        except LogConflict as error:
            self._stale = error
            if attempts > 1:
                await self._settle(jobs, attempts - 1)
                return
            refusal = OVERTAKEN
        except StorageError as error:
            if self._failed_at is None:
                log.error("%s; commands that change nothing are answered", error.message)
                self._stale = error
            self._failed_at = monotonic()
            refusal = read_only(error)
        except Exception as error:
            log.exception("a batch of commands failed")
            self._stale = StorageError(f"a defect of the tracker: {type(error).__name__}")
            refusal = INTERNAL
        await self._answer_without_writing(jobs, now, refusal)

    async def _write_first(self, jobs: deque[Job], batch: Iterator[Job], now: Now) -> None:
        """While the disk fails: one after the other, as many as can be written. Who is done leaves
        ``jobs``, and the mirror has nothing of who is not."""
        while self._failed_at is not None and (job := next(batch, None)) is not None:
            decision = self._decide(job, now)
            if decision.changes:
                await self._commit(decision.changes)
                self._apply(decision.changes)
            self._carry_out([(jobs.popleft(), decision)], now)

    async def _write_together(self, jobs: deque[Job], batch: Iterator[Job], now: Now) -> None:
        """Each is decided on a mirror that has what those before it change, and then all of that is
        written at once: after a failure the mirror is ahead of the database. Before there is any
        change nobody has to wait for the disk."""
        decided: list[tuple[Job, Decision]] = []
        changes: list[Change] = []
        weight = 0
        for job in batch:
            decision = self._decide(job, now)
            if not changes and not decision.changes:
                self._carry_out([(jobs.popleft(), decision)], now)
                continue
            self._apply(decision.changes)
            changes += decision.changes
            decided.append((job, decision))
            weight += self._weight(decision)
            if weight >= BATCH_WEIGHT:
                break
        if changes:
            await self._commit(changes)
        for _ in decided:
            jobs.popleft()
        self._carry_out(decided, now)

    def _weight(self, decision: Decision) -> int:
        """How much there is to do once ``decision`` is durable, for which nobody took time yet."""
        weight, presence = len(decision.changes), self.context.presence
        for notice in decision.notices:
            match notice:
                case RenewLease(device, user, endpoint):
                    weight += presence.moved(self.context.state, device, user, endpoint)
                case ReleaseLease(device):
                    weight += presence.known(device)
                case _:
                    pass
        return weight

    def _apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.context.state.apply(change)

    def _decide(self, job: Job, now: Now) -> Decision:
        try:
            return commands.decide(self.context, job.caller, job.command, now)
        except Exception:
            # The command's type alone: its fields may hold a password.
            log.exception("failed to decide a %s", type(job.command).__name__)
            self.counts["internal"] += 1
            return Decision(INTERNAL)

    async def _commit(self, changes: Sequence[Change]) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._store.commit, changes)
        if self._failed_at is not None and monotonic() - self._failed_at >= CAREFUL_S:
            log.info("the database can be written again")
            self._failed_at = None

    async def _answer_without_writing(self, jobs: deque[Job], now: Now, refusal: Refusal) -> None:
        known = self._stale is None or await self._load()
        while jobs:
            job = jobs.popleft()
            decision = self._decide(job, now) if known else None
            if decision is None or decision.changes:
                self._reply(job, refusal)
            else:
                self._carry_out([(job, decision)], now)

    async def _load(self) -> bool:
        """Take the mirror from the database again."""
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(self._writer, self._store.load)
        except StorageError as error:
            if self._stale is None or self._stale.message != error.message:
                log.error("%s", error.message)
            self._stale = error
            return False
        loaded.budgets = self.context.state.budgets
        self.context.state = loaded
        self._stale = None
        return True

    def _carry_out(self, decided: list[tuple[Job, Decision]], now: Now) -> None:
        """What follows once all changes are durable. Notices are among it: who is online where
        follows from the mirror, which before that may hold what is lost again."""
        for job, decision in decided:
            try:
                self._publishing.tell(decision, now)
            except Exception:
                log.exception("failed to tell what a %s did", type(job.command).__name__)
            try:
                self._conclude(job, decision.reply, now)
            except Exception:
                log.exception("failed to answer a %s", type(job.command).__name__)
                self._reply(job, INTERNAL)

    # -- what follows from a decision -----------------------------------------------------------

    def _conclude(self, job: Job, reply: tracker.Reply | Deferred, now: Now) -> None:
        if not isinstance(reply, Deferred):
            self._reply(job, reply)
            return
        task = asyncio.get_running_loop().create_task(self._run_errand(job, reply, now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_errand(self, job: Job, work: Deferred, now: Now) -> None:
        try:
            outcome = await self._errands.run(job.caller, work, job.data, now)
        except MiniTorrentError as error:
            self._reply(job, Refusal(error.code, error.message, error.hint))
            return
        except Exception:
            log.exception("failed to finish a %s", type(job.command).__name__)
            self._reply(job, INTERNAL)
            return
        match outcome:
            case Finished(reply, data):
                self._reply(job, reply, data)
            case ResumeWith(command):
                key = (job.caller.device, job.caller.request_id)
                self._enqueue(
                    Job(job.caller, command, lambda reply, data: self._answer(key, reply, data))
                )
            case _:
                assert_never(outcome)

    # -- what comes with time -------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Leases, beacons and housekeeping, until cancelled."""
        beat_at = tidy_at = monotonic()
        while True:
            try:
                now = Now(wall_ms(), monotonic())
                self._publishing.gather(self.context.presence.sweep(now.mono_s), now.mono_s)
                if now.mono_s >= beat_at:
                    beat_at = now.mono_s + limits.BEACON_S
                    self._publishing.beat(now)
                if now.mono_s >= tidy_at:
                    tidy_at = now.mono_s + limits.HOUSEKEEPING_S
                    self._errands.tidy(now.mono_s)
                    nobody = Caller(DeviceKey(b""))
                    self._enqueue(Job(nobody, commands.Housekeep(), lambda *_: None))
            except Exception:
                log.exception("what comes with time failed")
            await asyncio.sleep(SWEEP_S)
