"""Reuse of pieces: each is read from local files, verified like a fetched one, and written.

Where the file system can share blocks between files (btrfs, XFS), they are shared instead of
copied, and verified in the part itself: the local file may change between a read and the sharing.

Owns: the threads, and the trial of one candidate after the other. Not here: the candidates (see
peer.files.reuse_plan), and the pieces to look for (see peer.swarm.fetching.local_pieces).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from peer.files.errors import StorageClosed
from peer.files.hashing import usable_cores
from peer.files.local_trees import FileRange, LocalFile, LocalFiles
from peer.files.partfile import NotShared
from peer.files.partial_content import PartialContent
from peer.files.reuse_plan import ReusePlan

THREADS_MAX = 4
WEAK_TRIES = 3  # wrong pieces of a file that was found by its size alone, until it is passed over

Report = Callable[[int, bool], None]
"""Called with each piece, and whether it is held now; from any thread."""


class PieceReuse:
    """Reuse of local pieces for one part. ``close`` it after the last `run`."""

    def __init__(self, part: PartialContent, plan: ReusePlan) -> None:
        self._part = part
        self._plan = plan
        self._files = LocalFiles()
        self._lock = Lock()  # guards the next two, and the pieces of a run
        self._wrong: dict[LocalFile, int] = {}
        self._useful: set[LocalFile] = set()
        self._unshared: set[str] = set()  # roots whose blocks cannot be shared

    def run(self, pieces: Iterable[int], may_go_on: Callable[[], bool], report: Report) -> None:
        """Look for ``pieces`` until the end, or until ``may_go_on`` returns False.

        Every piece is reported once it is known; a later call may look for the rest. Blocks.
        Raises `StorageError` if the part cannot be written.
        """
        waiting = iter(pieces)
        threads = min(THREADS_MAX, usable_cores())
        failed: list[BaseException] = []

        def work() -> None:
            try:
                while not failed and may_go_on() and (index := self._next(waiting)) is not None:
                    report(index, self._obtain(index))
            except StorageClosed:
                pass
            except BaseException as error:
                failed.append(error)
                raise

        with ThreadPoolExecutor(threads, thread_name_prefix="reuse") as pool:
            for done in [pool.submit(work) for _ in range(threads)]:
                done.result()

    def close(self) -> None:
        """Close the local files."""
        self._files.close()

    def _next(self, waiting: Iterator[int]) -> int | None:
        with self._lock:
            return next(waiting, None)

    def _obtain(self, index: int) -> bool:
        """Hold a piece, if a candidate is it."""
        if self._part.has(index):
            return True
        for ranges in self._plan.candidates(index):
            if any(self._is_useless(one.file) for one in ranges):
                continue
            right = self._take(index, ranges)
            self._judge(ranges, right)
            if right:
                return True
        return False

    def _take(self, index: int, ranges: tuple[FileRange, ...]) -> bool:
        root = ranges[0].file.root
        if root not in self._unshared:
            try:
                with self._files.opened(ranges) as fds:
                    found = zip(fds, ranges, strict=True)
                    sources = [(fd, one.offset, one.length) for fd, one in found]
                    return self._part.share_blocks(index, sources)
            except OSError:
                return False
            except NotShared as error:
                if error.never:
                    self._unshared.add(root)
        data = self._files.read(ranges)
        return data is not None and not self._part.write_run(index, 1, memoryview(data))

    def _is_useless(self, file: LocalFile) -> bool:
        if file.likely or file in self._useful:
            return False
        return self._wrong.get(file, 0) >= WEAK_TRIES

    def _judge(self, ranges: tuple[FileRange, ...], right: bool) -> None:
        with self._lock:
            for one in ranges:
                if one.file.likely:
                    continue
                if right:
                    self._useful.add(one.file)
                elif len(ranges) == 1:
                    self._wrong[one.file] = self._wrong.get(one.file, 0) + 1
