"""How a file looked when its bytes were known, to tell later whether they still are.

Owns the comparison and its record. Content is not looked at: a fingerprint that differs says that
the file must be digested again, one that agrees that it need not be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import msgspec

from peer.files.folder_identity import FolderIdentity

# Two changes within one tick of the kernel's clock leave the same time (10 ms at HZ=100).
TICK_S = 0.01
_HALF = 1 << 63


class Fingerprint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Size in bytes, the times of the last change of content and of status, and the inode.

    The time of status change cannot be set back by a program, so an edit that restores the other
    time is noticed too. It also changes when a file is renamed or linked, which costs a digest for
    nothing. The device's number is left out: it differs from mount to mount. Times beyond 64 bits
    (before 1677, after 2262) are kept modulo that: they are compared for being the same, no more.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        mtime_ns, ctime_ns = _in_64_bits(status.st_mtime_ns), _in_64_bits(status.st_ctime_ns)
        return cls(status.st_size, mtime_ns, ctime_ns, status.st_ino)

    def matches(self, status: os.stat_result) -> bool:
        return (
            _in_64_bits(status.st_mtime_ns) == self.mtime_ns
            and status.st_size == self.size
            and _in_64_bits(status.st_ctime_ns) == self.ctime_ns
            and status.st_ino == self.inode
        )


def _in_64_bits(time_ns: int) -> int:
    return (time_ns + _HALF) % (2 * _HALF) - _HALF


class SharedLocation(msgspec.Struct, frozen=True, array_like=True):
    """Where a content lies on this device, and how each entry of its manifest looked there.

    ``root`` is the absolute path as bytes, for not every path is text. Empty folders have no
    fingerprint. ``where`` tells the folder that it lies in from another one at the same path; it
    is None in records of earlier versions.
    """

    root: bytes
    fingerprints: tuple[Fingerprint | None, ...]
    where: FolderIdentity | None = None

    @property
    def path(self) -> str:
        return os.fsdecode(self.root)


def settle(fingerprints: Iterable[Fingerprint | None]) -> None:
    """Wait until a further edit of these files would show in their times.

    To be called before the bytes are read. It waits a tick of the clock at most, and only for files
    that were changed within the last one.
    """
    newest_ns = max((found.mtime_ns for found in fingerprints if found is not None), default=0)
    age_s = (time.time_ns() - newest_ns) / 1e9
    if 0 <= age_s < TICK_S:
        time.sleep(TICK_S - age_s)
