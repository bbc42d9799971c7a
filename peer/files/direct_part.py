"""Part of a download as the compiled data path uses it: the file to write to, and the digest.

Owns: when the fetching thread may write to the part. Not here: what it writes (see
peer.native.fetcher) and which pieces are held (see peer.files.partial_content).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from math import inf
from threading import Lock

from common.manifest import Manifest
from peer.files.errors import storage_error
from peer.files.partfile import PartFile, PartFiles
from peer.files.placed_digest import PlacedDigest
from peer.files.whole_digest import WholeDigest
from peer.native.digests import placing
from peer.native.fetcher import StoredRun, Target, new_places

log = logging.getLogger(__name__)

SLOW_S = 10.0  # for which a disk that was slow is left to the threads of Python, which may wait


class DirectPart:
    """The part of one download. Only a single file is written to directly.

    Thread safety: every method. ``_lock`` guards the target.
    """

    def __init__(
        self, manifest: Manifest, files: PartFiles, path: str, clock: Callable[[], float]
    ) -> None:
        self._manifest = manifest
        self._path = path
        self._files = files
        self.clock = clock
        self._library = placing(manifest.algorithm)
        self._places = bytearray() if self._library is None else new_places(manifest)
        self._lock = Lock()
        self._target: Target | None = None
        self._not_before = -inf

    def new_digest(
        self, held: Callable[[int], bool], read_into: Callable[[int, memoryview], bool]
    ) -> WholeDigest:
        """Return a digest of the whole that knows no piece."""
        if self._library is None:
            return WholeDigest(self._manifest, held, read_into, self.clock)
        return PlacedDigest(self._manifest, held, read_into, self._places, self.clock)

    def target(self) -> Target | None:
        """Return where pieces may be written from now on; None if Python must write them."""
        found = self._library
        if found is None or not found.moves_pieces or not isinstance(self._files, PartFile):
            return None
        with self._lock:
            if self._target is None and self._files.fd >= 0 and self._manifest.piece_count:
                try:
                    self._target = Target(found, self._manifest, self._files.fd, self._places)
                except OSError as error:
                    log.info("Python writes pieces: %s", error)
            return None if self.clock() < self._not_before else self._target

    def check(self, run: StoredRun) -> None:
        """Raise the `StorageError` of a run that could not be written.

        After a slow write, Python writes for `SLOW_S`. Why: one thread writes for all downloads.
        """
        if run.slow:
            self._not_before = self.clock() + SLOW_S
        if run.errno:
            error = OSError(run.errno, os.strerror(run.errno))
            raise storage_error(error, self._path, "write") from error

    def close(self) -> None:
        """Wait for a write that is under way, and have nothing written until `target` is called."""
        with self._lock:
            target, self._target = self._target, None
        if target is not None:
            target.close()
