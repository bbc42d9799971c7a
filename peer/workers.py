"""Threads for what would block the loop: reads, digests and writes.

Owns a few threads and the way back into the loop. Results come back in batches: one wake-up of the
loop brings all that was finished since the last one, because at thousands of pieces a second a
wake-up for each would cost more than the work.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")
_Done = Callable[[Any, BaseException | None], None]
_Job = tuple[Callable[..., Any], tuple[Any, ...], _Done]


class Workers:
    """``count`` threads that take jobs in order."""

    def __init__(self, count: int, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._results: deque[tuple[_Done, Any, BaseException | None]] = deque()
        self._woken = False
        self._loop = asyncio.get_running_loop()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, done: _Done, job: Callable[..., Any], *args: Any) -> None:
        """Run ``job(*args)`` on a thread, then ``done(result, error)`` in the loop."""
        self._jobs.put((job, args, done))

    async def run(self, job: Callable[..., T], *args: Any) -> T:
        """The same, for those who can wait. What the job raises is raised here."""
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

    def _work(self) -> None:
        while (item := self._jobs.get()) is not None:
            job, args, done = item
            try:
                self._results.append((done, job(*args), None))
            except BaseException as error:
                self._results.append((done, None, error))
            # A job's buffers must not live until the next job comes.
            del item, job, args, done
            if not self._woken:
                self._woken = True
                try:
                    self._loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the loop is closed, and nobody waits for results any more

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
        """Let the threads end after what they are doing; jobs not begun are dropped."""
        while not self._jobs.empty():
            self._jobs.get()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(timeout_s)
