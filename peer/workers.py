"""Worker threads for blocking work: reads, digests and writes.

Owns: the threads, and the delivery of results into the event loop. Results come back in batches:
one wake-up of the loop brings all that was finished since the last one, because at thousands of
pieces a second a wake-up for each would cost more than the work.

Why: with quick disks one thread for each core is fastest, since more threads meet colder caches.
With slow disks threads wait instead of computing, so helpers take part when jobs wait and no thread
took one for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
_Done = Callable[[Any, BaseException | None], None]
_Job = tuple[Callable[..., Any], tuple[Any, ...], _Done]
SLOW_S = 0.02  # if no waiting job was taken for that long, all threads wait for disks


class Workers:
    """Pool of ``count`` threads that take jobs in order, and of ``helpers`` for when those are held
    up."""

    def __init__(self, count: int, name: str, *, helpers: int = 0) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._calls: SimpleQueue[bool] = SimpleQueue()
        self._taken = self._taken_before = 0
        self._timer: asyncio.TimerHandle | None = None
        self._results: deque[tuple[_Done, Any, BaseException | None]] = deque()
        self._woken = False
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        self._helpers = [
            threading.Thread(target=self._help, name=f"{name}-helper-{number}", daemon=True)
            for number in range(helpers)
        ]
        for thread in (*self._threads, *self._helpers):
            thread.start()

    def submit(self, done: _Done, job: Callable[..., Any], *args: Any) -> None:
        """Run ``job(*args)`` on a thread, then ``done(result, error)`` in the loop."""
        self._jobs.put((job, args, done))
        if self._timer is None and self._helpers:
            self._timer = self._loop.call_later(SLOW_S, self._check_progress)

    async def run(self, job: Callable[..., T], *args: Any) -> T:
        """Run ``job(*args)`` on a thread and return its result; raises the job's exception."""
        future: asyncio.Future[T] = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.submit(done, job, *args)
        return await future

    def _check_progress(self) -> None:
        """Call a helper if jobs wait and none was taken since the last check."""
        self._timer = None
        if self._jobs.empty():
            return
        if self._taken == self._taken_before and self._calls.empty():
            self._calls.put(True)
        self._taken_before = self._taken
        self._timer = self._loop.call_later(SLOW_S, self._check_progress)

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            self._do(item)
            # A job's buffers must not live until the next job comes.
            del item

    def _help(self) -> None:
        while self._calls.get():
            while True:
                try:
                    item = self._jobs.get_nowait()
                except Empty:
                    break
                if item is None:  # the end, which was meant for another
                    self._jobs.put(None)
                    return
                self._do(item)
                del item

    def _do(self, item: _Job) -> None:
        self._taken += 1  # may miss one: all that counts is whether it moves
        job, args, done = item
        try:
            self._results.append((done, job(*args), None))
        except BaseException as error:
            self._results.append((done, None, error))
        del item, job, args, done
        if not self._woken:
            self._woken = True
            # After the loop was closed, results are no longer needed.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Lowered first: what is appended after the last look below wakes the loop again.
        self._woken = False
        while self._results:
            done, result, error = self._results.popleft()
            try:
                done(result, error)
            except Exception:
                log.exception("the result of a worker could not be handled")

    def close(self, timeout_s: float = 2.0) -> None:
        """End the threads after their current jobs; jobs not begun are dropped."""
        with contextlib.suppress(Empty):
            while True:  # a thread may take the last one before we do
                self._jobs.get_nowait()
        if self._timer is not None:
            self._timer.cancel()
        for _ in self._threads:
            self._jobs.put(None)
        for _ in self._helpers:
            self._calls.put(False)
        for thread in (*self._threads, *self._helpers):
            thread.join(timeout_s)
