"""Reader of one file at any offset, from this device or while the file is being fetched.

Owns: the wait for a piece, and the read heads: that of the reader, and for a while that of the end
of the file, where many formats keep their index. Not here: which pieces are requested when (see
peer.swarm.fetching.read_heads), and the downloads (see peer.reading.read_downloads).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common import limits
from common.digests import Buffer
from common.errors import MiniTorrentError, TimedOut
from common.host.clock import monotonic
from common.names import quoted
from peer.downloads.transfer import Transfer
from peer.files.errors import Away, ContentChanged, DigestMismatch
from peer.reading.held_here import holders, read_verified
from peer.reading.read_downloads import ReadDownloads
from peer.reading.target import Target
from peer.serving.inventory import Inventory
from peer.serving.inventory import Reader as Source
from peer.swarm.fetching.events import ReadHead, ReadHeadGone
from peer.workers import Workers

REVIEW_S = 0.5  # between two looks at a piece without an event: a download may have failed
FAULTS_MAX = 8  # failed reads of one piece that is held


class Reader:
    """A reader of ``target``. Create it in the running event loop; `close` ends its read heads."""

    def __init__(
        self,
        number: int,
        target: Target,
        inventory: Inventory,
        fetches: ReadDownloads,
        workers: Workers,
        on_closed: Callable[[Reader], None],
    ) -> None:
        self.target = target
        self.used_at = monotonic()
        self.busy = False
        self._number = number
        self._inventory = inventory
        self._fetches = fetches
        self._workers = workers
        self._on_closed = on_closed
        self._held = asyncio.Event()
        inventory.on_held.setdefault(target.content, set()).add(self._held.set)
        self._told: tuple[Transfer, int] | None = None
        self._kept: tuple[int, Buffer] | None = None
        """The piece that was read last. Why: a reader of small ranges stays in it for a while."""
        self.closed = False

    # -- reading --------------------------------------------------------------------------------

    async def read(self, offset: int, size: int, *, wait_s: float | None = None) -> memoryview:
        """Return bytes from ``offset`` on, at least one and at most ``size``; none at the end.

        They end where a piece ends. Waits for the piece, at most ``wait_s``. Raises
        `MiniTorrentError`; `TimedOut` after that time.
        """
        target, self.busy = self.target, True
        try:
            size = min(size, target.size - offset)
            if size <= 0:
                return memoryview(b"")
            piece = target.pieces(offset, 1)[0]
            data = await self._piece(piece, offset, wait_s)
            skip = target.begin + offset - piece * target.manifest.piece_length
            return memoryview(data)[skip : skip + size]
        finally:
            self.busy, self.used_at = False, monotonic()

    async def _piece(self, piece: int, offset: int, wait_s: float | None) -> Buffer:
        if self._kept is not None and self._kept[0] == piece:
            return self._kept[1]
        until = None if wait_s is None else monotonic() + wait_s
        faults, tried = 0, False
        while not self.closed:
            self._held.clear()
            fault: MiniTorrentError | None = None
            for source in self._holders(piece):
                try:
                    data = await self._workers.run(
                        read_verified, source, self.target.manifest, piece
                    )
                except MiniTorrentError as error:
                    self._on_fault(source, error)
                    fault, faults = error, faults + 1
                else:
                    self._kept = piece, data
                    self._move_head(piece, offset)
                    return data
            if fault is not None and faults >= FAULTS_MAX:
                raise fault
            if fault is None or isinstance(fault, DigestMismatch | ContentChanged | Away):
                await self._fetches.want(self.target, piece, again=not tried)
                tried = True
            self._move_head(piece, offset)
            left_s = REVIEW_S if until is None else min(REVIEW_S, until - monotonic())
            if left_s <= 0:
                raise TimedOut(
                    f"read {quoted(self.target.name)}: byte {offset:,} did not come in time"
                )
            try:
                await asyncio.wait_for(self._held.wait(), left_s)
            except TimeoutError:
                if self._told is not None:  # tell again: the download may have begun anew
                    self._told = self._told[0], -1
        raise TimedOut(f"read {quoted(self.target.name)}: the reader was closed")

    def _holders(self, piece: int) -> list[Source]:
        return list(holders(self._inventory, self._fetches.all(), self.target.content, piece))

    def _on_fault(self, source: Source, error: MiniTorrentError) -> None:
        """Report the fault to the inventory, so that the piece is fetched again."""
        served = self._inventory.get(self.target.content)
        if served is None or served.reader is not source:
            return
        if isinstance(error, DigestMismatch) and served.have is not None:
            self._inventory.damaged(self.target.content, error.pieces)
        elif isinstance(error, DigestMismatch | ContentChanged | Away):
            self._inventory.changed(self.target.content)

    # -- read heads -----------------------------------------------------------------------------

    def _move_head(self, piece: int, offset: int) -> None:
        transfer = self._fetches.running(self.target.content, piece)
        if transfer is None or self._told == (transfer, piece):
            return
        if self._told is None or self._told[0] is not transfer:
            self._leave()
            end = max(0, self.target.size - limits.READ_TAIL_BYTES)
            tail = self.target.pieces(end, limits.READ_TAIL_BYTES)
            transfer.handle(ReadHead(self._number * 2 + 1, tail.start, len(tail)))
        ahead = self.target.pieces(offset, limits.READ_AHEAD_BYTES)
        self._told = transfer, piece
        transfer.handle(ReadHead(self._number * 2, ahead.start, len(ahead)))

    def close(self) -> None:
        """End the read heads. May be called twice."""
        if self.closed:
            return
        self.closed = True
        self._held.set()
        calls = self._inventory.on_held[self.target.content]
        calls.discard(self._held.set)
        if not calls:
            del self._inventory.on_held[self.target.content]
        self._leave()
        self._fetches.used(self.target.content)
        self._on_closed(self)

    def _leave(self) -> None:
        if self._told is not None:
            transfer, self._told = self._told[0], None
            for head in (self._number * 2, self._number * 2 + 1):
                transfer.handle(ReadHeadGone(head))
