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
from functools import cached_property, partial

from common.digests import Buffer
from common.errors import StorageError
from common.manifest import Entry, Segment, StreamLayout
from common.names import quoted
from peer.files import paths
from peer.files.errors import Away, ContentChanged, TooManyOpenFiles, storage_error
from peer.files.fingerprint import SharedLocation
from peer.files.link_targets import EntryFolders
from peer.files.open_files import HandleCache
from peer.native.blocks import new_memory, read_block
from peer.native.digests import PieceDigest, digest_at, digest_of_file
from peer.native.folder import CompiledFolder, compiled_folder

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
        """Return ``length`` bytes of the stream from ``offset``, in memory that nothing changes
        afterwards.

        Raises `ContentChanged`, `TooManyOpenFiles` or `IOFailed`.
        """
        kept = self._kept_at(offset, length)
        if kept is not None:
            return self._read_one(kept)
        whole = new_memory(length)
        self._read_many(offset, whole)
        return whole

    def read_into(self, offset: int, view: memoryview) -> bool:
        """Fill ``view`` from ``offset`` of the stream; raises the errors of `read`."""
        self._read_many(offset, view)
        return True

    def digest(self, offset: int, length: int) -> PieceDigest:
        """The digest of a piece at ``offset`` of the stream, by the compiled data path.

        Raises the errors of `read`.
        """
        kept = self._kept_at(offset, length)
        if kept is not None:
            return self._digest_one(kept, offset)
        data = bytearray(length)
        self._read_many(offset, memoryview(data))
        return digest_at(data, offset)

    def check(self) -> None:
        """Check every file without reading it; raises `ContentChanged`."""
        number = 0
        try:
            with self._folders() as (root_fd, folders):
                seen = () if self._table is None else self._table.look(root_fd)
                for number, expected in enumerate(self._prints):
                    if expected is None or (seen and seen[number][:4] == expected.fields):
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

    def _read_many(self, offset: int, view: memoryview) -> None:
        number = 0
        try:
            with self._folders() as (root_fd, folders):
                done = 0 if self._table is None else self._table.read(root_fd, offset, view)
                for segment in self._layout.stretch(offset + done, len(view) - done):
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

    def _kept_at(self, offset: int, length: int) -> Segment | None:
        """The only segment of a range, if its file is kept open."""
        if len(self._layout.entries_in(offset, length)) == 1:
            [segment] = self._layout.stretch(offset, length)
            return segment if self._is_kept(segment) else None
        return None

    @cached_property
    def _table(self) -> CompiledFolder | None:
        if self._is_file:
            return None
        prints = (None if one is None else one.fields for one in self._prints)
        return compiled_folder(self._entries, prints=prints)

    def _open_beneath(
        self, number: int, folders: EntryFolders, open_at: Callable[[int, str], int]
    ) -> int:
        return folders.open(self._parts(number), open_at)

    def _open(self, number: int) -> int:
        with self._folders() as (_, folders):
            return self._open_beneath(number, folders, paths.open_to_read)

    @contextmanager
    def _folders(self) -> Iterator[tuple[int, EntryFolders]]:
        """The folder at the top, open, and those beneath it."""
        root = os.path.dirname(self._path) if self._is_file else self._path
        with (
            self._handles.using(
                (self._owner, _ROOT), lambda: paths.open_real_folder(root, path_only=True)
            ) as root_fd,
            EntryFolders(root, root_fd, self._roots) as folders,
        ):
            yield root_fd, folders

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
