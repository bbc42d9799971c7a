"""Homes of peers and trackers, and their secret keys, recognised so that none is ever shared.

A home is known by what lies in it, under whatever path and whether its process runs or not. Of the
homes that are known by their place (this peer's own and the usual ones) the files are known by
their inodes as well, so that neither a bind mount nor a hard link gives one away. A copy of a key
is known by its bytes. Not here: files that are merely private (``peer.files.private_files``).
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
_SIGNS_WANTED = 2  # beside a key file that is damaged, or not ours to read

Identity = tuple[int, int]
"""Device and inode."""


def identity(status: os.stat_result) -> Identity:
    """The identity of a file or folder, the same under each of its names."""
    return status.st_dev, status.st_ino


def home_in(folder_fd: int, names: Collection[str]) -> str | None:
    """The kind of home that the folder is, by the ``names`` in it; None for any other folder."""
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
    """The home in which a real path lies: its path and kind; None if it lies in none."""
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
    """The homes whose place is known, for one look at what is to be shared."""

    def __init__(self, homes: Iterable[str]) -> None:
        self._roots = [home for home in dict.fromkeys(homes) if os.path.isdir(home)]

    def holds(self, status: os.stat_result) -> bool:
        """Whether this is such a home or something in it, under another path."""
        if identity(status) in self._near:
            return True
        if status.st_nlink < 2 or not stat.S_ISREG(status.st_mode):
            return False
        return identity(status) in self._all

    @cached_property
    def _near(self) -> set[Identity]:
        """The homes and what lies in them directly: a bind mount shows one of these."""
        found: set[Identity] = set()
        for root in self._roots:
            with contextlib.suppress(OSError):
                found.add(identity(os.stat(root)))
                with os.scandir(root) as inside:
                    found.update(identity(entry.stat(follow_symlinks=False)) for entry in inside)
        return found

    @cached_property
    def _all(self) -> set[Identity]:
        """Every file of them: asked for only when a file has several names."""
        found: set[Identity] = set()
        for root in self._roots:
            for folder, _, names in os.walk(root):
                for name in names:
                    with contextlib.suppress(OSError):
                        found.add(identity(os.lstat(os.path.join(folder, name))))
        return found
