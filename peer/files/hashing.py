"""Digests of many pieces, on all cores, handed on in order with bounded memory.

Owns: the division of the work among threads. Each piece is read once, into a reused buffer. The
first thread that finds the queue of finished pieces unattended hands them on, so that the digest of
the whole proceeds beside the digests of the pieces. Not here: the source of the bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from threading import Lock
from typing import TypeAlias, TypeVar

from common.digests import Algorithm
from peer.files.byte_count import DIGESTED
from peer.files.errors import Cancelled

Span: TypeAlias = Callable[[int], tuple[int, int]]
ReadInto: TypeAlias = Callable[[int, memoryview], bool]
InOrder: TypeAlias = Callable[[int, memoryview, bytes | None], None]

T = TypeVar("T")

BUFFERS_PER_THREAD = 3  # one being filled, two that wait for an earlier piece
THREADS_MAX = 16  # beyond, the bandwidth of the memory is the bound


def never_cancelled() -> bool:
    """The check of work that cannot be cancelled."""
    return False


def usable_cores() -> int:
    """The number of threads that are worthwhile here."""
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

    ``span`` gives the offset and length of a piece. ``read_into`` fills a buffer from an offset, or
    returns False if the bytes are not there. ``in_order(index, bytes, digest)`` is called by one
    thread at a time, with None for the digest of missing bytes; it must not keep the buffer. The
    first exception of any of them ends the work and is raised; `Cancelled` if ``cancelled`` returns
    True.
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


def map_in_order(
    indexes: Sequence[int],
    work: Callable[[int], T],
    in_order: Callable[[int, T], None],
    *,
    threads: int | None = None,
    cancelled: Callable[[], bool] = never_cancelled,
) -> None:
    """Call ``work`` for each index on several threads, and ``in_order`` with each result in order.

    ``in_order`` is called by one thread at a time. The first exception ends the work and is raised;
    `Cancelled` if ``cancelled`` returns True.
    """
    lock = Lock()  # guards the next three
    claims = iter(range(len(indexes)))
    finished: dict[int, T] = {}
    handed_on = 0

    def run() -> None:
        nonlocal handed_on
        while True:
            if cancelled():
                raise Cancelled("stopped before it was done")
            with lock:
                place = next(claims, None)
            if place is None:
                return
            try:
                result = work(indexes[place])
                with lock:
                    finished[place] = result
                    while handed_on in finished:
                        in_order(indexes[handed_on], finished.pop(handed_on))
                        handed_on += 1
            except BaseException:
                with lock:
                    for _ in claims:  # nothing is left for the others
                        pass
                raise

    workers = min(threads or usable_cores(), len(indexes))
    if workers <= 1:
        run()
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="digest") as pool:
        for future in [pool.submit(run) for _ in range(workers)]:
            future.result()


class _OrderedPipeline:
    """Pieces under way: claimed in order, finished in any order, handed on in order."""

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
        self._lock = Lock()  # guards the next two
        self._claimed = 0
        self._finished: dict[int, tuple[memoryview, bytes | None]] = {}
        self._attended = Lock()  # guards the next one and the calls of in_order
        self._handed_on = 0
        self._free: SimpleQueue[memoryview | None] = SimpleQueue()  # None: stop

    def add_buffers(self, length: int, workers: int) -> None:
        for _ in range(workers * BUFFERS_PER_THREAD if workers > 1 else 1):
            self._free.put(memoryview(bytearray(length)))

    def work(self) -> None:
        """Work of each thread, until no piece is left."""
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
        DIGESTED.add(length if there else 0)
        with self._lock:
            self._finished[place] = (buffer, digest)

    def _attend(self) -> None:
        # Check again after the release: a piece that another thread finished in between would
        # otherwise wait forever.
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
