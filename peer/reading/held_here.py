"""Pieces of a content that this device holds: those of a share, and of each running download.

Invariant: a piece is read out only after it was compared with its digest, just now.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from common.digests import Buffer
from common.ids import ContentId
from common.manifest import Manifest
from peer.downloads.job import DownloadJob
from peer.files.errors import DigestMismatch
from peer.serving.inventory import Inventory, Reader


def holders(
    inventory: Inventory, jobs: Iterable[DownloadJob], content: ContentId, piece: int
) -> Iterator[Reader]:
    """The readers of this device that hold a piece."""
    served = inventory.get(content)
    if served is not None and (served.have is None or piece in served.have):
        yield served.reader
    for job in jobs:
        part = job.part
        is_served = served is not None and served.reader is part
        if job.content == content and part is not None and not is_served and part.has(piece):
            yield part


def read_verified(reader: Reader, manifest: Manifest, piece: int) -> Buffer:
    """The bytes of a held piece. Blocks. Raises `StorageError`."""
    data = reader.read_run(piece, 1)
    if not manifest.verifies(piece, data):
        raise DigestMismatch(f"piece {piece} is damaged on the disk", (piece,))
    return data
