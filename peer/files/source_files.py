"""Files of a shared content, read in place, with checks that they are unchanged.

Owns: reading ranges of the stream from one file or a folder, with a comparison of fingerprints
before and after each read. Not here: the consequences of a change (see peer.shares). Files are
never mapped into memory: truncating one would end the process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from common.digests import Buffer
from common.errors import StorageError
from common.manifest import Entry, Segment, StreamLayout
from common.names import quoted
from peer.files import paths
from peer.files.errors import Away, ContentChanged, TooManyOpenFiles, storage_error
from peer.files.fingerprint import SharedLocation
from peer.files.link_targets import EntryFolders
from peer.files.open_files import HandleCache
from peer.native.blocks import read_block
from peer.native.digests import PieceDigest, digest_at, digest_of_file

_ROOT = -1  # beside the numbers of entries in the cache: the folder from which everything is opened
_HINT = "share it again if it should be offered as it is"


class SourceFiles:
    """Entries of one content at one place. Thread safety: every method."""

    def __init__(
        self,
        place: SharedLocation,
        entries: tuple[Entry, ...],
        layout: StreamLayout,
        handles: HandleCache,
    ) -> None:
        self._path = place.path
        self._is_file = len(entries) == 1 and not entries[0].path
        self._roots = place.link_roots
        self._prints = place.fingerprints
        self._entries = entries
        self._layout = layout
        self._handles = handles
        self._owner = object()

    def read(self, offset: int, length: int) -> Buffer:
        """``length`` bytes of the stream from ``offset``, in memory that nothing changes
        afterwards.

        Raises `ContentChanged`, `TooManyOpenFiles` or `IOFailed`.
        """
        segments = self._layout.stretch(offset, length)
        if len(segments) == 1 and self._is_kept(segments[0]):
            return self._read_one(segments[0])
        whole = bytearray(length)
        self._read_many(segments, memoryview(whole))
        return whole

    def read_into(self, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from ``offset`` of the stream; raises the errors of `read`."""
        self._read_many(self._layout.stretch(offset, len(view)), view)
        return True

    def digest(self, offset: int, length: int) -> PieceDigest:
        """The digest of a piece at ``offset`` of the stream, by the compiled data path.

        Raises the errors of `read`.
        """
        segments = self._layout.stretch(offset, length)
        if len(segments) == 1 and self._is_kept(segments[0]):
            return self._digest_one(segments[0], offset)
        data = bytearray(length)
        self._read_many(segments, memoryview(data))
        return digest_at(data, offset)

    def check(self) -> None:
        """Check every file without reading it; raises `ContentChanged`."""
        number = 0
        try:
            with self._folders() as folders:
                for number, expected in enumerate(self._prints):
                    if expected is None:
                        continue
                    if not expected.matches(folders.status(self._parts(number))):
                        raise self._changed(number)
        except OSError as error:
            raise self._translated(error, number) from error

    def close(self) -> None:
        """Close the open files; a later read opens them again."""
        self._handles.close_owner(self._owner)

    def _read_one(self, segment: Segment) -> Buffer:
        number, offset, length = segment
        try:
            with self._handles.using((self._owner, number), lambda: self._open(number)) as fd:
                self._compare(number, fd)
                data = read_block(fd, length, offset)
                self._compare(number, fd)
        except OSError as error:
            raise self._translated(error, number) from error
        if len(data) != length:
            raise self._changed(number)
        return data

    def _digest_one(self, segment: Segment, place: int) -> PieceDigest:
        number, offset, length = segment
        try:
            with self._handles.using((self._owner, number), lambda: self._open(number)) as fd:
                self._compare(number, fd)
                found = digest_of_file(fd, offset, length, place)
                self._compare(number, fd)
        except OSError as error:
            raise self._translated(error, number) from error
        if found is None:
            raise self._changed(number)
        return found

    def _read_many(self, segments: list[Segment], view: memoryview) -> None:
        number = segments[0].entry if segments else 0
        done = 0
        try:
            with self._folders() as folders:
                for segment in segments:
                    number = segment.entry
                    part = view[done : done + segment.length]
                    done += segment.length
                    # A file that spans pieces stays open for the next one. Small files are opened
                    # for each read:
                    # there may be thousands in a second.
                    if self._is_kept(segment):
                        opener = partial(self._open_beneath, number, folders, paths.open_to_read)
                        with self._handles.using((self._owner, number), opener) as fd:
                            self._fill(segment, fd, part)
                        continue
                    # Anything may stand there by now: compare it before reading.
                    opener = partial(self._open_beneath, number, folders, paths.open_anything)
                    fd = self._handles.open_evicting(opener)
                    try:
                        self._fill(segment, fd, part)
                    finally:
                        os.close(fd)
        except OSError as error:
            raise self._translated(error, number) from error

    def _fill(self, segment: Segment, fd: int, view: memoryview) -> None:
        self._compare(segment.entry, fd)
        count = os.preadv(fd, [view], segment.offset)
        self._compare(segment.entry, fd)
        if count != segment.length:
            raise self._changed(segment.entry)

    def _is_kept(self, segment: Segment) -> bool:
        return self._is_file or self._entries[segment.entry].size > segment.length

    def _open_beneath(
        self, number: int, folders: EntryFolders, open_at: Callable[[int, str], int]
    ) -> int:
        return folders.open(self._parts(number), open_at)

    def _open(self, number: int) -> int:
        with self._folders() as folders:
            return self._open_beneath(number, folders, paths.open_to_read)

    @contextmanager
    def _folders(self) -> Iterator[EntryFolders]:
        root = os.path.dirname(self._path) if self._is_file else self._path
        with (
            self._handles.using(
                (self._owner, _ROOT), lambda: paths.open_real_folder(root, passing=True)
            ) as root_fd,
            EntryFolders(root, root_fd, self._roots) as folders,
        ):
            yield folders

    def _parts(self, number: int) -> list[str]:
        path = self._entries[number].path
        return path.split("/") if path else [os.path.basename(self._path)]

    def _compare(self, number: int, fd: int) -> None:
        expected = self._prints[number]
        if expected is None or not expected.matches(os.fstat(fd)):
            raise self._changed(number)

    def _changed(self, number: int) -> ContentChanged:
        return ContentChanged(f"{quoted(self._path_of(number))} was changed", _HINT)

    def _translated(self, error: OSError, number: int) -> StorageError:
        return why_unread(error, self._path_of(number))

    def _path_of(self, number: int) -> str:
        path = self._entries[number].path
        return os.path.join(self._path, path) if path else self._path


# Errors that show that something else than the content stands at its path, or nothing.
_NOT_IT = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENXIO,
        errno.ENAMETOOLONG,
        errno.EXDEV,
    }
)


def why_unread(error: OSError, path: str) -> StorageError:
    """The error for a shared file that could not be opened: it was changed, a shortage passes, a
    device failed, or its folder cannot be reached.
    """
    found = storage_error(error, path, "read")
    if error.errno in _NOT_IT:
        return ContentChanged(found.message, _HINT)
    if isinstance(found, TooManyOpenFiles) or error.errno == errno.EIO:
        return found
    return Away(found.message, "it is served again when it can be read")
