"""Bytes of other files in the pieces of a selection: one file of the part holds them.

Why: a piece is verified and served as a whole, and no file outside the selection is made. Owns: the
name of that file, and the place of each byte in it. A slot of one piece length for each piece that
the selection shares with other files.
"""

from __future__ import annotations

from bisect import bisect_left

from common.manifest import Manifest, Segment
from common.names import fold_name
from peer.files.selection import Selection

REST = -1
"""Number of the file in place of an entry's."""
_NAME = ".rest"


class RestOfPieces:
    """The file for one selection; of no use without one."""

    def __init__(self, manifest: Manifest, selection: Selection | None) -> None:
        self._length = manifest.piece_length
        self._entries = frozenset[int]() if selection is None else selection.entries
        self._shared = [] if selection is None else selection.shared_pieces()
        self.name = _NAME
        if selection is not None:
            taken = {fold_name(entry.path.split("/", 1)[0]) for entry in manifest.entries}
            while fold_name(self.name) in taken:
                self.name += "-"

    def put(self, segments: list[Segment], offset: int) -> list[Segment]:
        """Put ``segments`` of other files, the first at ``offset`` of the stream, into the file."""
        found = []
        for segment in segments:
            if segment.entry in self._entries:
                found.append(segment)
            else:
                found.append(Segment(REST, self._place(offset), segment.length))
            offset += segment.length
        return found

    def _place(self, offset: int) -> int:
        """The place of a byte of the stream; behind all others for a piece that is not shared."""
        piece = offset // self._length
        slot = bisect_left(self._shared, piece)
        if slot == len(self._shared) or self._shared[slot] != piece:
            slot = len(self._shared)
        return slot * self._length + offset % self._length
