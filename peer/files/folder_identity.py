"""Identity of a content's folder: it tells a disk that is away from a deletion.

A missing file was deleted only if its folder is still there: the same inode on the same file
system. A folder that is missing, that cannot be entered, or that is another one (an empty mount
point, another disk) proves nothing about the file.

Owns: the comparison. Not here: the consequences (see peer.shares and peer.downloads).
"""

from __future__ import annotations

import errno
import os

import msgspec

from common.names import quoted
from peer.files import paths

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Folder(msgspec.Struct, frozen=True, array_like=True):
    """Identity of one folder. ``fsid`` is the file system's own number, which is the same at every
    mount; where there is none it is 0, and the device number decides.
    """

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
        """Whether both lie on the same file system, also after another mount."""
        if self.fsid and other.fsid:
            return self.fsid == other.fsid
        return self.device == other.device

    def is_same(self, other: Folder) -> bool:
        """Whether both are the same folder."""
        return self.inode == other.inode and self.same_disk(other)


class FolderIdentity(msgspec.Struct, frozen=True, array_like=True):
    """The folder that holds a path; and ``root``, the folder at the path itself if it is one,
    because it may be a mount point.
    """

    folder: Folder
    root: Folder | None = None

    def agrees(self, other: FolderIdentity | None) -> bool:
        """Whether both are equal in everything by which a place is recognised."""
        if other is None or not self.folder.is_same(other.folder):
            return False
        if self.root is None or other.root is None:
            return self.root is other.root
        return self.root.is_same(other.root)


def identity_of(path: str) -> FolderIdentity | None:
    """The identity of an absolute path without links, as of now; None if it cannot be told."""
    try:
        folder = Folder.at(os.path.dirname(path))
    except OSError:
        return None
    try:
        return FolderIdentity(folder, Folder.at(path))
    except OSError:
        return FolderIdentity(folder)


def why_away(path: str, where: FolderIdentity | None) -> str | None:
    """The reason why nothing is known about the content at ``path``; None if its folder is there.

    ``where`` is the recorded identity. Without one, an empty folder is taken for a mount point
    without its disk.
    """
    parent = os.path.dirname(path)
    moved = why_moved(parent, None if where is None else where.folder)
    if moved is not None:
        return moved
    if where is None:
        return f"the folder {quoted(parent)} is empty" if _is_empty(parent) else None
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


def why_moved(path: str, before: Folder | None) -> str | None:
    """The reason why the folder at ``path`` cannot be reached, or is not ``before``."""
    try:
        folder = Folder.at(path)
    except OSError as error:
        return f"the folder {quoted(path)} cannot be reached: {os.strerror(error.errno or 0)}"
    if before is not None and not folder.is_same(before):
        return f"another folder is at {quoted(path)}; its disk may not be mounted"
    return None


def _is_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
