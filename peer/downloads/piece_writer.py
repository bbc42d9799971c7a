"""Writer of one download: stores pieces on worker threads, and pauses for a disk that fails.

Owns: the jobs of the workers, checkpoints, and the retry of a disk that takes nothing for now. Not
here: which pieces are stored (see peer.swarm) and the bytes on the disk (see peer.files).

States: *writing*; *paused* with a reason, and a retry every `STORAGE_RETRY_S`; *failed*, which
``fail`` reports. A write or a sync that succeeds ends the pause, never a retry alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Set
from typing import Any, Protocol

from common.errors import StorageError
from common.ids import DeviceKey
from peer.downloads.checkpoints import Checkpoints
from peer.downloads.counts import CORRUPT, VERIFIED, DownloadCounts
from peer.downloads.received import PieceRun
from peer.files.errors import (
    DigestMismatch,
    PieceNotHeld,
    StorageClosed,
    TooManyOpenFiles,
    TransientStorageError,
    errno_word,
)
from peer.files.partial_content import PartialContent
from peer.swarm.fetching import events as swarm
from peer.workers import Workers

log = logging.getLogger(__name__)

STORAGE_RETRY_S = 5.0  # between two tries of a disk that is full, for instance


class WriterCallbacks(Protocol):
    """The transfer, as its writer uses it."""

    def handle(self, *events: swarm.DownloadEvent) -> None:
        """Hand events to the core."""

    def on_stored(self, device: DeviceKey | None, pieces: tuple[int, ...]) -> None:
        """Pieces are verified and written; ``device`` is None if no source sent them."""

    def damaged(self, pieces: tuple[int, ...]) -> None:
        """Held pieces turned out to be damaged on the disk."""

    def on_paused(self, reason: str | None) -> None:
        """The disk takes nothing because of ``reason``; None if it takes data again."""

    def on_retry(self) -> None:
        """The disk is tried again."""

    def fail(self, error: StorageError) -> None:
        """The disk will never take the rest."""


class PieceWriter:
    """Stores the pieces of ``part``. All methods and callbacks run in the event loop."""

    def __init__(
        self,
        part: PartialContent,
        workers: Workers,
        callbacks: WriterCallbacks,
        counts: DownloadCounts,
    ) -> None:
        self._part = part
        self._workers = workers
        self._callbacks = callbacks
        self._counts = counts
        self._checkpoints = Checkpoints(
            part,
            workers,
            on_synced=self._on_disk_ok,
            on_damaged=callbacks.damaged,
            on_failed=self.pause_for,
        )
        self._retry_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.local_bytes = 0
        """Bytes of pieces that no source gave."""
        self.pause_reason: str | None = None
        """The error of the disk for which it pauses."""

    def start(self) -> None:
        """Start the checkpoints."""
        self._checkpoints.start()

    def close(self) -> None:
        """Report nothing more; jobs under way end by themselves."""
        self._closed = True
        self._checkpoints.close()
        if self._retry_timer is not None:
            self._retry_timer.cancel()

    def store(self, runs: list[PieceRun]) -> None:
        """Verify and write pieces of sources, unless they are stored already."""
        stored: dict[DeviceKey, list[PieceRun]] = {}
        for run in runs:
            if run.stored is None:
                self._write(run)
            else:
                stored.setdefault(run.source, []).append(run)
        for device, runs_of_source in stored.items():
            self._hold(device, runs_of_source)

    def _write(self, run: PieceRun) -> None:
        device, pieces = run.source, run.pieces
        self._counts.waiting_bytes += len(run.data)

        def done(wrong: Any, error: BaseException | None) -> None:
            self._counts.waiting_bytes -= len(run.data)
            if self._closed:
                return
            if error is None:
                right = tuple(index for index in pieces if index not in wrong)
                self._on_stored(device, right, len(run.data))
                self._on_wrong(device, wrong)
            else:
                self._on_not_stored(device, pieces, error)

        self._workers.submit(done, self._part.write_run, pieces.start, len(pieces), run.data)

    def _hold(self, device: DeviceKey, runs: list[PieceRun]) -> None:
        """Hold stored pieces of one source. Reported together: each report costs a decision."""
        held: list[int] = []
        wrong: set[int] = set()
        failures: list[tuple[range, BaseException]] = []
        for run in runs:
            assert run.stored is not None
            right = [index for index in run.pieces if index not in run.stored.wrong]
            try:
                self._part.hold_stored(right, run.stored)
            except (StorageError, StorageClosed) as error:
                failures.append((run.pieces, error))
                continue
            held += right
            wrong |= run.stored.wrong.intersection(run.pieces)
        size = sum(self._part.manifest.piece_span(index)[1] for index in held)
        self._on_stored(device, tuple(held), size)
        self._on_wrong(device, wrong)
        for pieces, failure in failures:
            self._on_not_stored(device, pieces, failure)

    def make(self, pieces: range, like: int | None) -> None:
        """Write pieces that need no source: a run of zeros, or the copy of held piece ``like``."""

        def done(_: Any, error: BaseException | None) -> None:
            if self._closed:
                return
            if error is None:
                self.on_made(tuple(pieces))
                return
            if isinstance(error, DigestMismatch):
                self._callbacks.damaged(error.pieces)
            elif isinstance(error, StorageClosed):
                return
            elif not isinstance(error, StorageError | PieceNotHeld):
                log.error("piece %d could not be made", pieces.start, exc_info=error)
            self._callbacks.handle(*map(swarm.PieceNotMade, pieces))
            if isinstance(error, StorageError) and not isinstance(error, TooManyOpenFiles):
                self.pause_for(error)

        if like is None:
            self._workers.submit(done, self._part.make_zeros, pieces.start, len(pieces))
        else:
            self._workers.submit(done, self._part.copy_piece, pieces.start, like)

    def on_made(self, pieces: tuple[int, ...]) -> None:
        """Pieces that need no source are verified and written."""
        self._on_disk_ok()
        self._callbacks.on_stored(None, pieces)
        self._callbacks.handle(*map(swarm.PieceMade, pieces))
        self._checkpoints.wrote(self.count_local(pieces))

    def count_local(self, pieces: Iterable[int]) -> int:
        """Count pieces that no source gave; return their bytes."""
        size = sum(self._part.manifest.piece_span(index)[1] for index in pieces)
        self.local_bytes += size
        return size

    def _on_stored(self, device: DeviceKey, pieces: tuple[int, ...], size: int) -> None:
        if pieces:
            self._counts.pieces[VERIFIED] += len(pieces)
            self._counts.written_bytes += size
            self._on_disk_ok()
            self._callbacks.on_stored(device, pieces)
            self._callbacks.handle(*(swarm.PieceVerified(device, index) for index in pieces))
            self._checkpoints.wrote(size)

    def _on_wrong(self, device: DeviceKey, pieces: Set[int]) -> None:
        self._counts.pieces[CORRUPT] += len(pieces)
        for index in sorted(pieces):
            log.warning("%s sent a wrong piece %d and is banned", device.hex()[:16], index)
            self._callbacks.handle(swarm.PieceCorrupt(device, index))

    def _on_not_stored(self, device: DeviceKey, pieces: range, error: BaseException) -> None:
        if isinstance(error, StorageClosed):
            return
        if not isinstance(error, StorageError):
            first, last = pieces[0], pieces[-1]
            log.error("pieces %d to %d could not be stored", first, last, exc_info=error)
        self._callbacks.handle(
            *(swarm.PieceUnwritten(device, index, str(error)) for index in pieces)
        )
        if isinstance(error, StorageError) and not isinstance(error, TooManyOpenFiles):
            self.pause_for(error)

    # -- a disk that takes nothing --------------------------------------------------------------

    def pause_for(self, error: StorageError) -> None:
        """Pause with the reason and retry, if the error is transient; else report the failure."""
        self._counts.disk_errors[errno_word(error)] += 1
        self._callbacks.handle(swarm.Paused())
        self._part.invalidate()
        if not isinstance(error, TransientStorageError):
            self._callbacks.fail(error)
            return
        if self.pause_reason is None:
            self.pause_reason = str(error)
            self._callbacks.on_paused(self.pause_reason)
        if self._retry_timer is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._retry_timer = loop.call_later(STORAGE_RETRY_S, self._retry)

    def _retry(self) -> None:
        # Users still see the pause: only a successful write shows that the disk takes data.
        self._retry_timer = None
        self._checkpoints.sync(at_once=True)
        self._callbacks.on_retry()

    def _on_disk_ok(self) -> None:
        if self.pause_reason is not None and self._retry_timer is None:
            self.pause_reason = None
            self._callbacks.on_paused(None)
