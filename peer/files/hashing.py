"""Digests many pieces with all cores, and hands them on in order; memory stays bounded.

Owns the division of the work among threads. Each piece is read once, into a buffer that is used
again; whoever finds the line of finished pieces unattended attends to it, so the digest of the
whole goes on beside those of the pieces. Where bytes come from is the caller's affair.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TypeAlias

from common.digests import Algorithm
from peer.files.errors import Cancelled

Span: TypeAlias = Callable[[int], tuple[int, int]]
ReadInto: TypeAlias = Callable[[int, memoryview], bool]
InOrder: TypeAlias = Callable[[int, memoryview, bytes | None], None]

BUFFERS_PER_THREAD = 3  # one being filled, two that wait for an earlier piece
THREADS_MAX = 16  # beyond, the memory's bandwidth is the bound


def never_cancelled() -> bool:
    """For work that nobody will stop."""
    return False


def usable_cores() -> int:
    """How many threads are worth while here."""
    return min(THREADS_MAX, len(os.sched_getaffinity(0)))


def hash_pieces(
    indexes: Sequence[int],
    span: Span,
    read_into: ReadInto,
    algorithm: Algorithm,
    in_order: InOrder,
    *,
    threads: int | None = None,
    cancelled: Callable[[], bool] = never_cancelled,
) -> None:
    """Read and digest the pieces ``indexes``, ascending; call ``in_order`` for each, in that order.

    ``span`` tells a piece's offset and length, ``read_into`` fills a buffer from an offset or
    returns False if the bytes are not there. ``in_order(index, bytes, digest)`` is called from one
    thread at a time, with None for the digest of bytes that were not there; it must not keep the
    buffer. The first exception of any of them ends the work and is raised; `Cancelled` when
    ``cancelled`` says so.
    """
    if not indexes:
        return
    workers = min(threads or usable_cores(), len(indexes))
    line = _OrderedPipeline(indexes, span, read_into, algorithm, in_order, cancelled)
    line.add_buffers(max(span(index)[1] for index in (indexes[0], indexes[-1])), workers)
    if workers == 1:
        line.work()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="digest") as pool:
        for future in [pool.submit(line.work) for _ in range(workers)]:
            future.result()


class _OrderedPipeline:
    """The pieces on their way: claimed in order, finished in any, handed on in order."""

    def __init__(
        self,
        indexes: Sequence[int],
        span: Span,
        read_into: ReadInto,
        algorithm: Algorithm,
        in_order: InOrder,
        cancelled: Callable[[], bool],
    ) -> None:
        self._indexes = indexes
        self._span = span
        self._read_into = read_into
        self._algorithm = algorithm
        self._in_order = in_order
        self._cancelled = cancelled
        self._lock = Lock()  # of the next two
        self._claimed = 0
        self._finished: dict[int, tuple[memoryview, bytes | None]] = {}
        self._attended = Lock()  # of the next one, and of calling in_order
        self._handed_on = 0
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()  # None: stop

    def add_buffers(self, length: int, workers: int) -> None:
        for _ in range(workers * BUFFERS_PER_THREAD if workers > 1 else 1):
            self._free.put(memoryview(bytearray(length)))

    def work(self) -> None:
        """What each thread does until nothing is left."""
        try:
            while (buffer := self._free.get()) is not None:
                place = self._claim()
                if place is None:
                    break
                self._finish(place, buffer)
                self._attend()
        finally:
            self._free.put(None)  # every thread passes it on to the next

    def _claim(self) -> int | None:
        if self._cancelled():
            raise Cancelled("stopped before it was done")
        with self._lock:
            place = self._claimed
            if place == len(self._indexes):
                return None
            self._claimed += 1
            return place

    def _finish(self, place: int, buffer: memoryview) -> None:
        offset, length = self._span(self._indexes[place])
        there = self._read_into(offset, buffer[:length])
        digest = self._algorithm.digest_of(buffer[:length]) if there else None
        with self._lock:
            self._finished[place] = (buffer, digest)

    def _attend(self) -> None:
        # Looked at again after letting go: what another thread finished in between, and could not
        # attend to, would lie there for ever.
        while self._handed_on in self._finished and self._attended.acquire(blocking=False):
            try:
                while (found := self._finished.pop(self._handed_on, None)) is not None:
                    buffer, digest = found
                    index = self._indexes[self._handed_on]
                    self._in_order(index, buffer[: self._span(index)[1]], digest)
                    self._handed_on += 1
                    self._free.put(buffer)
            finally:
                self._attended.release()
