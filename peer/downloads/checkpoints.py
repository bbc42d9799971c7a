"""Making what was verified last: synced and journalled at least every few seconds.

Owns when that is done, one worker at most, and when what is on the disk is taken into the digest of
the whole. What a disk that fails means for the download is its owner's to judge.
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

CHECKPOINT_S = 2.0  # what is verified is synced and journalled at least that often
CHECKPOINT_BYTES = 64 * 1024 * 1024


class Checkpoints:
    """Those of one download.

    ``on_synced`` is called when the disk took something, ``on_damaged`` with pieces that turned out
    not to be there, ``on_failed`` with why the disk took nothing: it is all tried again then.
    """

    def __init__(
        self,
        storage: PartialContent,
        workers: Workers,
        *,
        on_synced: Callable[[], None],
        on_damaged: Callable[[tuple[int, ...]], None],
        on_failed: Callable[[StorageError], None],
    ) -> None:
        self._storage = storage
        self._workers = workers
        self._on_synced = on_synced
        self._on_damaged = on_damaged
        self._on_failed = on_failed
        self._timer: asyncio.TimerHandle | None = None
        self._unsynced_bytes = 0
        self._syncing = False
        self._catching_up = False
        self._closed = False

    def start(self) -> None:
        """Look every `CHECKPOINT_S`."""
        if not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(CHECKPOINT_S, self._look)

    def close(self) -> None:
        """Look no more. What is under way ends by itself."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def wrote(self, size: int) -> None:
        """``size`` bytes more are on the disk, and not synced."""
        self._unsynced_bytes += size
        if self._unsynced_bytes >= CHECKPOINT_BYTES:
            self.sync()

    def sync(self, *, at_once: bool = False) -> None:
        """Make what was written last; ``at_once`` if there may be something left from before."""
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
                    if synced_bytes:  # nothing was shown by having had nothing to write
                        self._on_synced()
                case _:
                    log.error("a checkpoint failed", exc_info=error)

        self._workers.submit(done, self._storage.checkpoint)

    def _look(self) -> None:
        self.sync()
        self._catch_up()
        self.start()

    def _catch_up(self) -> None:
        """Take into the digest of the whole what is on the disk already."""
        if self._catching_up or self._closed:
            return
        self._catching_up = True

        def done(more: Any, error: BaseException | None) -> None:
            self._catching_up = False
            if error is None and more:
                self._catch_up()

        self._workers.submit(done, self._storage.advance_digest)
