"""Shared contents, open for reading pieces.

Owns: the pairing of a manifest with the place of its content. Not here: records of shares, and the
withdrawal of changed ones (see peer.shares).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TypeVar

from common.digests import Buffer
from common.manifest import Manifest, StreamLayout
from common.names import quoted
from peer.files import sharing
from peer.files.errors import Away, ContentChanged
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import why_away
from peer.files.hashing import never_cancelled
from peer.files.link_targets import why_root_away
from peer.files.open_files import HandleCache
from peer.files.source_files import SourceFiles

R = TypeVar("R")


class SharedContent:
    """A complete content on this device. Thread safety: every method; each blocks.

    ``handles`` is shared by all contents of the process, so that the number of open files is
    bounded.
    """

    def __init__(self, manifest: Manifest, place: SharedLocation, handles: HandleCache) -> None:
        self.manifest = manifest
        self.place = place
        self._handles = handles
        self._layout = StreamLayout(manifest.entries, manifest.piece_length)
        self._files = self._opened(place)
        self._moving = RLock()

    def read_run(self, first: int, count: int) -> Buffer:
        """The bytes of ``count`` pieces from ``first`` on, in memory that nothing changes
        afterwards.

        Raises `ContentChanged` if a file was changed (`recheck` tells whether its bytes were),
        `TooManyOpenFiles` for a transient shortage, and `IOFailed`.
        """
        span = self.manifest.run_span(first, count)
        return self._unmoved(lambda files: files.read(*span))

    def check(self) -> None:
        """Check every file without reading it.

        Raises `ContentChanged`, or `Away` if the folder cannot be reached.
        """
        with self._unless_away():
            self._unmoved(lambda files: files.check())

    def _unmoved(self, do: Callable[[SourceFiles], R]) -> R:
        """The result of ``do``, once more if the files were moved meanwhile."""
        files = self._files
        try:
            return do(files)
        except (ContentChanged, Away):
            with self._moving:
                now = self._files
            if now is files:
                raise
            return do(now)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let reads that find their files moved wait until the end of the block."""
        with self._moving:
            yield

    def move(self, place: SharedLocation) -> None:
        """Read from ``place`` from now on: the same files, or a verified copy of them."""
        with self._moving:
            before, self.place, self._files = self._files, place, self._opened(place)
        before.close()

    @contextmanager
    def _unless_away(self) -> Iterator[None]:
        try:
            yield
        except ContentChanged as error:
            path = self.place.path
            reason = why_away(path, self.place.where) or why_root_away(self.place.links)
            if reason is None:
                raise
            raise Away(f"cannot read {quoted(path)}: {reason}") from error

    def recheck(
        self,
        *,
        on_progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] = never_cancelled,
    ) -> SharedLocation:
        """Digest everything again, and return the new place for the record.

        Raises `ContentChanged` if the bytes differ, `Cancelled`, `Away`.
        """
        with self._unless_away():
            place = sharing.recheck(
                self.manifest,
                self.place.path,
                self.place.links,
                on_progress=on_progress or sharing.no_progress,
                cancelled=cancelled,
            )
        before, self.place, self._files = self._files, place, self._opened(place)
        before.close()
        return place

    def close(self) -> None:
        """Close the open files."""
        self._files.close()

    def _opened(self, place: SharedLocation) -> SourceFiles:
        return SourceFiles(place, self.manifest.entries, self._layout, self._handles)
