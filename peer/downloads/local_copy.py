"""Local copies: pieces that this device has in another place are copied, not fetched.

Runs on a thread of its own, at the speed of the disk. The part verifies every piece, like one from
a source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from peer.downloads.checkpoints import CHECKPOINT_BYTES
from peer.files.partial_content import PartialContent
from peer.serving.inventory import Reader


def runs_of(pieces: Iterable[int]) -> list[range]:
    """Ascending pieces as runs of adjacent ones."""
    found: list[range] = []
    for index in pieces:
        begin = found.pop().start if found and found[-1].stop == index else index
        found.append(range(begin, index + 1))
    return found


def copy_missing(
    part: PartialContent,
    pieces: Iterable[int],
    copy: Reader,
    may_go_on: Callable[[], bool],
) -> bool:
    """Copy those of ``pieces`` that ``part`` lacks; return False if ``may_go_on`` ended it early.

    Raises `StorageError`, or `IntegrityError` if the copy is damaged.
    """
    unsynced_bytes = 0
    for index in pieces:
        if not may_go_on():
            return False
        if not part.has(index):
            data = copy.read_run(index, 1)
            part.write_piece(index, data)
            unsynced_bytes += len(data)
        if unsynced_bytes >= CHECKPOINT_BYTES:
            part.checkpoint()
            unsynced_bytes = 0
    return True
