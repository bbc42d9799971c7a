"""Missing folders of a destination: made for a download, removed again with it.

Owns: which folders are missing, making and removing them. Not here: the record that names them (see
peer.records) and the destination itself (see peer.files.destination).

Invariant: every step starts from the handle of the folder above and follows no link.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from common.errors import StorageError
from common.names import quoted
from peer.files import paths, syscalls
from peer.files.errors import UnsafeDestination, translated


def missing_folders(folder: str) -> tuple[str, list[str]]:
    """The real path of an absolute ``folder``, and those of its folders that are missing.

    The missing ones are real paths, the uppermost first. Raises `UnsafeDestination` if a file or a
    dangling link stands in the way.
    """
    tail: list[str] = []
    there = folder
    while not os.path.isdir(there):
        if os.path.lexists(there):
            raise UnsafeDestination(
                f"{quoted(there)} is no folder", "choose another place, or another name for it"
            )
        there, name = os.path.split(there)
        tail.insert(0, name)
    real = os.path.realpath(there)
    missing: list[str] = []
    for name in tail:
        real = os.path.join(real, name)
        missing.append(real)
    return real, missing


def make_folders(missing: Sequence[str]) -> None:
    """Make ``missing``, as `missing_folders` returns them; they are on the disk on return.

    Folders that are there by now are used. Raises `StorageError`; nothing of it is left then.
    """
    if not missing:
        return
    try:
        with translated(missing[-1], "create"):
            _make(missing)
    except StorageError:
        remove_folders(missing)
        raise


def _make(missing: Sequence[str]) -> None:
    fd = paths.open_real_folder(os.path.dirname(missing[0]))
    try:
        for path in missing:
            below = paths.open_folder(fd, [os.path.basename(path)], make=True)
            syscalls.sync_file(fd)
            os.close(fd)
            fd = below
    finally:
        os.close(fd)


def remove_folders(made: Sequence[str]) -> None:
    """Remove the folders that `make_folders` made, the lowest first, as far as they are empty."""
    with contextlib.suppress(OSError):
        for path in reversed(made):
            folder, name = os.path.split(path)
            if not os.path.lexists(path):
                continue
            fd = paths.open_real_folder(folder)
            try:
                os.rmdir(name, dir_fd=fd)
            finally:
                os.close(fd)
