"""The desk: commands come in one queue, are decided in order, committed in batches, then answered.

Owns the queue and the order of things: nothing is answered or published before it is durable. While
a batch is on its way to the disk the next one waits, and so do questions, so nobody sees what may
yet be lost. When a commit fails, the mirror is taken from the database again, what would have
written is refused, and questions go on being answered. Until the failures are over commands are
written one by one, each before the mirror has it, so that no further failure costs a reload. What
is decided is ``tracker.commands``' business; sockets are ``tracker.server``'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import assert_never

from common import limits
from common.clock import monotonic, wall_ms
from common.errors import MiniTorrentError, StorageError
from common.ids import DeviceKey
from common.messages import tracker
from common.messages.refusals import Code, Refusal
from tracker import commands
from tracker.changes import Change
from tracker.decision import Actor, Decision, Now, Nudge, Offline, Online, Work, World
from tracker.errands import Answered, Continued, Errands
from tracker.events import Outbox, Outgoing, nudge
from tracker.presence import SWEEP_S, SwarmChange
from tracker.store import Store
from tracker.writing import LogConflict

log = logging.getLogger(__name__)

HOUSEKEEPING_S = 60.0
CAREFUL_S = 1.0  # after a failure another one may cost no reload: nobody is answered during it
Answer = Callable[[tracker.Reply, bytes | None], None]


@dataclass(slots=True)
class Job:
    """A command on its way through; ``answer`` is called once, with the reply and its data."""

    actor: Actor
    command: tracker.Command | commands.Internal
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


class Desk:
    """Decides, commits, answers and publishes, one batch after the other."""

    def __init__(
        self,
        world: World,
        store: Store,
        errands: Errands,
        publish: Callable[[Outgoing], None],
    ) -> None:
        self.world = world
        self.counts: Counter[str] = Counter()
        self._store = store
        self._errands = errands
        self._publish = publish
        self._outbox = Outbox()
        self._writer = ThreadPoolExecutor(1, "writer")
        self._queue: deque[Job] = deque()
        self._awake = asyncio.Event()
        # Held while the mirror is ahead of the database: what is published says nothing of that.
        self._durable = asyncio.Lock()
        self._open: dict[tuple[DeviceKey, bytes], Job] = {}
        self._open_of: Counter[DeviceKey] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush: asyncio.TimerHandle | None = None
        self._flush_at = 0.0
        self._stale: StorageError | None = None  # why the mirror has to be loaded again
        self._failed_at: float | None = None  # when the disk did last, until that is over
        self._stopping = False

    # -- coming in ------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Put a command off the wire into the queue, or answer at once that it cannot be.

        A repetition of one that is still open is not done twice: its answer goes to the later one.
        """
        key = (job.actor.device, job.actor.request_id)
        known = self._open.get(key)
        if known is not None and known.command == job.command:
            known.answer = job.answer
            return
        device = job.actor.device
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
        self._queue.append(job)
        self._awake.set()

    def _reply(self, job: Job, reply: tracker.Reply, data: bytes | None = None) -> None:
        if isinstance(job.command, commands.Internal):
            job.answer(reply, data)
        else:
            self._answer((job.actor.device, job.actor.request_id), reply, data)

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
        while not self._stopping:
            await self._awake.wait()
            self._awake.clear()
            while self._queue and not self._stopping:
                async with self._durable:
                    await self._settle(self._next_batch())
                self._flush_due(monotonic())
                await asyncio.sleep(0)  # let the sockets have their turn

    def stop(self) -> None:
        """Let `run` return after the batch that it is at."""
        self._stopping = True
        self._awake.set()

    def close(self) -> None:
        """Give up what is left. To be called when `run` has returned."""
        for task in self._tasks:
            task.cancel()
        if self._flush is not None:
            self._flush.cancel()
        self._errands.close()
        self._writer.shutdown(wait=True)

    def _next_batch(self) -> deque[Job]:
        count = min(len(self._queue), limits.COMMANDS_PER_BATCH_MAX)
        return deque(self._queue.popleft() for _ in range(count))

    async def _settle(self, jobs: deque[Job], attempts: int = 3) -> None:
        if self._stale is not None and not await self._load():
            for job in jobs:
                self._reply(job, read_only(self._stale))
            return
        now = Now(wall_ms(), monotonic())
        try:
            await self._write_first(jobs, now)
            await self._write_together(jobs, now)
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

    async def _write_first(self, jobs: deque[Job], now: Now) -> None:
        """While the disk fails: one after the other, as many as can be written. Who is done leaves
        ``jobs``, and the mirror has nothing of who is not."""
        while jobs and self._failed_at is not None:
            decision = self._decide(jobs[0], now)
            if decision.changes:
                await self._commit(decision.changes)
                self._apply(decision.changes)
            self._carry_out([(jobs.popleft(), decision)], now)

    async def _write_together(self, jobs: deque[Job], now: Now) -> None:
        """Each is decided on a mirror that has what those before it change, and then all of that is
        written at once: after a failure the mirror is ahead of the database."""
        decided: list[tuple[Job, Decision]] = []
        changes: list[Change] = []
        for job in jobs:
            decision = self._decide(job, now)
            self._apply(decision.changes)
            changes += decision.changes
            decided.append((job, decision))
        if changes:
            await self._commit(changes)
        self._carry_out(decided, now)

    def _apply(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.world.state.apply(change)

    def _decide(self, job: Job, now: Now) -> Decision:
        try:
            return commands.decide(self.world, job.actor, job.command, now)
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
        if self._stale is not None and not await self._load():
            for job in jobs:
                self._reply(job, refusal)
            return
        for job in jobs:
            decision = self._decide(job, now)
            if decision.changes:
                self._reply(job, refusal)
            else:
                self._carry_out([(job, decision)], now)

    async def _load(self) -> bool:
        """Take the mirror from the database again."""
        loop = asyncio.get_running_loop()
        try:
            self.world.state = await loop.run_in_executor(self._writer, self._store.load)
        except StorageError as error:
            if self._stale is None or self._stale.message != error.message:
                log.error("%s", error.message)
            self._stale = error
            return False
        self._stale = None
        return True

    def _carry_out(self, decided: list[tuple[Job, Decision]], now: Now) -> None:
        """What follows once all changes are durable. Notices are among it: who is online where
        follows from the mirror, which before that may hold what is lost again."""
        for job, decision in decided:
            try:
                self._tell(decision, now)
            except Exception:
                log.exception("failed to tell what a %s did", type(job.command).__name__)
            try:
                self._conclude(job, decision.reply, now)
            except Exception:
                log.exception("failed to answer a %s", type(job.command).__name__)
                self._reply(job, INTERNAL)

    # -- what follows from a decision -----------------------------------------------------------

    def _tell(self, decision: Decision, now: Now) -> None:
        state, presence = self.world.state, self.world.presence
        for outgoing in self._outbox.told(decision.changes, now.mono_s):
            self._publish(outgoing)
        self._gather(presence.follow(state, decision.changes), now.mono_s)
        for notice in decision.notices:
            match notice:
                case Nudge():
                    self._publish(nudge(self.world.facts, notice))
                case Online(device, user, endpoint, leeching):
                    self._gather(
                        presence.announce(state, device, user, endpoint, leeching, now.mono_s),
                        now.mono_s,
                    )
                case Offline(device):
                    self._gather(presence.depart(device), now.mono_s)
                case _:
                    assert_never(notice)

    def _conclude(self, job: Job, reply: tracker.Reply | Work, now: Now) -> None:
        if not isinstance(reply, Work):
            self._reply(job, reply)
            return
        task = asyncio.get_running_loop().create_task(self._run_errand(job, reply, now))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_errand(self, job: Job, work: Work, now: Now) -> None:
        try:
            outcome = await self._errands.run(job.actor, work, job.data, now)
        except MiniTorrentError as error:
            self._reply(job, Refusal(error.code, error.message, error.hint))
            return
        except Exception:
            log.exception("failed to finish a %s", type(job.command).__name__)
            self._reply(job, INTERNAL)
            return
        match outcome:
            case Answered(reply, data):
                self._reply(job, reply, data)
            case Continued(command):
                key = (job.actor.device, job.actor.request_id)
                self._enqueue(
                    Job(job.actor, command, lambda reply, data: self._answer(key, reply, data))
                )
            case _:
                assert_never(outcome)

    # -- what comes with time -------------------------------------------------------------------

    def _gather(self, changes: list[SwarmChange], now: float) -> None:
        self._outbox.gather(changes, self.world.presence, now)
        self._schedule_flush(now)

    def _schedule_flush(self, now: float) -> None:
        flush_at = self._outbox.flush_at
        if flush_at is not None and (self._flush is None or flush_at < self._flush_at):
            if self._flush is not None:
                self._flush.cancel()
            self._flush_at = flush_at
            delay = max(0.0, flush_at - now)
            self._flush = asyncio.get_running_loop().call_later(delay, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if not self._durable.locked():  # else it is due when the batch is settled
            # The loop's timers may fire a little early; what is due then is told all the same.
            self._flush_due(max(monotonic(), self._flush_at))

    def _flush_due(self, now: float) -> None:
        flush_at = self._outbox.flush_at
        if flush_at is None or flush_at > now:
            return
        for outgoing in self._outbox.flush(self.world.state, self.world.rng, now):
            self._publish(outgoing)
        self._schedule_flush(now)

    async def _beat(self, now: Now) -> None:
        async with self._durable:
            for outgoing in self._outbox.beat(self.world.facts, self.world.state, now):
                self._publish(outgoing)

    async def keep_time(self) -> None:
        """Leases, beacons and housekeeping, until cancelled."""
        beat_at = tidy_at = monotonic()
        while True:
            try:
                now = Now(wall_ms(), monotonic())
                self._gather(self.world.presence.sweep(now.mono_s), now.mono_s)
                if now.mono_s >= beat_at:
                    beat_at = now.mono_s + limits.BEACON_S
                    await self._beat(now)
                if now.mono_s >= tidy_at:
                    tidy_at = now.mono_s + HOUSEKEEPING_S
                    self._errands.tidy(now.mono_s)
                    nobody = Actor(DeviceKey(b""))
                    self._enqueue(Job(nobody, commands.Housekeep(), lambda *_: None))
            except Exception:
                log.exception("what comes with time failed")
            await asyncio.sleep(SWEEP_S)
