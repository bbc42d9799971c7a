"""Writing thread of the tracker: turns and commits, and how long the command loop waits for them.

Owns: the thread, the commit whose outcome is not known yet, and whether the database can be
written. Not here: decisions and the mirror (see tracker.service.command_loop).

Theory of operation.

A turn of a shared store may take seconds: another tracker has it. The loop answers questions
meanwhile. After ``PATIENCE_S`` the writer interrupts the store, and the turn fails.

A commit is waited for ``HANG_S``. If it takes longer, or if its connection ends, it is *pending*:
the loop takes its batch back from the mirror and goes on with questions. The writer waits for the
answer, or asks the database whether the commit took place, until that is known; `Writer.outcome`
tells it. At most one commit is pending, and no turn is taken during it.

A call that the database does not answer is interrupted after ``PATIENCE_S``, so that a frozen one
does not hold the thread for ever. A load may take longer; the cluster's member ends it.

A shared store that failed is tried in the background, first after ``RETRY_MIN_S``. Until it answers
the loop refuses what writes at once. A store of one tracker is tried by each commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from common.errors import StorageError
from common.host.clock import monotonic
from common.ids import DeviceKey
from tracker.core.changes.base import Change
from tracker.core.state import State
from tracker.store.turns import Commit, FellBehind, InDoubt, LogConflict, OldReader, Store, Turn

log = logging.getLogger(__name__)
T = TypeVar("T")

NEWS_S = 1.0  # a question is answered from memory after that
HANG_S = 1.0  # a commit takes milliseconds; a slow disk must not hold up questions
PATIENCE_S = 8.0  # more than the 5 s after which PostgreSQL ends the turn of a frozen tracker
RETRY_MIN_S = 0.1
RETRY_MAX_S = 2.0


class Pending(Exception):
    """A commit takes long, or is in doubt: `Writer.outcome` tells later what became of it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a pending commit: its position, or None if nothing was written. ``error``: why."""

    position: int | None
    error: Exception | None = None


class Writer:
    """Turns and commits of ``store``, one after the other. ``wake`` is called at any news."""

    def __init__(self, store: Store, wake: Callable[[], None]) -> None:
        self.outcome: Outcome | None = None
        self.failing: StorageError | None = None  # until a commit, or a connection, succeeds
        self._store = store
        self._wake = wake
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending_since: float | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def pending(self) -> bool:
        """Whether the outcome of a commit is not known."""
        return self._pending_since is not None

    @property
    def refuses(self) -> StorageError | None:
        """The reason why nothing can be written now and waiting is of no use; or None."""
        if self._store.shared and self.failing is not None:
            return self.failing
        if self._pending_since is not None and monotonic() - self._pending_since >= PATIENCE_S:
            return StorageError("the database does not answer")
        return None

    async def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call ``function`` on the writing thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    def load(self) -> asyncio.Task[State]:
        """Begin to load a mirror; ``wake`` is called at the end, and after ``PATIENCE_S``."""
        self.wake_after(PATIENCE_S)
        task = self._start(self.call(self._store.load))
        task.add_done_callback(lambda _: self._wake())
        return task

    def wake_after(self, seconds: float) -> None:
        """Call ``wake`` after that time."""
        asyncio.get_running_loop().call_later(seconds, self._wake)

    async def _bounded(self, function: Callable[..., T], *arguments: Any) -> T:
        """As `call`, but interrupted after ``PATIENCE_S``."""
        timer = asyncio.get_running_loop().call_later(PATIENCE_S, self._store.interrupt)
        try:
            return await self.call(function, *arguments)
        finally:
            timer.cancel()

    async def news(self, position: int) -> Sequence[Commit]:
        """Return the commits after ``position``. Raise `StorageError`, also after ``NEWS_S``."""
        future = asyncio.get_running_loop().run_in_executor(
            self._thread, self._store.news, position
        )
        done, _ = await asyncio.wait({future}, timeout=NEWS_S)
        if done:
            return future.result()
        future.add_done_callback(lambda late: late.cancelled() or late.exception())
        self._store.interrupt()
        error = StorageError("the database does not answer")
        self._failed(error)
        raise error

    # -- turns ------------------------------------------------------------------------------------

    async def turn(self, position: int, meanwhile: Callable[[], Awaitable[None]]) -> Turn:
        """Return the turn. Until then ``meanwhile`` is called; it returns after each ``wake``.

        Raise `StorageError`.
        """
        if not self._store.shared:
            return self._store.turn(position)
        loop, began = asyncio.get_running_loop(), monotonic()
        future = loop.run_in_executor(self._thread, self._store.turn, position)
        future.add_done_callback(lambda _: self._wake())
        timer = loop.call_later(PATIENCE_S, self._wake)
        try:
            while not future.done():
                if monotonic() - began >= PATIENCE_S:
                    future.add_done_callback(_release)
                    self._store.interrupt()
                    raise StorageError("the database does not answer")
                await meanwhile()
            return future.result()
        except FellBehind:
            raise
        except StorageError as error:
            self._failed(error)
            raise
        finally:
            timer.cancel()

    def release(self, turn: Turn) -> None:
        """End a turn without a commit; the next one waits for that."""
        if self._store.shared:
            self._thread.submit(turn.release)

    # -- commits ------------------------------------------------------------------------------

    async def commit(
        self, turn: Turn, changes: Sequence[Change], nudged: Sequence[DeviceKey]
    ) -> int:
        """Commit; return the new position. Raise `StorageError` or `Pending`."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, turn.commit, changes, nudged)
        done, _ = await asyncio.wait({future}, timeout=HANG_S)
        if done:
            try:
                position = future.result()
            except InDoubt as doubt:
                log.warning("%s; the tracker asks the database about this commit", doubt.message)
            except (LogConflict, OldReader):
                raise
            except StorageError as error:
                self._failed(error)
                raise
            else:
                self._succeeded()
                return position
        else:
            log.warning("a commit takes long; commands that change nothing are answered")
        self._pending_since = monotonic()
        self._start(self._settle(future))
        raise Pending

    async def _settle(self, future: asyncio.Future[int]) -> None:
        """Wait until the outcome of a commit is known."""
        loop = asyncio.get_running_loop()
        timers = [
            loop.call_later(PATIENCE_S, self._store.interrupt),
            loop.call_later(PATIENCE_S, self._wake),
        ]
        try:
            self.outcome = Outcome(await future)
        except InDoubt as doubt:
            happened = await self._resolve(doubt)
            log.warning("the commit in doubt %s", "took place" if happened else "did not happen")
            self.outcome = Outcome(doubt.position if happened else None)
        except StorageError as error:
            self._failed(error)
            self.outcome = Outcome(None, error)
        except Exception as error:
            log.exception("a commit failed")
            self.outcome = Outcome(None, error)
        finally:
            for timer in timers:
                timer.cancel()
        if self.outcome.error is None:
            self._succeeded()
        self._pending_since = None
        self._wake()

    async def _resolve(self, doubt: InDoubt) -> bool:
        delay_s = RETRY_MIN_S
        while True:
            try:
                return await self._bounded(self._store.happened, doubt)
            except StorageError:
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_MAX_S)

    # -- failures -------------------------------------------------------------------------------

    def _failed(self, error: StorageError) -> None:
        first = self.failing is None
        self.failing = error
        if first:
            log.error("%s; commands that change nothing are answered", error.message)
            if self._store.shared:
                self._start(self._come_back())

    def _succeeded(self) -> None:
        if self.failing is not None:
            log.info("the database can be written again")
            self.failing = None

    async def _come_back(self) -> None:
        """Try a shared store until it answers."""
        delay_s = RETRY_MIN_S
        while self.failing is not None:
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_MAX_S)
            try:
                await self._bounded(self._store.reach)
            except StorageError as error:
                self.failing = error
            else:
                self._succeeded()
        self._wake()

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """End the thread; a call that waits for the database is interrupted."""
        for task in self._tasks:
            task.cancel()
        self._store.interrupt()
        self._thread.shutdown(wait=True)


def _release(future: asyncio.Future[Turn]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().release()
