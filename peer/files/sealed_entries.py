"""Checks of the files of a part against their entries: kind, size, permissions, and time.

Owns: also the time of a file that is not open. Not here: the other repairs (see
peer.files.partfolder).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from common.manifest import Entry, EntryKind
from peer.native.folder import CompiledFolder, Status


def is_sealed(mode: int, size: int, entry: Entry) -> bool:
    """Whether a file with that mode and size is as ``entry`` says, but for its time."""
    executable = entry.kind is EntryKind.EXECUTABLE
    plain = stat.S_ISREG(mode) and entry.kind is not EntryKind.FOLDER
    return plain and size == entry.size and bool(mode & stat.S_IXUSR) == executable


def sealed_entries(
    compiled: CompiledFolder | None, fd: int, entries: Sequence[Entry], times: Sequence[int | None]
) -> Sequence[Status | None]:
    """The status of each entry beneath the folder ``fd`` that is a file and as it must be.

    None for all others, and for those that one look by the compiled data path does not tell.
    """
    if compiled is None:
        return (None,) * len(entries)
    times = times or (None,) * len(entries)
    found: list[Status | None] = []
    # Times of folders come after those of entries.
    for entry, time_ns, status in zip(entries, times, compiled.look(fd), strict=False):
        size, mtime_ns, _, _, mode = status
        sealed = (time_ns is None or mtime_ns == time_ns) and is_sealed(mode, size, entry)
        found.append(status if sealed else None)
    return found


def set_time_of(folder_fd: int, name: str, status: os.stat_result, time_ns: int) -> None:
    """Set the time of a file without opening it: there may be many thousands."""
    with suppress(OSError, OverflowError):
        times = (status.st_atime_ns, time_ns)
        os.utime(name, ns=times, dir_fd=folder_fd, follow_symlinks=False)
