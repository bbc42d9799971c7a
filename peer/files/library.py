"""What this device shares, open for reading pieces.

Owns the pairing of a manifest with the place where its content lies. The record of what is shared
in which group, and the decision to withdraw it when it changed, belong to the daemon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from common.digests import Buffer
from common.manifest import Manifest, StreamLayout
from common.names import quoted
from peer.files import sharing
from peer.files.errors import Away, ContentChanged
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import why_away
from peer.files.hashing import never_cancelled
from peer.files.open_files import HandleCache
from peer.files.source_files import SourceFiles


class SharedContent:
    """A complete content on this device. Safe for threads; every method blocks.

    ``handles`` is shared by all contents of the process, so that the number of open files is
    bounded whatever is shared.
    """

    def __init__(self, manifest: Manifest, place: SharedLocation, handles: HandleCache) -> None:
        self.manifest = manifest
        self.place = place
        self._handles = handles
        self._layout = StreamLayout(manifest.entries, manifest.piece_length)
        self._files = self._opened(place)

    def read_run(self, first: int, count: int) -> Buffer:
        """The bytes of ``count`` pieces from ``first`` on, not changed by anybody afterwards.

        Raises `ContentChanged` when a file is not what it was (`recheck` tells whether its bytes
        still are), `OutOfHandles` for a shortage that passes, `IOFailed`.
        """
        return self._files.read(*self.manifest.run_span(first, count))

    def check(self) -> None:
        """Look at every file without reading it; raises `ContentChanged`, or `Away` if that says
        nothing of the files."""
        with self._unless_away():
            self._files.check()

    @contextmanager
    def _unless_away(self) -> Iterator[None]:
        try:
            yield
        except ContentChanged as error:
            path = self.place.path
            reason = why_away(path, self.place.where)
            if reason is None:
                raise
            raise Away(f"cannot read {quoted(path)}: {reason}") from error

    def recheck(
        self,
        *,
        on_progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] = never_cancelled,
    ) -> SharedLocation:
        """Digest everything again, and go on with how it looks by now.

        The new place is returned for the record. Raises `ContentChanged` if the bytes are others,
        `Cancelled`, `Away`.
        """
        with self._unless_away():
            place = sharing.recheck(
                self.manifest,
                self.place.path,
                on_progress=on_progress or sharing.no_progress,
                cancelled=cancelled,
            )
        before, self.place, self._files = self._files, place, self._opened(place)
        before.close()
        return place

    def close(self) -> None:
        """Close what is open."""
        self._files.close()

    def _opened(self, place: SharedLocation) -> SourceFiles:
        return SourceFiles(place, self.manifest.entries, self._layout, self._handles)
