"""Identity of the folder that a content lies in: it tells a disk that is away from a deletion.

Owns the comparison. A file that is missing was deleted only if the folder that held it is there
still: the same inode on the same file system. A folder that is missing, that cannot be entered, or
that is another one (an empty mount point, another disk) says nothing of the file. What follows is
decided by the daemon.
"""

from __future__ import annotations

import errno
import os

import msgspec

from common.names import quoted
from peer.files import paths

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Folder(msgspec.Struct, frozen=True, array_like=True):
    """``fsid`` is the file system's own number, which stays from mount to mount where there is one;
    it is 0 where there is none, and the device's number decides."""

    device: int
    inode: int
    fsid: int

    @classmethod
    def at(cls, path: str) -> Folder:
        """The folder at an absolute path without links. Raises `OSError`."""
        fd = paths.reach_real_folder(path)
        try:
            status = os.fstat(fd)
            try:
                fsid = os.fstatvfs(fd).f_fsid
            except OSError:
                fsid = 0
            return cls(status.st_dev, status.st_ino, fsid)
        finally:
            os.close(fd)

    def same_disk(self, other: Folder) -> bool:
        """Whether both lie on the same file system, however often it was mounted since."""
        if self.fsid and other.fsid:
            return self.fsid == other.fsid
        return self.device == other.device

    def is_same(self, other: Folder) -> bool:
        """Whether both are the same folder."""
        return self.inode == other.inode and self.same_disk(other)


class FolderIdentity(msgspec.Struct, frozen=True, array_like=True):
    """The folder that a path lies in; and ``root``, what is at the path, if that is a folder too,
    for it may be a mount point itself."""

    folder: Folder
    root: Folder | None = None

    def agrees(self, other: FolderIdentity | None) -> bool:
        """Whether nothing differs by which a place is recognised."""
        if other is None or not self.folder.is_same(other.folder):
            return False
        if self.root is None or other.root is None:
            return self.root is other.root
        return self.root.is_same(other.root)


def whereabouts(path: str) -> FolderIdentity | None:
    """Those of an absolute path without links, as it is now; None if they cannot be told."""
    try:
        folder = Folder.at(os.path.dirname(path))
    except OSError:
        return None
    try:
        return FolderIdentity(folder, Folder.at(path))
    except OSError:
        return FolderIdentity(folder)


def why_away(path: str, where: FolderIdentity | None) -> str | None:
    """Why nothing can be said of what lies at ``path``; None if its place is there.

    ``where`` is what is remembered. Where nothing is, an empty folder is taken for a mount point
    without its disk.
    """
    parent = os.path.dirname(path)
    try:
        folder = Folder.at(parent)
    except OSError as error:
        return f"the folder {quoted(parent)} cannot be reached: {os.strerror(error.errno or 0)}"
    if where is None:
        return f"the folder {quoted(parent)} is empty" if _is_empty(parent) else None
    if not folder.is_same(where.folder):
        return f"another folder is at {quoted(parent)}; its disk may not be mounted"
    if where.root is None:
        return None
    try:
        root = Folder.at(path)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        return f"{quoted(path)} cannot be reached: {os.strerror(error.errno or 0)}"
    if not root.same_disk(where.root):
        return f"another folder is at {quoted(path)}; its disk may not be mounted"
    return None


def _is_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
