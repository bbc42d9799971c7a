"""Pieces that this device has elsewhere already, copied rather than fetched.

On a thread of its own: it reads and writes as fast as the disk goes. Every piece is verified by the
storage that takes it, like one from a stranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from peer.downloads.checkpoints import CHECKPOINT_BYTES
from peer.files.partial_content import PartialContent
from peer.serving.inventory import Reader


def stretches(pieces: Iterable[int]) -> list[range]:
    """Ascending pieces as stretches of adjacent ones."""
    found: list[range] = []
    for index in pieces:
        begin = found.pop().start if found and found[-1].stop == index else index
        found.append(range(begin, index + 1))
    return found


def copy_missing(
    storage: PartialContent,
    pieces: Iterable[int],
    copy: Reader,
    may_go_on: Callable[[], bool],
) -> bool:
    """Copy what ``storage`` lacks of ``pieces``; False when ``may_go_on`` said no before the end.

    Raises `StorageError`, or `IntegrityError` for a copy that is not what it should be.
    """
    unsynced_bytes = 0
    for index in pieces:
        if not may_go_on():
            return False
        if not storage.has(index):
            data = copy.read_run(index, 1)
            storage.write_piece(index, data)
            unsynced_bytes += len(data)
        if unsynced_bytes >= CHECKPOINT_BYTES:
            storage.checkpoint()
            unsynced_bytes = 0
    return True
