"""Serial command loop with group commit: collect, decide, commit, deliver.

Owns: the queue of commands, the order of the four steps, the mirror's reload after a failure. Not
here: decisions (see tracker.core.commands), publishing (see tracker.service.publisher), sockets
(see tracker.service.sockets).

Theory of operation.

States of a command, and what moves it on:

    queued      `submit` put it into the fair queue. A repetition under the same request id is not
                done twice: it only replaces the callback that gets the reply.
    decided     The loop took it into a batch. Its changes are in the mirror, not on the disk.
    committed   One transaction wrote the changes of the whole batch.
    delivered   Its effects are published and its reply is sent.
    deferred    Instead of a reply the decision names a step that takes a thread, a key or the disk.
                A task does it. It ends in a reply, or in an internal command that is queued.

Invariant: decide → commit → reply/publish. No reply and no event leaves before the changes that it
follows from are durable. A batch holds back all after its first change, queries too, so no client
observes state that a failed commit rolls back. Queries before the first change do not wait.

Order: users take turns; strangers count by address. A batch ends at ``BATCH_S``, at
``limits.COMMANDS_PER_BATCH_MAX`` commands or at ``BATCH_WEIGHT``, so a costly command delays its
own user more than others.

Failures: the mirror is ahead of the database when a commit fails.

    another writer continued a log   Reload the mirror and decide the batch again. After
                                     ``ATTEMPTS`` refuse what changes something.
    the disk fails                   Reload the mirror, refuse what changes something, answer
                                     queries. Until a commit succeeds ``CAREFUL_S`` after the last
                                     failure, a batch is one command, and its changes come into the
                                     mirror after the commit: further failures cost no reload.
    a defect                         As above, with another text; the log has the traceback.

Never: two batches at once; a change written after its command was refused; two replies to one
command; queued commands of one user decided out of their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import assert_never

from common import limits
from common.errors import MiniTorrentError, StorageError
from common.host.clock import monotonic, wall_ms
from common.ids import DeviceKey
from common.messages.base import Refusal
from common.messages.refusals import Code
from tracker.core import commands
from tracker.core.changes import Change
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    Deferred,
    Now,
    ReleaseLease,
    RenewLease,
    Reply,
)
from tracker.core.fair_queue import FairQueue
from tracker.core.outbox import Outgoing
from tracker.core.presence import SWEEP_S
from tracker.service.batch import Batch, Job
from tracker.service.deferred import DeferredWork, Finished, ResumeWith
from tracker.service.meter import CommandMeter
from tracker.service.publisher import Publisher
from tracker.store.turns import LogConflict, Store

log = logging.getLogger(__name__)

CAREFUL_S = 1.0  # after a failure another one may cost no reload: no command is answered during it
ATTEMPTS = 3  # to decide a batch that another writer overtook

INTERNAL = Refusal(
    Code.INTERNAL,
    "the tracker failed at this command",
    "its log says why; other commands are not affected",
)
OVERTAKEN = Refusal(
    Code.BUSY, "others changed the same things at the same time", "try again in a moment"
)


def read_only(error: StorageError) -> Refusal:
    """Return the refusal of commands that cannot be written."""
    return Refusal(
        Code.READ_ONLY,
        f"the tracker cannot save anything at the moment ({error.message})",
        "tell its operator: usually its disk is full; it resumes by itself when there is space",
    )


class CommandLoop:
    """Decides, commits, replies and publishes, one batch after the other.

    Thread safety: none; commits and loads run in a thread of its own.
    """

    def __init__(
        self,
        context: Context,
        store: Store,
        deferred_work: DeferredWork,
        publish: Callable[[Outgoing], None],
    ) -> None:
        self.context = context
        self.counts: Counter[str] = Counter()
        self.meter = CommandMeter()
        self._store = store
        self._deferred_work = deferred_work
        self._writer = ThreadPoolExecutor(1, "writer")
        self._queue: FairQueue[Job] = FairQueue()
        self._awake = asyncio.Event()
        self._publisher = Publisher(context, publish, self._awake.set)
        self._open: dict[tuple[DeviceKey, bytes], Job] = {}
        self._open_of: Counter[DeviceKey] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reload_reason: StorageError | None = None  # None: the mirror is current
        self._failed_at: float | None = None  # last failure of the disk, until it is over
        self._stopping = False

    def load(self) -> tuple[int, bool]:
        """Return the number of commands that wait, and whether the database takes changes."""
        return len(self._queue), self._failed_at is None and self._reload_reason is None

    # -- submission ----------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a command off the wire, or refuse it at once when there are too many.

        A repetition of an open command is not done twice: the later one gets the reply.
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
        self.enqueue(job)

    def enqueue(self, job: Job) -> None:
        """Queue a command of the tracker itself, or of its operator."""
        user = self.context.state.devices.get(job.caller.device)
        # Why: a device key costs nothing, so devices without a user share their address's turn.
        self._queue.add((user, "" if user else job.caller.address), job)
        self._awake.set()

    def _reply(self, job: Job, reply: Reply, data: bytes | None = None) -> None:
        if isinstance(job.command, commands.InternalCommand):
            job.answer(reply, data)
        else:
            self._answer((job.caller.device, job.caller.request_id), reply, data)

    def _answer(self, key: tuple[DeviceKey, bytes], reply: Reply, data: bytes | None) -> None:
        job = self._open.pop(key, None)
        if job is None:
            return
        self._open_of[key[0]] -= 1
        if not self._open_of[key[0]]:
            del self._open_of[key[0]]
        if isinstance(reply, Refusal):
            self.counts[f"refused {reply.code}"] += 1
        self.meter.answered(job.command, reply, monotonic() - job.began)
        job.answer(reply, data)

    # -- batches --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop`. Commands that wait then get no reply: clients repeat them."""
        batch = Batch()
        while not self._stopping:
            await self._awake.wait()
            self._awake.clear()
            while (batch.jobs or self._queue or self._publisher.waits) and not self._stopping:
                with self._publisher.paused():
                    await self._run_batch(batch)
                self._publisher.next_slice(monotonic())
                await asyncio.sleep(0)  # serve the sockets

    def stop(self) -> None:
        """Let `run` return after the current batch."""
        self._stopping = True
        self._awake.set()

    def close(self) -> None:
        """Cancel deferred work. Call it after `run` has returned."""
        for task in self._tasks:
            task.cancel()
        self._publisher.close()
        self._deferred_work.close()
        self._writer.shutdown(wait=True)

    async def _run_batch(self, batch: Batch) -> None:
        """Take one batch from the queue to delivery; retry it when another writer was faster."""
        refusal = OVERTAKEN
        for _ in range(ATTEMPTS):
            batch.begin()
            if self._reload_reason is not None and not await self._load():
                while batch.collect(self._queue, monotonic()) is not None:
                    self._reply(batch.jobs.popleft(), read_only(self._reload_reason))
                return
            now = Now(wall_ms(), monotonic())
            try:
                await self._settle(batch, now)
                return
            except LogConflict as error:
                self._reload_reason = error
                continue
            except StorageError as error:
                if self._failed_at is None:
                    log.error("%s; commands that change nothing are answered", error.message)
                    self._reload_reason = error
                self._failed_at = monotonic()
                refusal = read_only(error)
            except Exception as error:
                log.exception("a batch of commands failed")
                self._reload_reason = StorageError(
                    f"a defect of the tracker: {type(error).__name__}"
                )
                refusal = INTERNAL
            break
        await self._refuse_changes(batch, now, refusal)

    async def _settle(self, batch: Batch, now: Now) -> None:
        """Decide, commit and deliver. After a failure: one command, and the disk before the mirror.

        Raises `StorageError`; ``batch.jobs`` has no reply then.
        """
        careful = self._failed_at is not None
        self._decide_batch(batch, now, careful=careful)
        if batch.changes:
            await self._commit(batch.changes)
            if careful:
                self._apply(batch.changes)
        self._deliver(batch, now)

    def _decide_batch(self, batch: Batch, now: Now, *, careful: bool) -> None:
        """Decide jobs until the batch is full, each on a mirror that has the changes before it."""
        while not batch.full() and (job := batch.collect(self._queue, monotonic())) is not None:
            decision = self._decide(job, now)
            if not careful:
                self._apply(decision.changes)
            batch.add(decision, self._weight(decision))
            if not batch.changes:  # nothing of this batch can be lost yet
                self._deliver(batch, now)
            if careful:
                return

    def _weight(self, decision: Decision) -> int:
        """Work that delivering ``decision`` takes, in changes; it is not part of ``BATCH_S``."""
        weight, presence = len(decision.changes), self.context.presence
        for effect in decision.effects:
            match effect:
                case RenewLease(device, user, endpoint):
                    weight += presence.expected_changes(self.context.state, device, user, endpoint)
                case ReleaseLease(device):
                    weight += presence.swarm_count(device)
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
        loop, began = asyncio.get_running_loop(), monotonic()
        await loop.run_in_executor(self._writer, self._store.turn(0).commit, changes, ())
        self.meter.committed(len(changes), monotonic() - began)
        if self._failed_at is not None and monotonic() - self._failed_at >= CAREFUL_S:
            log.info("the database can be written again")
            self._failed_at = None

    async def _refuse_changes(self, batch: Batch, now: Now, refusal: Refusal) -> None:
        """Answer the queries of a batch that failed; refuse the rest."""
        batch.begin()
        known = self._reload_reason is None or await self._load()
        while batch.jobs:
            decision = self._decide(batch.jobs[0], now) if known else None
            if decision is None or decision.changes:
                self._reply(batch.jobs.popleft(), refusal)
            else:
                batch.add(decision, 0)
                self._deliver(batch, now)

    async def _load(self) -> bool:
        """Load the mirror from the database. Return whether that succeeded."""
        loop = asyncio.get_running_loop()
        try:
            loaded = await loop.run_in_executor(self._writer, self._store.load)
        except StorageError as error:
            if self._reload_reason is None or self._reload_reason.message != error.message:
                log.error("%s", error.message)
            self._reload_reason = error
            return False
        loaded.budgets = self.context.state.budgets
        self.context.state = loaded
        self._reload_reason = None
        return True

    def _deliver(self, batch: Batch, now: Now) -> None:
        """Publish and reply, now that all changes are durable.

        Why effects wait too: presence follows from the mirror, which may hold changes that a failed
        commit rolls back.
        """
        for job, decision in batch.take_decided():
            try:
                self._publisher.publish(decision, now)
            except Exception:
                log.exception("failed to publish what a %s did", type(job.command).__name__)
            try:
                if decision.reply is not None:
                    self._reply(job, decision.reply)
                elif decision.deferred is not None:
                    self._start(job, decision.deferred, now)
            except Exception:
                log.exception("failed to answer a %s", type(job.command).__name__)
                self._reply(job, INTERNAL)

    # -- deferred work --------------------------------------------------------------------------

    def _start(self, job: Job, step: Deferred, now: Now) -> None:
        task = asyncio.get_running_loop().create_task(self._run_deferred(job, step, now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_deferred(self, job: Job, step: Deferred, now: Now) -> None:
        try:
            outcome = await self._deferred_work.run(job.caller, step, job.data, now)
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
                self.enqueue(
                    Job(job.caller, command, lambda reply, data: self._answer(key, reply, data))
                )
            case _:
                assert_never(outcome)

    # -- timers ----------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Expire leases, send beacons and queue housekeeping, until cancelled."""
        beat_at = tidy_at = monotonic()
        while True:
            try:
                now = Now(wall_ms(), monotonic())
                self._publisher.gather(self.context.presence.sweep(now.mono_s), now.mono_s)
                if now.mono_s >= beat_at:
                    beat_at = now.mono_s + limits.BEACON_S
                    self._publisher.beat(now)
                if now.mono_s >= tidy_at:
                    tidy_at = now.mono_s + limits.HOUSEKEEPING_S
                    self._deferred_work.tidy(now.mono_s)
                    tracker_itself = Caller(DeviceKey(b""))
                    self.enqueue(Job(tracker_itself, commands.Housekeep(), lambda *_: None))
            except Exception:
                log.exception("a timer of the tracker failed")
            await asyncio.sleep(SWEEP_S)
