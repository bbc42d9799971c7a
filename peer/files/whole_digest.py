"""The digest of the whole content, which grows with the pieces that are held from the start on.

Owns how far it has come, and for how long it stands for what is on the disk. Pieces that arrive in
order are taken from memory, the others are read back. Whether the result is the right one is judged
in ``peer.files.partial_content``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from common.digests import Buffer
from common.host.clock import monotonic
from common.limits import MIB
from common.manifest import Manifest, count_pieces
from peer.files.errors import Cancelled
from peer.files.hashing import never_cancelled

BLOCK_BYTES = 4 * MIB  # read back at a time; a multiple of every piece length
AHEAD_BYTES = 16 * MIB  # kept in memory until their turn comes, at the most
READ_BACK_PIECES = 4  # by a thread that has just written one: a bound on how long that takes
ADVANCE_BYTES = 64 * MIB  # a worker thread is not taken for longer than some 20 ms
# For so long what was taken in is believed to be on the disk still. Other programs can write to the
# part, and a download that lasts longer than this can spare the time to read it all once more.
DIGEST_TRUST_S = 60.0


class WholeDigest:
    """Safe for threads. ``held`` tells whether a piece is on disk, ``read_into`` reads it back."""

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
        self._lock = Lock()  # of the next two; held as long as bytes are being taken in
        self._hasher = manifest.algorithm.new()
        self._next = 0
        self._early: dict[int, Buffer] = {}
        self._ahead = AHEAD_BYTES // manifest.piece_length  # pieces
        self._clock = clock
        self._until: float | None = None  # when it is believed no more; set by the first piece
        self._doubted = False

    def invalidate(self) -> None:
        """Believe it no more: the part lay about for a while."""
        self._doubted = True
        self._early.clear()

    @property
    def is_fresh(self) -> bool:
        """Whether what it took in stands for what is on the disk."""
        if not self._doubted and self._until is not None and self._clock() > self._until:
            self.invalidate()
        return not self._doubted

    def feed(self, index: int, data: Buffer) -> None:
        """Take in piece ``index`` if its turn has come or comes soon, and read back a few that
        are behind. To be called before the piece counts as held.

        ``data`` must not be changed afterwards: it may be kept until its turn.
        """
        if not self.is_fresh:
            return
        if self._until is None:
            self._until = self._clock() + DIGEST_TRUST_S
        # Several threads write pieces that come in order, and finish out of order: the few that
        # are early wait here, which is cheaper than reading them back.
        if 0 <= index - self._next < self._ahead:
            self._early[index] = data
        room = READ_BACK_PIECES
        while room and self._is_due() and self._lock.acquire(blocking=False):
            try:
                while room and self._is_due():
                    early = self._early.pop(self._next, None)
                    if early is not None:
                        self._hasher.update(early)
                        self._next += 1
                    elif self._read_back_one():
                        room -= 1
                    else:
                        return
            finally:
                self._lock.release()

    def _is_due(self) -> bool:
        """Whether the next piece is at hand, in memory or on the disk."""
        return self._next in self._early or self._held_next()

    def _read_back_one(self) -> bool:
        view = self._load_run(memoryview(bytearray(self._manifest.piece_length)))
        if view is not None:
            self._take(view)
        return view is not None

    def advance(self, limit_bytes: int = ADVANCE_BYTES) -> bool:
        """Read back held pieces that come next, up to a limit; whether more of them are waiting.

        For a worker thread with nothing better to do: what is taken in before the last piece comes
        is not waited for then.
        """
        if not self.is_fresh or not self._held_next():
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            room = memoryview(bytearray(BLOCK_BYTES))
            taken = 0
            while taken < limit_bytes and (view := self._load_run(room)) is not None:
                self._take(view)
                taken += len(view)
        finally:
            self._lock.release()
        return self._held_next()

    def finish(self, cancelled: Callable[[], bool] = never_cancelled) -> bytes | None:
        """The digest, after the rest was read back; None if bytes are missing from the disk, or if
        it is not believed.

        Every piece must be held. Reading goes on in another thread, beside digesting.
        """
        if not self.is_fresh:
            return None
        size = self._manifest.size
        with self._lock, ThreadPoolExecutor(1, thread_name_prefix="read-back") as reader:
            start = min(self._next * self._manifest.piece_length, size)
            rooms = [memoryview(bytearray(min(BLOCK_BYTES, size - start))) for _ in range(2)]
            ahead = reader.submit(self._load, start, rooms[0])
            for offset in range(start, size, BLOCK_BYTES):
                if cancelled():
                    raise Cancelled("stopped before it was verified")
                view = ahead.result()
                if view is None:
                    return None
                rooms.reverse()
                ahead = reader.submit(self._load, offset + BLOCK_BYTES, rooms[0])
                self._take(view)
            return self._hasher.digest()

    def _held_next(self) -> bool:
        return self._next < self._manifest.piece_count and self._held(self._next)

    def _load_run(self, room: memoryview) -> memoryview | None:
        """The bytes of the held pieces that come next, as many as there is room for."""
        length = self._manifest.piece_length
        end = first = self._next
        while (end - first + 1) * length <= len(room) and end < self._manifest.piece_count:
            if not self._held(end):
                break
            end += 1
        return self._load(first * length, room[: (end - first) * length]) if end > first else None

    def _load(self, offset: int, room: memoryview) -> memoryview | None:
        """The bytes from ``offset``, as many as there is room for before the end."""
        view = room[: max(0, self._manifest.size - offset)]
        return view if self._read_into(offset, view) else None

    def _take(self, view: memoryview) -> None:
        self._hasher.update(view)
        self._next += count_pieces(len(view), self._manifest.piece_length)
        for index in [index for index in list(self._early) if index < self._next]:
            self._early.pop(index, None)
