"""Checkpoints: verified pieces are synced and journalled every few seconds.

Owns: the times of checkpoints, at most one at once, and of feeding the digest of the whole. Not
here: the consequences of a disk that fails (see peer.downloads.piece_writer).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from common.errors import StorageError
from peer.files.errors import DigestMismatch, StorageClosed
from peer.files.partial_content import PartialContent
from peer.workers import Workers

log = logging.getLogger(__name__)

CHECKPOINT_S = 2.0  # at most between two checkpoints
CHECKPOINT_BYTES = 64 * 1024 * 1024


class Checkpoints:
    """Checkpoints of one download.

    ``on_synced`` is called after a sync, ``on_damaged`` with pieces that were lost on the disk, and
    ``on_failed`` with the error of the disk. After a failure the next checkpoint retries all.
    """

    def __init__(
        self,
        part: PartialContent,
        workers: Workers,
        *,
        on_synced: Callable[[], None],
        on_damaged: Callable[[tuple[int, ...]], None],
        on_failed: Callable[[StorageError], None],
    ) -> None:
        self._part = part
        self._workers = workers
        self._on_synced = on_synced
        self._on_damaged = on_damaged
        self._on_failed = on_failed
        self._timer: asyncio.TimerHandle | None = None
        self._unsynced_bytes = 0
        self._syncing = False
        self._feeding_digest = False
        self._closed = False

    def start(self) -> None:
        """Begin the checkpoints, one every `CHECKPOINT_S`."""
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(CHECKPOINT_S, self._on_timer)

    def close(self) -> None:
        """Begin no more checkpoints; one under way ends by itself."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def wrote(self, size: int) -> None:
        """Count ``size`` bytes that are written and not synced."""
        self._unsynced_bytes += size
        if self._unsynced_bytes >= CHECKPOINT_BYTES:
            self.sync()

    def sync(self, *, at_once: bool = False) -> None:
        """Begin a checkpoint; ``at_once`` even if nothing was written since the last one."""
        if self._closed or self._syncing or not (self._unsynced_bytes or at_once):
            return
        synced_bytes = self._unsynced_bytes
        self._syncing, self._unsynced_bytes = True, 0

        def done(_: Any, error: BaseException | None) -> None:
            self._syncing = False
            match error:
                case StorageClosed():
                    pass
                case DigestMismatch(pieces=pieces):
                    self._on_damaged(pieces)
                case StorageError():
                    self._unsynced_bytes += synced_bytes or 1
                    self._on_failed(error)
                case None:
                    if synced_bytes:  # a sync of nothing proves nothing
                        self._on_synced()
                case _:
                    log.error("a checkpoint failed", exc_info=error)

        self._workers.submit(done, self._part.checkpoint)

    def _on_timer(self) -> None:
        self.sync()
        self._feed_digest()
        self.start()

    def _feed_digest(self) -> None:
        """Feed pieces from the disk to the digest of the whole."""
        if self._feeding_digest or self._closed:
            return
        self._feeding_digest = True

        def done(more: Any, error: BaseException | None) -> None:
            self._feeding_digest = False
            if error is None and more:
                self._feed_digest()

        self._workers.submit(done, self._part.advance_digest)
