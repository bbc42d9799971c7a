"""Part of a download on the disk: the interface of both kinds, and the kind for a single file.

Owns: reserving, writing, reading and syncing (of a folder: see peer.files.partfolder). Not here:
verified, journalled and complete pieces (see peer.files.partial_content), which also prevents
closing while a call runs.

Thread safety: threads may write different ranges.
"""

from __future__ import annotations

import contextlib
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from threading import Lock
from typing import TypeAlias

from common.digests import Buffer
from common.host.atomic_files import is_refusal
from common.manifest import EntryKind, Manifest
from peer.files import syscalls
from peer.files.destination import Destination
from peer.files.errors import translated
from peer.files.optional_steps import optional, without
from peer.native.blocks import new_memory, read_block
from peer.native.folder import Status

Range: TypeAlias = tuple[int, int]
"""Offset and length in bytes."""

OpenRange: TypeAlias = tuple[int, int, int]
"""An open file, and an offset and length in bytes."""


class NotShared(Exception):
    """These blocks are not shared. ``some``: others of the call were; ``never``: the file system
    shares none of that file."""

    def __init__(self, *, some: bool = False, never: bool = False) -> None:
        super().__init__()
        self.some = some
        self.never = never


class PartFiles(ABC):
    """Interface of both kinds of part. ``fd`` is the file, or the folder at the top.

    ``times``: whether `seal` gives files and folders the times of the manifest.
    """

    def __init__(
        self, manifest: Manifest, destination: Destination, fd: int, *, times: bool = True
    ) -> None:
        self._manifest = manifest
        self._times = manifest.times if times else ()
        self._destination = destination
        self.fd = fd
        self.truncated = False
        """Found shorter than it was made, by a write that lengthened it again and left a gap."""
        self.sealed: Sequence[Status | None] = ()
        """Status of the entries that `seal` found as they must be. Empty before, or if unknown."""

    def _synced(self, fd: int, *, data_only: bool = False) -> None:
        """Sync a file or folder of the part by the means of its file system."""
        refused = syscalls.sync_file(fd, data_only=data_only)
        if refused is not None:
            step = "sync one folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync one file"
            without(self._destination.folder, step, refused, "the whole file system is synced")

    def _forgotten(self, fd: int, offset: int, length: int) -> None:
        with optional(self._destination.folder, "drop what it caches", "it is read as it is"):
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def _executable(self, fd: int) -> None:
        """Make a file executable for all who may read it, where permissions can be changed."""
        mode = os.fstat(fd).st_mode & 0o7777
        with optional(
            self._destination.folder, "change permissions", "executable files are left as they are"
        ):
            os.fchmod(fd, mode | (mode & 0o444) >> 2)

    @abstractmethod
    def reserve(self, solid: Iterable[Range]) -> None:
        """Reserve space for these ranges of the stream, ascending, as far as possible."""

    @abstractmethod
    def may_be_new(self) -> bool:
        """Whether it has the shape that `reserve` gives it, complete or not."""

    @abstractmethod
    def write(self, offset: int, data: Buffer) -> None:
        """Write ``data`` at ``offset`` of the stream. Raises `DiskFull`, `UnsafeDestination`, …"""

    @abstractmethod
    def share_blocks(self, offset: int, sources: Sequence[OpenRange]) -> None:
        """Let a range from ``offset`` of the stream share the blocks of ``sources``.

        Raises `NotShared`, before or after some of them, and `StorageError`.
        """

    @abstractmethod
    def leave_hole(self, offset: int, length: int) -> None:
        """Let a range that was never written read as zeros."""

    @abstractmethod
    def read_into(self, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from ``offset`` of the stream; return False if some bytes are missing."""

    def read(self, offset: int, length: int) -> Buffer | None:
        """Return ``length`` bytes from ``offset`` of the stream; None if some are missing."""
        data = new_memory(length)
        return data if self.read_into(offset, data) else None

    @abstractmethod
    def forget_cached(self, offset: int, length: int) -> None:
        """Make the next read or write of this range reach the disk.

        Why: after a failed write-back the system keeps the bytes, takes them for written, and does
        not always write them when they come a second time (ext4, into reserved space).
        """

    @abstractmethod
    def sync(self) -> None:
        """Return when everything written before the call, by any thread, is on the disk."""

    @abstractmethod
    def seal(self) -> list[Range]:
        """Make empty files and folders, set permissions, lengths and times, and sync.

        Return the ranges of the stream that are no longer there. They are never filled by
        lengthening a file; the part is not sealed then.
        """

    def close(self) -> None:
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


class PartFile(PartFiles):
    """The part of a share that is a single file."""

    def __init__(
        self, manifest: Manifest, destination: Destination, fd: int, *, times: bool = True
    ) -> None:
        super().__init__(manifest, destination, fd, times=times)
        self._writing = Lock()

    def reserve(self, solid: Iterable[Range]) -> None:
        with translated(self._destination.part_path, "reserve space for"):
            lengthen(self.fd, self._manifest.size)
            for offset, length in solid:
                if not syscalls.reserve(self.fd, offset, length):
                    break

    def may_be_new(self) -> bool:
        return os.fstat(self.fd).st_size in (0, self._manifest.size)

    def write(self, offset: int, data: Buffer) -> None:
        # One at a time, as the system does for a file anyway. Why: threads that wait in the system
        # keep their processors busy.
        with translated(self._destination.part_path, "write"), self._writing:
            self.truncated = self.truncated or os.fstat(self.fd).st_size < self._manifest.size
            write_all(self.fd, data, offset)

    def share_blocks(self, offset: int, sources: Sequence[OpenRange]) -> None:
        if len(sources) != 1:
            raise NotShared
        with translated(self._destination.part_path, "write"), self._writing:
            share_range(sources[0], self.fd, offset, self._manifest.size)

    def leave_hole(self, offset: int, length: int) -> None:
        pass  # the file has its full length from the start

    def read_into(self, offset: int, view: memoryview) -> bool:
        with translated(self._destination.part_path, "read"):
            return read_all(self.fd, view, offset)

    def read(self, offset: int, length: int) -> Buffer | None:
        with translated(self._destination.part_path, "read"):
            data = read_block(self.fd, length, offset)
        return data if len(data) == length else None

    def forget_cached(self, offset: int, length: int) -> None:
        with translated(self._destination.part_path, "read"):
            self._forgotten(self.fd, offset, length)

    def sync(self) -> None:
        with translated(self._destination.part_path, "sync"):
            self._synced(self.fd, data_only=True)

    def seal(self) -> list[Range]:
        with translated(self._destination.part_path, "finish"):
            found, size = os.fstat(self.fd).st_size, self._manifest.size
            if found < size:
                return [(found, size - found)]
            set_length(self.fd, size)
            if self._manifest.entries[0].kind is EntryKind.EXECUTABLE:
                self._executable(self.fd)
            if self._times:
                set_time(self.fd, self._times[0])
            self._synced(self.fd)
        return []


def pieces_in(stretches: Sequence[Range], piece_length: int) -> tuple[int, ...]:
    """The pieces with a byte in one of these ranges of the stream, ascending."""
    pieces = {
        index
        for offset, size in stretches
        for index in range(offset // piece_length, (offset + size - 1) // piece_length + 1)
    }
    return tuple(sorted(pieces))


def write_all(fd: int, data: Buffer, offset: int) -> None:
    """Write all of ``data`` at ``offset``, in as many calls as it takes."""
    count = os.pwrite(fd, data, offset)
    if count < len(data):
        view = memoryview(data)
        while count < len(view):
            count += os.pwrite(fd, view[count:], offset + count)


def share_range(source: OpenRange, fd: int, offset: int, size: int) -> None:
    """Let ``fd``, which gets ``size`` bytes, share the blocks of an open range from ``offset`` on;
    bytes before the first whole block and after the last one are copied.

    Raises `NotShared`.
    """
    source_fd, begin, length = source
    block = os.fstat(fd).st_blksize
    head = min(length, -begin % block)
    ends = begin + length == os.fstat(source_fd).st_size and offset + length == size
    shared = length - head if ends else (length - head) // block * block
    if begin % block != offset % block:
        raise NotShared
    if shared:
        try:
            syscalls.share_blocks(source_fd, begin + head, shared, fd, offset + head)
        except OSError as error:
            if is_refusal(error):
                raise NotShared(never=True) from error
            raise
    for start, stop in ((0, head), (head + shared, length)):
        if start < stop:
            write_all(fd, os.pread(source_fd, stop - start, begin + start), offset + start)


def read_all(fd: int, view: memoryview, offset: int) -> bool:
    """Fill ``view`` from ``offset``; return False if the file ends before."""
    done = 0
    while done < len(view):
        count = os.preadv(fd, [view[done:]], offset + done)
        if count == 0:
            return False
        done += count
    return True


def set_length(fd: int, size: int) -> None:
    """Set the length of a file to ``size`` bytes, unless it has it."""
    if os.fstat(fd).st_size != size:
        os.ftruncate(fd, size)


def lengthen(fd: int, size: int) -> None:
    """Make a new file, to which nothing else writes yet, ``size`` bytes long."""
    try:
        set_length(fd, size)
    except OSError as error:
        if not is_refusal(error) or os.fstat(fd).st_size > size:
            raise
        write_all(fd, b"\0", size - 1)


def set_time(fd: int, time_ns: int) -> None:
    """Set the time of modification of a file or folder, as far as its file system can hold it.

    Why: a time out of range is no reason to lose a download.
    """
    status = os.fstat(fd)
    if status.st_mtime_ns != time_ns:
        with contextlib.suppress(OSError, OverflowError):
            os.utime(fd, ns=(status.st_atime_ns, time_ns))
