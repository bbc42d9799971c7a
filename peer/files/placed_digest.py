"""Digest of the whole content from the places of its pieces, by the compiled data path.

Owns: which places are known, and for how long they can be trusted. No piece waits for an earlier
one, and none is read back unless the digest was begun anew (see peer.native.digests).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from common.digests import Buffer
from common.host.clock import monotonic
from common.manifest import Manifest
from peer.files.hashing import map_in_order, never_cancelled
from peer.files.whole_digest import WholeDigest
from peer.native.digests import PLACE_BYTES, place_at, whole_of_manifest


class PlacedDigest(WholeDigest):
    """A `WholeDigest` that keeps 32 bytes for each piece, in ``places``.

    Thread safety: every method; each place is written for one piece alone, and always with the
    place of the right bytes.
    """

    def __init__(
        self,
        manifest: Manifest,
        held: Callable[[int], bool],
        read_into: Callable[[int, memoryview], bool],
        places: bytearray,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(manifest, held, read_into, clock)
        self._places = places
        self._known = bytearray(manifest.piece_count)  # by piece: 1 if its place is known

    def feed(self, index: int, data: Buffer) -> None:
        """Take in piece ``index``, to be called before the piece counts as held."""
        if self.is_fresh:  # else the digest will not count
            self._place(index, data)
            self.mark((index,))

    def _place(self, index: int, data: Buffer) -> None:
        at = index * PLACE_BYTES
        offset = index * self._manifest.piece_length
        self._places[at : at + PLACE_BYTES] = place_at(data, offset)

    def mark(self, pieces: Iterable[int]) -> None:
        """The places of these pieces were written by the fetching thread."""
        if self._take_up():
            for index in pieces:
                self._known[index] = 1

    def advance(self, limit_bytes: int = 0) -> bool:
        """Return that nothing waits: pieces are digested as they come."""
        return False

    def finish(self, cancelled: Callable[[], bool] = never_cancelled) -> bytes | None:
        """The digest; None if bytes are missing from the disk, or if it is not trusted.

        Every piece must be held.
        """
        if not self.is_fresh:
            return None
        missing = [index for index, known in enumerate(self._known) if not known]
        found = True

        def read_back(index: int) -> bool:
            offset, length = self._manifest.piece_span(index)
            data = bytearray(length)
            if not self._read_into(offset, memoryview(data)):
                return False
            self._place(index, data)
            self.mark((index,))
            return True

        def in_order(_: int, there: bool) -> None:
            nonlocal found
            found = found and there

        if missing:
            map_in_order(missing, read_back, in_order, cancelled=cancelled)
        return whole_of_manifest(self._manifest, self._places) if found else None
