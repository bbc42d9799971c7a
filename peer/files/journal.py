"""Resume journal: the pieces of a download that are certainly on the disk.

Owns: the file's format and durability. The journal is a hint and no proof: pieces that it names are
digested again before they count as held, so a wrong journal costs time, never correctness.

A header (magic, content id, their CRC-32) is followed by records of eight bytes: the index of a
piece, and the CRC-32 of header and index, big-endian. A record that a crash cut short is passed
over; any other fault makes the whole journal untrustworthy.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from common.ids import ContentId
from peer.files import syscalls
from peer.files.errors import StorageClosed, translated

MAGIC = b"MTJ1"
_HEADER = struct.Struct(">4s32sI")
_RECORD = struct.Struct(">II")
_READ_BYTES = 1 << 18  # a multiple of the record


class Found(NamedTuple):
    """Content of a journal. ``intact`` is False if it is missing, damaged or of another content."""

    pieces: tuple[int, ...]
    intact: bool
    missing: bool = False


class Journal:
    """An open journal. Thread safety: one thread writes at a time."""

    def __init__(self, path: str, content: ContentId) -> None:
        self._path = path
        self._fd = -1  # until `begin` or `resume`
        self._header = _header(content)
        self._seed = zlib.crc32(self._header)
        self._end = 0  # bytes; the rest was never acknowledged

    @classmethod
    def create(cls, path: str, content: ContentId) -> Journal:
        """A fresh journal, which replaces an existing one. The folder must exist."""
        journal = cls(path, content)
        journal.begin()
        return journal

    def begin(self) -> None:
        """Begin it, afresh if `resume` did not find an intact one."""
        with translated(self._path, "write the journal"):
            flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(self._path, flags, 0o600)
            try:
                _write_all(fd, self._header, 0)
                syscalls.sync_file(fd)
                _sync_folder_of(self._path)
            except BaseException:
                os.close(fd)
                raise
        self._fd, self._end = fd, len(self._header)

    @classmethod
    def resume(cls, path: str, content: ContentId, piece_count: int) -> tuple[Journal, Found]:
        """Open a journal, and return it with the pieces that it names, in any order, each once.

        A journal that is not intact stays as it is until `begin`.
        """
        journal = cls(path, content)
        with translated(path, "read the journal"):
            try:
                fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return journal, Found((), intact=False, missing=True)
            try:
                pieces, end = _read(fd, journal._header, journal._seed, piece_count)
            except BaseException:
                os.close(fd)
                raise
        if pieces is None:
            os.close(fd)
            return journal, Found((), intact=False)
        journal._fd, journal._end = fd, end
        return journal, Found(tuple(pieces), intact=True)

    def append(self, pieces: Iterable[int]) -> None:
        """Record pieces whose bytes were synced before this call.

        Returns when the records are on the disk. After `DiskFull` none of them counts, and the same
        call can be made again.
        """
        if self._fd < 0:
            raise StorageClosed("the download was closed")
        records = b"".join(_RECORD.pack(piece, _check(self._seed, piece)) for piece in pieces)
        if not records:
            return
        with translated(self._path, "write the journal"):
            _write_all(self._fd, records, self._end)
            syscalls.sync_file(self._fd, data_only=True)
        self._end += len(records)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def remove(self) -> None:
        """Close it and remove the file."""
        self.close()
        with translated(self._path, "remove the journal"), contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


def is_begun(path: str) -> bool:
    """Whether the journal at a path names any piece, damaged or not."""
    try:
        return os.stat(path, follow_symlinks=False).st_size > _HEADER.size
    except OSError:
        return False


def _header(content: ContentId) -> bytes:
    check = zlib.crc32(MAGIC + content)
    return _HEADER.pack(MAGIC, content, check)


def _check(seed: int, piece: int) -> int:
    return zlib.crc32(piece.to_bytes(4, "big"), seed)


def _read(
    fd: int, header: bytes, seed: int, piece_count: int
) -> tuple[dict[int, None] | None, int]:
    """The pieces (None: damaged), and the end of the last whole record."""
    if os.pread(fd, len(header), 0) != header:
        return None, 0
    pieces: dict[int, None] = {}
    end = len(header)
    while block := os.pread(fd, _READ_BYTES, end):
        whole = len(block) - len(block) % _RECORD.size
        for piece, check in _RECORD.iter_unpack(block[:whole]):
            if piece >= piece_count or check != _check(seed, piece):
                return None, 0
            pieces[piece] = None
        end += whole
        if whole < _READ_BYTES:
            break
    return pieces, end


def _write_all(fd: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count


def _sync_folder_of(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syscalls.sync_file(fd)
    finally:
        os.close(fd)
