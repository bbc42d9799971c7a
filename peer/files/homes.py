"""Homes of peers and trackers, and their secret keys, recognised so that none is ever shared.

A home is recognised by its files, under any path, whether its process runs or not. The files of
known homes (this peer's own and the usual ones) are recognised by inode as well, so that neither a
bind mount nor a hard link gives one away. A copy of a key is recognised by its bytes. Not here:
files that are merely private (see peer.files.private_files).
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable
from functools import cached_property

from common.crypto.keys import PAIR_BYTES, is_pair
from peer.files import paths

_PEER_KEY, _TRACKER_KEY = "device.key", "curve.key"
_PEER_SIGNS = {"shares", "downloads", "manifests", "journals", "lock", "peer.toml", "control.sock"}
_TRACKER_SIGNS = {"tracker.db", "signing.key", "inbox.key", "lock", "link"}
_PEER_ALL = {"shares", "downloads", "manifests", "journals"}
_TRACKER_ALL = {"tracker.db", "signing.key", "inbox.key"}
_SIGNS = sorted({_PEER_KEY, _TRACKER_KEY} | _PEER_SIGNS | _TRACKER_SIGNS)
_SIGNS_WANTED = 2  # beside a key file that is damaged or not readable

Identity = tuple[int, int]
"""Device and inode."""


def identity(status: os.stat_result) -> Identity:
    """The identity of a file or folder, the same under each of its names."""
    return status.st_dev, status.st_ino


def home_in(folder_fd: int, names: Collection[str]) -> str | None:
    """The kind of home that a folder is, by the ``names`` in it; None for other folders."""
    found = set(names)
    for kind, key, signs, everything in (
        ("a peer", _PEER_KEY, _PEER_SIGNS, _PEER_ALL),
        ("a tracker", _TRACKER_KEY, _TRACKER_SIGNS, _TRACKER_ALL),
    ):
        if everything <= found:
            return kind
        if key in found and (len(signs & found) >= _SIGNS_WANTED or holds_pair(folder_fd, key)):
            return kind
    return None


def home_above(real_path: str) -> tuple[str, str] | None:
    """The home above a real path: its path and kind; None if there is none."""
    folder = os.path.dirname(real_path)
    while True:
        names = [name for name in _SIGNS if os.path.lexists(os.path.join(folder, name))]
        if names:
            with contextlib.suppress(OSError):
                fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    kind = home_in(fd, names)
                finally:
                    os.close(fd)
                if kind is not None:
                    return folder, kind
        if folder == os.path.dirname(folder):
            return None
        folder = os.path.dirname(folder)


def holds_pair(folder_fd: int, name: str) -> bool:
    """Whether the file is a key pair of a device or a tracker, by its bytes."""
    try:
        fd = paths.open_to_read(folder_fd, name)
    except OSError:
        return False
    try:
        return is_pair(os.pread(fd, PAIR_BYTES + 1, 0))
    except OSError:
        return False
    finally:
        os.close(fd)


class KnownHomes:
    """Known homes, for one walk over files to share."""

    def __init__(self, homes: Iterable[str]) -> None:
        self._roots = [home for home in dict.fromkeys(homes) if os.path.isdir(home)]

    def holds(self, status: os.stat_result) -> bool:
        """Whether this is a known home or a file in it, under another path."""
        if identity(status) in self._near:
            return True
        if status.st_nlink < 2 or not stat.S_ISREG(status.st_mode):
            return False
        return identity(status) in self._all

    @cached_property
    def _near(self) -> set[Identity]:
        """The homes and their direct entries: a bind mount shows one of these."""
        found: set[Identity] = set()
        for root in self._roots:
            with contextlib.suppress(OSError):
                found.add(identity(os.stat(root)))
                with os.scandir(root) as inside:
                    found.update(identity(entry.stat(follow_symlinks=False)) for entry in inside)
        return found

    @cached_property
    def _all(self) -> set[Identity]:
        """Every file of the homes, listed only when a file with several names is met."""
        found: set[Identity] = set()
        for root in self._roots:
            for folder, _, names in os.walk(root):
                for name in names:
                    with contextlib.suppress(OSError):
                        found.add(identity(os.lstat(os.path.join(folder, name))))
        return found
