"""Fingerprint of a file: its status when its bytes were digested.

Owns: the comparison and its record. Not here: content. A different fingerprint means that the file
must be digested again; an equal one means that it need not be.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import msgspec

from peer.files.folder_identity import FolderIdentity
from peer.files.link_targets import LinkRoot

# Two changes within one tick of the kernel's clock leave the same time (10 ms at HZ=100).
TICK_S = 0.01
_HALF = 1 << 63


class Fingerprint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Size in bytes, times of the last change of content and of status, and the inode.

    No program can set back the time of status change, so an edit that restores the other time is
    noticed too. A rename or a link changes it as well, and costs a needless digest. The device
    number is left out, because it differs from mount to mount. Times beyond 64 bits (before 1677,
    after 2262) are kept modulo that: they are only compared for equality.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Fingerprint:
        mtime_ns, ctime_ns = _in_64_bits(status.st_mtime_ns), _in_64_bits(status.st_ctime_ns)
        return cls(status.st_size, mtime_ns, ctime_ns, status.st_ino)

    @property
    def fields(self) -> tuple[int, int, int, int]:
        return self.size, self.mtime_ns, self.ctime_ns, self.inode

    def matches(self, status: os.stat_result) -> bool:
        return (
            _in_64_bits(status.st_mtime_ns) == self.mtime_ns
            and status.st_size == self.size
            and _in_64_bits(status.st_ctime_ns) == self.ctime_ns
            and status.st_ino == self.inode
        )


def _in_64_bits(time_ns: int) -> int:
    if -_HALF <= time_ns < _HALF:  # of many thousands of files: nearly always
        return time_ns
    return (time_ns + _HALF) % (2 * _HALF) - _HALF


class SharedLocation(msgspec.Struct, frozen=True, array_like=True):
    """The place of a content on this device, and the fingerprint of each entry of its manifest.

    ``root`` is the absolute path as bytes, because not every path is text. Empty folders have no
    fingerprint. ``where`` tells its folder from another one at the same path; it is None in records
    of earlier versions. ``links``: the folders that may hold link targets, the shared one among
    them; without any, no link is followed.
    """

    root: bytes
    fingerprints: tuple[Fingerprint | None, ...]
    where: FolderIdentity | None = None
    links: tuple[LinkRoot, ...] = ()

    @property
    def path(self) -> str:
        return os.fsdecode(self.root)

    @property
    def link_roots(self) -> tuple[str, ...]:
        return tuple(link.path for link in self.links)


def settle(fingerprints: Iterable[Fingerprint | None]) -> None:
    """Wait until a further edit of these files would change their times.

    To be called before the bytes are read. It waits at most one tick of the clock, and only for
    files that were changed within the last one.
    """
    newest_ns = max((found.mtime_ns for found in fingerprints if found is not None), default=0)
    age_s = (time.time_ns() - newest_ns) / 1e9
    if 0 <= age_s < TICK_S:
        time.sleep(TICK_S - age_s)
