"""Targets of the links in a shared folder: found, bounded, and opened without races.

A target may lie in the shared folder or in a folder that its user named. Its real path is looked up
anew at each use, compared with these roots, and opened from `/` without following a link.
Invariant: whatever a link, or a folder on the way, becomes between lookup and opening, the opened
file lies beneath a root. Not here: which shares follow links (see peer.files.sharing_rule).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from peer.files import paths
from peer.files.folder_identity import Folder, why_moved

_R = TypeVar("_R")
_LINK_IN_THE_WAY = frozenset({errno.ELOOP, errno.ENOTDIR})


class LinkRoot(msgspec.Struct, frozen=True, array_like=True):
    """Folder that may hold link targets: its real path, and its identity if that was told."""

    root: bytes
    folder: Folder | None = None

    @property
    def path(self) -> str:
        return os.fsdecode(self.root)


def link_root(path: str) -> LinkRoot:
    """The root at a real path, as of now."""
    try:
        return LinkRoot(os.fsencode(path), Folder.at(path))
    except OSError:
        return LinkRoot(os.fsencode(path))


def why_root_away(roots: Sequence[LinkRoot]) -> str | None:
    """The reason why nothing is known about targets in ``roots``; None if all are there."""
    for root in roots:
        reason = None if root.folder is None else why_moved(root.path, root.folder)
        if reason is not None:
            return reason
    return None


def real_target(path: str, roots: Sequence[str]) -> str:
    """The real path that ``path`` leads to.

    Raises `OSError`: ENOENT if a link dangles, ELOOP if links form a loop, EXDEV if the target lies
    beneath none of ``roots``.
    """
    os.stat(path)  # the kernel gives up after 40 links, where the next step would take long
    real = os.path.realpath(path, strict=True)
    if root_above(real, roots) is None:
        raise OSError(errno.EXDEV, "the link leads out of the shared folder", path)
    return real


def root_above(real: str, roots: Sequence[str]) -> str | None:
    """The root that is ``real`` or holds it; None if none does."""
    for root in roots:
        if real == root or real.startswith(root if root.endswith("/") else f"{root}/"):
            return root
    return None


class EntryFolders:
    """Entries beneath the folder at ``path``, which is open as ``root_fd``.

    ``roots``: where links may lead; without any, a link on the way is an error.
    """

    def __init__(self, path: str, root_fd: int, roots: Sequence[str]) -> None:
        self._path = path
        self._roots = roots
        self._folders = paths.LastFolder(root_fd, path_only=True)

    def __enter__(self) -> EntryFolders:
        return self

    def __exit__(self, *_: object) -> None:
        self._folders.__exit__()

    def status(self, parts: Sequence[str]) -> os.stat_result:
        """The status of an entry, or of the target of its link. Raises `OSError`."""
        return self._reached(parts, _status)

    def open(self, parts: Sequence[str], open_at: Callable[[int, str], int]) -> int:
        """Open an entry, or the target of its link, by ``open_at(folder_fd, name)``."""
        return self._reached(parts, open_at)

    def _reached(self, parts: Sequence[str], do: Callable[[int, str], _R]) -> _R:
        *parents, name = parts
        try:
            return do(self._folders.at(parents), name)
        except OSError as error:
            if not self._roots or error.errno not in _LINK_IN_THE_WAY:
                raise
        real = real_target(os.path.join(self._path, *parts), self._roots)
        folder, name = os.path.split(real)
        fd = paths.open_real_folder(folder, path_only=True)
        try:
            return do(fd, name)
        finally:
            os.close(fd)


def _status(folder_fd: int, name: str) -> os.stat_result:
    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    if paths.is_link(status):
        raise OSError(errno.ELOOP, "it is a symbolic link", name)
    return status
