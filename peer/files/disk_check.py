"""Digests of complete content, read from the disk: the pieces and the whole.

Not here: which pieces are held, and the digest of the whole that grows with them (see
peer.files.partial_content and peer.files.whole_digest).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from common.manifest import Manifest
from peer.files.destination import Destination
from peer.files.errors import ContentChanged, UnsafeDestination
from peer.files.hashing import ReadInto, hash_pieces, never_cancelled
from peer.files.partfile import PartFile
from peer.files.partfolder import PartFolder
from peer.files.sharing import location_of


def examine(
    manifest: Manifest, read_into: ReadInto, cancelled: Callable[[], bool] = never_cancelled
) -> tuple[tuple[int, ...], bytes]:
    """The pieces that differ from their digests, and the digest of the whole."""
    bad: list[int] = []
    whole = manifest.algorithm.new()

    def in_order(index: int, view: memoryview, digest: bytes | None) -> None:
        whole.update(view)
        if digest != manifest.piece_digest(index):
            bad.append(index)

    pieces = range(manifest.piece_count)
    hash_pieces(
        pieces, manifest.piece_span, read_into, manifest.algorithm, in_order, cancelled=cancelled
    )
    return tuple(bad), whole.digest()


def wrong_pieces(
    manifest: Manifest,
    pieces: Sequence[int],
    read_into: ReadInto,
    cancelled: Callable[[], bool] = never_cancelled,
) -> tuple[int, ...]:
    """Return the pieces that differ from their digests."""
    bad: list[int] = []

    def in_order(index: int, _: memoryview, digest: bytes | None) -> None:
        if digest != manifest.piece_digest(index):
            bad.append(index)

    hash_pieces(
        pieces, manifest.piece_span, read_into, manifest.algorithm, in_order, cancelled=cancelled
    )
    return tuple(bad)


def is_content(manifest: Manifest, destination: Destination, name: str) -> bool:
    """Whether the content stands at ``name`` in the folder, by its digests.

    Why: some file systems report the looks of a file late, so they prove nothing.
    """
    files = PartFolder if manifest.is_folder else PartFile
    try:
        found = files(manifest, destination, destination.open(name))
    except UnsafeDestination:
        return False
    try:
        location_of(manifest, os.path.join(destination.folder, name))
        bad, _ = examine(manifest, found.read_into)
    except ContentChanged:
        return False
    finally:
        found.close()
    return not bad
