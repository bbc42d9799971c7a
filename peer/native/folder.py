"""Files of a folder, read, written and looked at by the compiled data path: many by one call.

Owns: the table that the library keeps of a content's entries. Invariant: each call stops at the
first file that needs anything unusual, and its caller continues there in Python. So links, refused
flags and full disks get the same checks and errors as without the library.
"""

from __future__ import annotations

import ctypes
import os
import struct
import weakref
from array import array
from collections.abc import Iterable, Sequence

from common.digests import Buffer
from common.manifest import Entry
from peer.native.library import address_of, library

Print = tuple[int, int, int, int]
"""Size, time of modification and of status change in nanoseconds, modulo 64 bits, and the inode."""

Status = tuple[int, int, int, int, int]
"""The same of an entry, and its mode: 0 if there is nothing, or if Python has to look."""

_PRINT = struct.Struct("=qqqQ")
_STATUS = struct.Struct("=qqqQI4x")
_NEVER = (1 << 64) - 1  # bytes of a file
_NO_PRINT: Print = (-1, 0, 0, 0)  # no file has it


class CompiledFolder:
    """Entries of one content. Thread safety: every method."""

    def __init__(self, handle: int, count: int) -> None:
        """Take over ``handle`` of the library, which is freed with this object."""
        found = library()
        assert found is not None, "the caller has a handle of it"
        self._call = found.call
        self._count = count
        self.handle = handle
        weakref.finalize(self, self._call.mt_folder_free, handle)

    def read(self, fd: int, offset: int, view: memoryview) -> int:
        """Fill ``view`` from ``offset`` of the stream, beneath the folder ``fd``.

        Return how many bytes were read, up to the end of a file.
        """
        with address_of(view) as address:
            done: int = self._call.mt_folder_read(self.handle, fd, offset, address, view.nbytes)
        return done

    def write(self, fd: int, offset: int, data: Buffer) -> tuple[int, bool]:
        """Write ``data`` at ``offset`` of the stream, beneath the folder ``fd``.

        Return how many bytes were written, up to the end of a file, and whether a file is new.
        """
        made = ctypes.c_bool()
        size = memoryview(data).nbytes
        with address_of(data) as address:
            done: int = self._call.mt_folder_write(self.handle, fd, offset, address, size, made)
        return done, made.value

    def look(self, fd: int) -> list[Status]:
        """The status of each entry beneath the folder ``fd``. No link is followed."""
        found = ctypes.create_string_buffer(self._count * _STATUS.size)
        self._call.mt_folder_look(self.handle, fd, found)
        return list(_STATUS.iter_unpack(found))


def compiled_folder(
    entries: Sequence[Entry],
    *,
    times: Sequence[int] = (),
    prints: Iterable[Print | None] | None = None,
    without: Iterable[int] = (),
    reserved_from: int = _NEVER,
) -> CompiledFolder | None:
    """The table for ``entries``; None if the library is not used, or cannot hold their names.

    ``times``: those that files get when their ends are written, in nanoseconds. ``prints``: what a
    file must have before and after it is read; None for an entry without one. ``without``: numbers
    of entries that are left to Python. ``reserved_from``: size of files that have their full size
    before they are written to.
    """
    found = library()
    if found is None or not entries:
        return None
    paths = [entry.path for entry in entries]
    for number in without:
        paths[number] = ""
    try:
        names = os.fsencode("\0".join(paths))
    except UnicodeEncodeError:
        return None
    handle = found.call.mt_folder_new(
        names,
        len(names),
        len(entries),
        array("Q", [entry.size for entry in entries]).tobytes(),
        array("q", times[: len(entries)]).tobytes() if times else None,
        None if prints is None else b"".join(_PRINT.pack(*(one or _NO_PRINT)) for one in prints),
        reserved_from,
    )
    return CompiledFolder(handle, len(entries)) if handle else None
