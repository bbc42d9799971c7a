"""Digest of the whole content, which grows with the held pieces from the start on.

Owns: its progress, and the time for which it can be trusted. Pieces that arrive in order are taken
from memory, the others are read back. Not here: the comparison with the manifest (see
peer.files.partial_content).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from common.digests import Buffer
from common.host.clock import monotonic
from common.limits import MIB
from common.manifest import Manifest, count_pieces
from peer.files.byte_count import DIGESTED
from peer.files.errors import Cancelled
from peer.files.hashing import never_cancelled

BLOCK_BYTES = 4 * MIB  # read back at a time; a multiple of every piece length
AHEAD_BYTES = 16 * MIB  # kept in memory at most, until their turn comes
READ_BACK_PIECES = 4  # by a thread that has just written one: bounds the time of that
ADVANCE_BYTES = 64 * MIB  # a worker thread is busy for at most some 20 ms
# Time for which bytes that were fed are trusted to be on the disk still. Other programs can write
# to the part, and a download that lasts longer can spare the time to read everything again.
DIGEST_TRUST_S = 60.0


class WholeDigest:
    """Digest in progress. ``held`` tells whether a piece is on the disk, ``read_into`` reads it.

    Thread safety: every method.
    """

    def __init__(
        self,
        manifest: Manifest,
        held: Callable[[int], bool],
        read_into: Callable[[int, memoryview], bool],
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._manifest = manifest
        self._held = held
        self._read_into = read_into
        self._lock = Lock()  # guards the next two; held while bytes are taken in
        self._hasher = manifest.algorithm.new()
        self._next = 0
        self._early: dict[int, Buffer] = {}
        self._ahead = AHEAD_BYTES // manifest.piece_length  # pieces
        self._clock = clock
        self._until: float | None = None  # end of trust; set by the first piece
        self._doubted = False

    def invalidate(self) -> None:
        """Distrust it: the part was idle for a while."""
        self._doubted = True
        self._early.clear()

    @property
    def is_fresh(self) -> bool:
        """Whether the digest can be trusted to match the disk."""
        if not self._doubted and self._until is not None and self._clock() > self._until:
            self.invalidate()
        return not self._doubted

    def feed(self, index: int, data: Buffer) -> None:
        """Take in piece ``index`` if its turn has come or comes soon, and read back a few late
        ones.

        To be called before the piece counts as held. ``data`` must not change afterwards: it may be
        kept until its turn.
        """
        if not self._take_up():
            return
        # Threads write pieces in order and finish out of order. Why: keeping the few early ones
        # here is cheaper than reading them back.
        if 0 <= index - self._next < self._ahead:
            self._early[index] = data
        left = READ_BACK_PIECES
        while left and self._is_due() and self._lock.acquire(blocking=False):
            try:
                while left and self._is_due():
                    early = self._early.pop(self._next, None)
                    if early is not None:
                        self._hasher.update(early)
                        self._next += 1
                    elif self._read_back_one():
                        left -= 1
                    else:
                        return
            finally:
                self._lock.release()

    def _take_up(self) -> bool:
        """Begin the time of trust with the first piece; return whether it still runs."""
        if self.is_fresh and self._until is None:
            self._until = self._clock() + DIGEST_TRUST_S
        return not self._doubted

    def mark(self, pieces: Iterable[int]) -> None:
        """The fetching thread of the compiled data path took in these pieces: never here."""

    def _is_due(self) -> bool:
        """Whether the next piece is at hand, in memory or on the disk."""
        return self._next in self._early or self._held_next()

    def _read_back_one(self) -> bool:
        view = self._load_run(memoryview(bytearray(self._manifest.piece_length)))
        if view is not None:
            self._take(view)
        return view is not None

    def advance(self, limit_bytes: int = ADVANCE_BYTES) -> bool:
        """Read back held pieces that come next, up to a limit; return whether more are waiting.

        For an idle worker thread: `finish` need not wait for bytes that are taken in here.
        """
        if not self.is_fresh or not self._held_next():
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            buffer = memoryview(bytearray(BLOCK_BYTES))
            taken = 0
            while taken < limit_bytes and (view := self._load_run(buffer)) is not None:
                self._take(view)
                taken += len(view)
        finally:
            self._lock.release()
        return self._held_next()

    def finish(self, cancelled: Callable[[], bool] = never_cancelled) -> bytes | None:
        """The digest, after reading back the rest; None if bytes are missing from the disk, or if
        it is not trusted.

        Every piece must be held. Another thread reads ahead of the digesting.
        """
        if not self.is_fresh:
            return None
        size = self._manifest.size
        with self._lock, ThreadPoolExecutor(1, thread_name_prefix="read-back") as reader:
            start = min(self._next * self._manifest.piece_length, size)
            buffers = [memoryview(bytearray(min(BLOCK_BYTES, size - start))) for _ in range(2)]
            ahead = reader.submit(self._load, start, buffers[0])
            for offset in range(start, size, BLOCK_BYTES):
                if cancelled():
                    raise Cancelled("stopped before it was verified")
                view = ahead.result()
                if view is None:
                    return None
                buffers.reverse()
                ahead = reader.submit(self._load, offset + BLOCK_BYTES, buffers[0])
                self._take(view)
            return self._hasher.digest()

    def _held_next(self) -> bool:
        return self._next < self._manifest.piece_count and self._held(self._next)

    def _load_run(self, buffer: memoryview) -> memoryview | None:
        """The bytes of the held pieces that come next, as many as fit into ``buffer``."""
        length = self._manifest.piece_length
        end = first = self._next
        while (end - first + 1) * length <= len(buffer) and end < self._manifest.piece_count:
            if not self._held(end):
                break
            end += 1
        return self._load(first * length, buffer[: (end - first) * length]) if end > first else None

    def _load(self, offset: int, buffer: memoryview) -> memoryview | None:
        """The bytes from ``offset``, as many as fit into ``buffer`` before the end."""
        view = buffer[: max(0, self._manifest.size - offset)]
        if not self._read_into(offset, view):
            return None
        DIGESTED.add(len(view))
        return view

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)
        self._next += count_pieces(len(view), self._manifest.piece_length)
        for index in [index for index in list(self._early) if index < self._next]:
            self._early.pop(index, None)
