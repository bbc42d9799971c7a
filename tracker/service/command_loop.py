"""Serial command loop with group commit: collect, decide, commit, deliver.

Owns: the queue of commands, the order of the steps, the mirror's agreement with the database. Not
here: decisions (see tracker.core.commands), the wait for the database (see tracker.service.writer),
publishing (see tracker.service.publisher), sockets (see tracker.service.sockets).

Theory of operation.

States of a command, and what moves it on:

    queued      `submit` put it into the fair queue. A repetition under the same request id is not
                done twice: it only replaces the callback that gets the reply.
    answered    It is a question: it was decided on the mirror between two batches, and replied to.
    held        It writes, or follows a command of its user that writes. It waits for the turn.
    decided     The tracker has the turn, and the mirror is at the head of all commits. The changes
                of the command are in the mirror, not on the disk.
    committed   One transaction wrote the changes of the whole batch.
    delivered   Its effects are published and its reply is sent.
    deferred    Instead of a reply the decision names a step that takes a thread, a key or the disk.
                A task does it. It ends in a reply, or in an internal command that is queued.

Invariant: decide → commit → reply/publish. No reply and no event leaves before the changes that it
follows from are durable. Questions are decided only while the mirror has no other changes, so no
client observes state that a failed commit takes back. They take no turn and wait for no disk.

Order: users take turns; strangers count by address. Commands of one user are decided in their
order. A batch ends at ``BATCH_S``, at ``limits.COMMANDS_PER_BATCH_MAX`` commands or at
``BATCH_WEIGHT``, so a costly command delays its own user more than others.

Several trackers: a question that is refused, and `Hello`, is decided once more after the news of
the others. `hear` takes their commits; they are applied between batches, in order, each once.

Failures: the batch is taken back from the mirror (`State.take_back`), so questions always see
durable state.

    the disk or the database fails   Refuse what changes something, answer questions.
    the commit is pending            Its commands are held until its outcome is known. If it took
                                     place, apply its changes and deliver it. If not, decide its
                                     commands again.
    another writer continued a log   As above, and the mirror is loaded anew.
    a defect                         As above, with another text; the log has the traceback.

Never: two batches at once; a change written after its command was refused; two replies to one
command; queued commands of one user decided out of their order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from common import limits
from common.errors import StorageError
from common.host.clock import monotonic, wall_ms
from common.ids import UserId
from common.messages.base import Refusal
from tracker.core import commands
from tracker.core.changes.base import Change
from tracker.core.context import Context, Decision, Now
from tracker.core.fair_queue import FairQueue
from tracker.core.outbox import Outgoing
from tracker.core.presence import SwarmChange
from tracker.service.batch import BATCH_S, Batch, Job, is_refused, needs_head, weight_of
from tracker.service.deferred import DeferredWork
from tracker.service.deferred_tasks import DeferredTasks
from tracker.service.meter import CommandMeter
from tracker.service.mirror import Mirror
from tracker.service.open_commands import INTERNAL, OpenCommands, read_only
from tracker.service.publisher import Publisher
from tracker.service.timers import keep_time
from tracker.service.writer import Pending, Writer
from tracker.store.turns import Commit, FellBehind, LogConflict, Store, Turn

log = logging.getLogger(__name__)


class CommandLoop:
    """Decides, commits, replies and publishes, one batch after the other.

    Thread safety: none; turns, commits and loads run in a thread of their own.
    """

    def __init__(
        self,
        context: Context,
        store: Store,
        deferred_work: DeferredWork,
        publish: Callable[[Outgoing], None],
    ) -> None:
        self.context = context
        self._store = store
        self._queue: FairQueue[Job] = FairQueue()
        self._awake = asyncio.Event()
        self._open = OpenCommands()
        self._publisher = Publisher(context, publish, self._awake.set)
        self._writer = Writer(store, self._awake.set)
        self._mirror = Mirror(context, self._writer, self._publisher, self._now)
        self._deferred = DeferredTasks(deferred_work, self._open, self.enqueue)
        self._undelivered: list[tuple[Job, Decision]] = []  # of the pending commit
        self._stopping = False
        self.clock: Callable[[], int] = wall_ms
        """The wall clock of all decisions: that of the database, if it has several trackers."""
        self.committed: Callable[[], object] = lambda: None
        """Called after each commit of this tracker."""

    @property
    def counts(self) -> Counter[str]:
        """Commands that were refused or not understood, by reason."""
        return self._open.counts

    @property
    def meter(self) -> CommandMeter:
        return self._open.meter

    def load(self) -> tuple[int, bool]:
        """Return the number of commands that wait, and whether the database takes changes."""
        return len(self._queue), self._writer.failing is None and self._mirror.stale is None

    # -- submission ----------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Queue a command off the wire, or refuse it at once when there are too many."""
        if self._open.admit(job):
            self.enqueue(job)

    def enqueue(self, job: Job) -> None:
        """Queue a command of the tracker itself, or of its operator."""
        self._queue.add(self._whose(job), job)
        self._awake.set()

    def receive(self, commits: Iterable[Commit]) -> None:
        """Take commits of other trackers, in order; those known already are dropped later."""
        self._mirror.receive(commits)
        self._awake.set()

    def fell_behind(self, reason: StorageError) -> None:
        """Load the mirror anew: commits of others are missing."""
        self._mirror.stale = self._mirror.stale or reason
        self._awake.set()

    def between_batches(self, step: Callable[[], list[SwarmChange]]) -> None:
        """Call ``step`` while no batch is open, and publish the changes of swarms that it returns.

        The commits that were received before are applied then.
        """
        self._mirror.between(step)
        self._awake.set()

    def _whose(self, job: Job) -> tuple[UserId | None, str]:
        user = self.context.state.devices.get(job.caller.device)
        # Why: a device key costs nothing, so devices without a user share their address's turn.
        return (user, "" if user else job.caller.address)

    # -- batches --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `stop`. Commands that wait then get no reply: clients repeat them."""
        batch = Batch()
        while not self._stopping:
            await self._awake.wait()
            self._awake.clear()
            while self._has_work(batch) and not self._stopping:
                await self._run_batch(batch)
                self._publisher.next_slice(monotonic())
                await asyncio.sleep(0)  # serve the sockets

    def _has_work(self, batch: Batch) -> bool:
        if self._publisher.waits or self._mirror.behind or self._writer.outcome is not None:
            return True
        if self._mirror.holds or (self._writer.pending and self._writer.refuses is None):
            return bool(self._queue) and len(batch.jobs) < limits.COMMANDS_PER_BATCH_MAX
        return bool(batch.jobs or self._queue)

    def stop(self) -> None:
        """Make `run` return after the current batch."""
        self._stopping = True
        self._awake.set()

    def close(self) -> None:
        """Cancel deferred work. Call it after `run` has returned."""
        self._deferred.close()
        self._publisher.close()
        self._writer.close()

    async def _run_batch(self, batch: Batch) -> None:
        """Answer questions, and take what writes from the queue to delivery."""
        batch.begin()
        self._end_pending(batch)
        self._mirror.apply_received()
        self._mirror.load_if_stale()
        self._answer_questions(batch)
        if not batch.jobs:
            return
        refused = self._mirror.refuses or self._writer.refuses
        if refused is not None:
            self._refuse(batch, len(batch.jobs), read_only(refused))
        elif self._mirror.holds:
            return
        elif self._store.shared and not any(job.writes for job in batch.jobs):
            await self._decide_again(batch)
        elif not self._writer.pending:
            await self._write(batch)

    def _answer_questions(self, batch: Batch) -> None:
        """Collect commands: answer those that change nothing, hold the others for the turn."""
        now = self._now()
        held = {self._whose(job) for job in batch.jobs}
        held |= {self._whose(job) for job, _ in self._undelivered}
        can_ask = not self._writer.pending and self._writer.refuses is None
        may_be_behind = self._store.shared and can_ask
        while (job := batch.collect(self._queue, monotonic())) is not None:
            whose = self._whose(job)
            job.writes = job.writes or isinstance(job.command, commands.WRITING)
            if not job.writes and whose not in held:
                decision = self._decide(job, now)
                job.writes = bool(decision.changes)
                if not job.writes and not (may_be_behind and needs_head(job, decision)):
                    batch.jobs.pop()
                    self._deliver([(job, decision)], now)
                    continue
            held.add(whose)

    async def _meanwhile(self, batch: Batch) -> None:
        """Serve the sockets, follow and answer questions while another tracker has the turn."""
        await self._awake.wait()
        self._awake.clear()
        batch.begin()
        self._mirror.catch_up()
        self._answer_questions(batch)
        self._publisher.next_slice(monotonic())

    async def _decide_again(self, batch: Batch) -> None:
        """Decide refused questions once more: another tracker may have committed meanwhile."""
        try:
            self._mirror.receive(await self._writer.news(self.context.state.position))
        except FellBehind as error:
            self._mirror.stale = error
            return
        except StorageError:
            pass  # answered from memory, as all questions
        self._mirror.apply_received()
        now = self._now()
        for job in list(batch.jobs):
            decision = self._decide(job, now)
            job.writes = bool(decision.changes)
            if not job.writes:
                batch.jobs.remove(job)
                self._deliver([(job, decision)], now)

    async def _write(self, batch: Batch) -> None:
        """Take the turn, decide what is held, commit and deliver."""
        try:
            turn = await self._writer.turn(
                self.context.state.position, lambda: self._meanwhile(batch)
            )
        except FellBehind as error:
            self._mirror.stale = error
            return
        except StorageError as error:
            self._refuse(batch, len(batch.jobs), read_only(error))
            return
        self._mirror.receive(turn.news)
        self._mirror.catch_up()
        if self._mirror.stale is not None:
            self._writer.release(turn)
            return
        batch.begin()
        now, state, refusal = self._now(), self.context.state, INTERNAL
        with self._publisher.paused():
            state.begin()
            try:
                self._decide_held(batch, now)
                if batch.changes or (self._store.shared and batch.nudged):
                    await self._commit(turn, batch)
                else:
                    self._writer.release(turn)
                state.keep()
                self._mirror.publish_applied()
                self._deliver(batch.take_decided(), now)
                return
            except Pending:
                self._undelivered = batch.take_decided()
            except LogConflict as error:
                log.error("%s; the mirror is loaded anew", error.message)
                self._mirror.stale = error
                refusal = read_only(error)
            except StorageError as error:
                refusal = read_only(error)
            except Exception:
                log.exception("a batch of commands failed")
                self._writer.release(turn)
            state.take_back()
        self._mirror.publish_applied()
        self._refuse(batch, len(batch.decisions), refusal)

    def _decide_held(self, batch: Batch, now: Now) -> None:
        """Decide jobs until the batch is full, each on a mirror that has the changes before it."""
        until = monotonic() + BATCH_S
        while (job := batch.undecided()) is not None:
            decision = self._decide(job, now)
            batch.add(decision, weight_of(self.context, decision))
            self._apply(decision.changes)
            if monotonic() >= until:
                return

    def _apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            change.apply(self.context.state)

    def _decide(self, job: Job, now: Now) -> Decision:
        try:
            return commands.decide(self.context, job.caller, job.command, now)
        except Exception:
            # The command's type alone: its fields may hold a password.
            log.exception("failed to decide a %s", type(job.command).__name__)
            self.counts["internal"] += 1
            return Decision(INTERNAL)

    async def _commit(self, turn: Turn, batch: Batch) -> None:
        began = monotonic()
        position = await self._writer.commit(turn, batch.changes, batch.nudged)
        self.context.state.position = position
        self.committed()
        self.meter.committed(len(batch.changes), monotonic() - began)

    def _refuse(self, batch: Batch, count: int, refusal: Refusal) -> None:
        """Answer those of the first ``count`` jobs that change nothing; refuse the others."""
        now, jobs = self._now(), [batch.jobs.popleft() for _ in range(count)]
        batch.begin()
        for job in jobs:
            decision = self._decide(job, now)
            # Several trackers: such a refusal is decided at the head of all commits only.
            behind = self._store.shared and job.writes and is_refused(decision)
            if decision.changes or behind:
                self._open.reply(job, refusal)
            else:
                self._deliver([(job, decision)], now)

    def _deliver(self, decided: Iterable[tuple[Job, Decision]], now: Now) -> None:
        """Publish and reply, now that all changes are durable.

        Why effects wait too: presence follows from the mirror, which may hold changes that a failed
        commit takes back.
        """
        for job, decision in decided:
            self._publish(decision, now)
            try:
                if decision.reply is not None:
                    self._open.reply(job, decision.reply)
                elif decision.deferred is not None:
                    self._deferred.start(job, decision.deferred, now)
            except Exception:
                log.exception("failed to answer a %s", type(job.command).__name__)
                self._open.reply(job, INTERNAL)

    def _publish(self, decision: Decision, now: Now) -> None:
        try:
            self._publisher.publish(decision, now)
        except Exception:
            log.exception("failed to publish what was decided")

    def _now(self) -> Now:
        return Now(self.clock(), monotonic())

    # -- agreement with the database ------------------------------------------------------------

    def _end_pending(self, batch: Batch) -> None:
        """Deliver the batch whose commit was pending, or let its commands be decided again."""
        outcome, decided = self._writer.outcome, self._undelivered
        if outcome is None:
            return
        self._writer.outcome, self._undelivered = None, []
        state = self.context.state
        if outcome.position is None:
            batch.put_back(job for job, _ in decided)
            if isinstance(outcome.error, StorageError):
                self._refuse(batch, len(decided), read_only(outcome.error))
            elif outcome.error is not None:
                self._refuse(batch, len(decided), INTERNAL)
        elif not self._store.shared or outcome.position > state.position:
            for _, decision in decided:
                self._apply(decision.changes)
            state.position = outcome.position
            self.committed()
            self._deliver(decided, self._now())
        else:  # heard of it, and applied and published it then
            bare = [(job, replace(decision, changes=(), effects=())) for job, decision in decided]
            self._deliver(bare, self._now())

    # -- timers ----------------------------------------------------------------------

    async def keep_time(self) -> None:
        """Expire leases, send beacons and queue housekeeping, until cancelled."""
        await keep_time(self.context, self._publisher, self._deferred, self.enqueue, self._now)
