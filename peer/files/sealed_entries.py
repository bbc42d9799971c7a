"""Checks of the files of a part against their entries: kind, size, permissions, and time.

Owns: also the time of a file that is not open. Not here: the other repairs (see
peer.files.partfolder).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Container, Sequence
from contextlib import suppress

from common.manifest import Entry, EntryKind
from peer.native.folder import CompiledFolder


def is_sealed(mode: int, size: int, entry: Entry) -> bool:
    """Whether a file with that mode and size is as ``entry`` says, but for its time."""
    executable = entry.kind is EntryKind.EXECUTABLE
    plain = stat.S_ISREG(mode) and entry.kind is not EntryKind.FOLDER
    return plain and size == entry.size and bool(mode & stat.S_IXUSR) == executable


def sealed_entries(
    compiled: CompiledFolder | None, fd: int, entries: Sequence[Entry], times: Sequence[int | None]
) -> Container[int]:
    """The numbers of files beneath the folder ``fd`` that are as they must be, as far as one look
    by the compiled data path tells."""
    if compiled is None:
        return ()
    times = times or (None,) * len(entries)
    return {
        number
        for number, (entry, time_ns, (size, mtime_ns, _, _, mode)) in enumerate(
            zip(entries, times, compiled.look(fd), strict=False)  # times of folders come after
        )
        if (time_ns is None or mtime_ns == time_ns) and is_sealed(mode, size, entry)
    }


def set_time_of(folder_fd: int, name: str, status: os.stat_result, time_ns: int) -> None:
    """Set the time of a file without opening it: there may be many thousands."""
    with suppress(OSError, OverflowError):
        times = (status.st_atime_ns, time_ns)
        os.utime(name, ns=times, dir_fd=folder_fd, follow_symlinks=False)
