"""Part of a folder: many files that are written as one stream.

Owns: which of its files are open, and which need a sync. Files and folders are made with their
first byte, each from the handle of the folder above it, so that a link planted among them leads
nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import TypeAlias

from common.digests import Buffer
from common.host.atomic_files import is_refusal
from common.limits import MIB
from common.manifest import Entry, EntryKind, Manifest, Segment, StreamLayout, folders_of
from peer.files import paths, syscalls
from peer.files.destination import Destination
from peer.files.errors import storage_error, translated
from peer.files.open_files import HandleCache
from peer.files.partfile import (
    NotShared,
    OpenRange,
    PartFiles,
    Range,
    lengthen,
    read_all,
    set_length,
    set_time,
    share_range,
    write_all,
)
from peer.files.rest_of_pieces import REST, RestOfPieces
from peer.files.sealed_entries import is_sealed, sealed_entries, set_time_of
from peer.files.selection import Selection
from peer.native.folder import CompiledFolder, compiled_folder

RESERVED_FROM_BYTES = 16 * MIB  # below, making all the files first would delay the start
OPEN_FILES_MAX = 32
SYNCED_SINGLY_MAX = 4  # files; a sync of the file system costs about what one file costs (ext4)

_Use: TypeAlias = Callable[[int, Segment], None]
"""Action on the open file of a segment."""


class _CutOff(Exception):
    """A file is shorter than the range to read."""


class PartFolder(PartFiles):
    """Folder that is being downloaded. ``fd``: its top; ``found``: an earlier process made it.

    Of a ``selection`` no other file is made. Bytes of other files in its pieces go to one file of
    the part, which `drop_rest` removes.
    """

    def __init__(
        self,
        manifest: Manifest,
        destination: Destination,
        fd: int,
        *,
        times: bool = True,
        found: bool = False,
        selection: Selection | None = None,
    ) -> None:
        super().__init__(manifest, destination, fd, times=times)
        self._selection = selection
        self._rest = RestOfPieces(manifest, selection)
        self._layout = StreamLayout(manifest.entries, manifest.piece_length)
        self._compiled = self._table()
        self._handles = HandleCache(OPEN_FILES_MAX)
        self._lock = Lock()  # guards the next three
        # It is unknown which of the found files, names and permissions are on the disk: a file with
        # the right length that looks sealed may be in memory only.
        self._unknown = found
        self._written: set[int] = set()  # files to sync
        self._made: set[int] = set()  # entries whose names need a sync

    def reserve(self, solid: Iterable[Range]) -> None:
        if all(entry.size < RESERVED_FROM_BYTES for entry in self._manifest.entries):
            return
        with self._folders() as folders:
            for offset, length in solid:
                for segment in self._stretch(offset, length):
                    if self._size_of(segment) >= RESERVED_FROM_BYTES:
                        self._reserve(segment, folders)

    def _reserve(self, segment: Segment, folders: paths.LastFolder) -> None:
        with translated(self._path_of(segment.entry), "reserve space for"):
            fd = self._open(segment.entry, folders)
            try:
                lengthen(fd, self._size_of(segment))
                syscalls.reserve(fd, segment.offset, segment.length)
            finally:
                os.close(fd)

    def may_be_new(self) -> bool:
        reserved = {
            entry.path: (0, entry.size)
            for entry in self._manifest.entries
            if entry.kind is not EntryKind.FOLDER and entry.size >= RESERVED_FROM_BYTES
        }
        with translated(self._destination.part_path, "look at"):
            for folder, _, names, fd in os.fwalk(".", dir_fd=self.fd):
                for name in names:
                    sizes = reserved.get(os.path.normpath(os.path.join(folder, name)), ())
                    if os.stat(name, dir_fd=fd, follow_symlinks=False).st_size not in sizes:
                        return False
        return True

    def write(self, offset: int, data: Buffer) -> None:
        view = memoryview(data)
        done = 0
        if self._compiled is not None:
            done, made = self._compiled.write(self.fd, offset, view)
            self._note_written(offset, done, made)

        def put(fd: int, segment: Segment) -> None:
            nonlocal done
            size = self._size_of(segment)
            if size >= RESERVED_FROM_BYTES and os.fstat(fd).st_size < size:
                self.truncated = True
            write_all(fd, view[done : done + segment.length], segment.offset)
            done += segment.length
            if self._times and segment.offset + segment.length == size:
                # By the handle, on this thread: `seal` then needs only a look at the file.
                set_time(fd, self._times[segment.entry])

        if done < len(view):
            self._write_each(offset + done, len(view) - done, put)

    def _note_written(self, offset: int, length: int, made: bool) -> None:
        """The compiled data path has written a range, and with ``made`` has made files for it."""
        if length:
            entries = self._layout.entries_in(offset, length)
            with self._lock:
                self._written.update(entries)
                self._made.update(entries if made else ())

    def share_blocks(self, offset: int, sources: Sequence[OpenRange]) -> None:
        lengths = [length for _, _, length in sources]
        segments = self._stretch(offset, sum(lengths))
        if [segment.length for segment in segments] != lengths:
            raise NotShared
        if any(segment.entry == REST for segment in segments):
            raise NotShared
        done = 0

        def share(fd: int, segment: Segment) -> None:
            nonlocal done
            share_range(sources[done], fd, segment.offset, self._size_of(segment))
            done += 1

        try:
            self._write_each(offset, sum(lengths), share)
        except NotShared as error:
            raise NotShared(some=done > 0, never=error.never) from error

    def leave_hole(self, offset: int, length: int) -> None:
        def leave(fd: int, segment: Segment) -> None:
            if segment.entry == REST:
                write_all(fd, bytes(segment.length), segment.offset)
                return
            try:
                set_length(fd, self._size_of(segment))
            except OSError as error:
                if not is_refusal(error):
                    raise
                write_all(fd, bytes(segment.length), segment.offset)

        self._write_each(offset, length, leave)

    def _write_each(self, offset: int, length: int, put: _Use) -> None:
        written: list[int] = []

        def put_and_note(fd: int, segment: Segment) -> None:
            put(fd, segment)
            written.append(segment.entry)

        try:
            self._each("write", self._stretch(offset, length), put_and_note, make=True)
        finally:
            # After the write, never before it: a sync in between would take the mark away.
            with self._lock:
                self._written.update(written)

    def read_into(self, offset: int, view: memoryview) -> bool:
        done = 0 if self._compiled is None else self._compiled.read(self.fd, offset, view)
        if done == len(view):
            return True

        def get(fd: int, segment: Segment) -> None:
            nonlocal done
            if not read_all(fd, view[done : done + segment.length], segment.offset):
                raise _CutOff
            done += segment.length

        try:
            rest = self._stretch(offset + done, len(view) - done)
            self._each("read", rest, get, make=False)
        except (_CutOff, FileNotFoundError):
            return False
        return True

    def forget_cached(self, offset: int, length: int) -> None:
        def forget(fd: int, segment: Segment) -> None:
            self._forgotten(fd, segment.offset, segment.length)

        for segment in self._stretch(offset, length):
            with suppress(FileNotFoundError):
                self._each("read", [segment], forget, make=False)

    def sync(self) -> None:
        with self._lock:
            unknown, self._unknown = self._unknown, False
            written, self._written = self._written, set()
            made, self._made = self._made, set()
        try:
            with translated(self._destination.part_path, "sync"):
                if unknown or len(written) + len(made) > SYNCED_SINGLY_MAX:
                    syscalls.sync_file_system(self.fd)
                else:
                    self._sync_singly(sorted(written), sorted(made))
        except BaseException:
            with self._lock:
                self._unknown |= unknown
                self._written |= written
                self._made |= made
            raise

    def _sync_singly(self, written: list[int], made: list[int]) -> None:
        with paths.LastFolder(self.fd) as folders:
            for number in written:
                fd = self._handles.open_evicting(partial(self._open, number, folders, make=False))
                try:
                    self._synced(fd)
                finally:
                    os.close(fd)
            above: set[tuple[str, ...]] = set()
            for number in made:
                parts = self._parts(number)
                above.update(tuple(parts[:depth]) for depth in range(len(parts)))
            for parents in sorted(above, reverse=True):
                self._synced(folders.at(parents))

    def seal(self) -> list[Range]:
        truncated: list[Range] = []
        number = start = 0  # of the entry: its number, and where it begins in the stream
        entries = self._manifest.entries
        try:
            self.sealed = sealed_entries(self._compiled, self.fd, entries, self._times)
            with self._folders() as folders:
                for number, entry in enumerate(entries):
                    if not self._is_selected(number) or self.sealed[number]:
                        pass
                    elif entry.kind is EntryKind.FOLDER:
                        folder_fd = folders.at(self._parts(number))
                        if self._times:
                            set_time(folder_fd, self._times[number])
                        self._made.add(number)
                    elif missing := self._seal_file(number, entry, folders):
                        truncated.append((start + entry.size - missing, missing))
                    start += entry.size
        except OSError as error:
            raise storage_error(error, self._path_of(number), "finish") from error
        if not truncated:
            self._set_folder_times()
            self.sync()
        return truncated

    # Times change no byte and need no sync: the name of the whole reaches the disk after them.

    def _set_folder_times(self) -> None:
        """Set the times of folders. Each entry that is made changes one: by now all are made."""
        if not self._times:
            return
        entries = self._manifest.entries
        made = {*folders_of(entry for n, entry in enumerate(entries) if self._is_selected(n))}
        with self._folders() as folders:
            for path, time_ns in zip(folders_of(entries), self._times[len(entries) :], strict=True):
                if path in made:
                    set_time(folders.at(path.split("/") if path else []), time_ns)

    def _seal_file(self, number: int, entry: Entry, folders: paths.LastFolder) -> int:
        """Seal one file; return the number of bytes missing at its end, and leave it then."""
        *parents, name = self._parts(number)
        folder_fd = folders.at(parents)
        status = paths.status_of(folder_fd, name)
        if status is not None and is_sealed(status.st_mode, status.st_size, entry):
            if self._times and status.st_mtime_ns != self._times[number]:
                set_time_of(folder_fd, name, status, self._times[number])
            return 0
        missing = entry.size - (0 if status is None else status.st_size)
        if missing > 0 and (status is None or stat.S_ISREG(status.st_mode)):
            return missing
        fd = self._open(number, folders)
        try:
            set_length(fd, entry.size)
            if entry.kind is EntryKind.EXECUTABLE:
                self._executable(fd)
            if self._times:
                set_time(fd, self._times[number])
        finally:
            os.close(fd)
        with self._lock:
            self._written.add(number)
        return 0

    def drop_rest(self) -> None:
        """Remove the bytes of other files, before the part gets its final name. Open handles can
        still read them."""
        with translated(self._destination.part_path, "finish"), suppress(FileNotFoundError):
            os.unlink(self._rest.name, dir_fd=self.fd)

    def close(self) -> None:
        self._handles.close()
        super().close()

    def _table(self) -> CompiledFolder | None:
        entries, selection = self._manifest.entries, self._selection
        return compiled_folder(
            entries,
            times=self._times,
            without=() if selection is None else {*range(len(entries))} - selection.entries,
            reserved_from=RESERVED_FROM_BYTES,
        )

    def _is_selected(self, number: int) -> bool:
        return self._selection is None or number in self._selection.entries

    def _stretch(self, offset: int, length: int) -> list[Segment]:
        """The ranges of files that hold a range of the stream; `REST` stands for its own file."""
        segments = self._layout.stretch(offset, length)
        return segments if self._selection is None else self._rest.put(segments, offset)

    # -- opening ------------------------------------------------------------------------------

    def _each(self, doing: str, segments: list[Segment], use: _Use, *, make: bool) -> None:
        """Open the file of each segment and ``use`` it, in order.

        A file that spans pieces stays open for the next piece. Raises `StorageError` about the
        file; but `FileNotFoundError` if it is not there and must not be made.
        """
        # There may be thousands in a second: each gets as little work as possible.
        number = 0
        try:
            with paths.LastFolder(self.fd, make=make) as folders:
                for segment in segments:
                    number = segment.entry
                    opener = partial(self._open, number, folders, make)
                    if self._size_of(segment) > segment.length:
                        with self._handles.using((self, number), opener) as fd:
                            use(fd, segment)
                        continue
                    fd = self._handles.open_evicting(opener)
                    try:
                        use(fd, segment)
                    finally:
                        os.close(fd)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not make:
                raise
            raise storage_error(error, self._path_of(number), doing) from error

    def _open(self, number: int, folders: paths.LastFolder, make: bool = True) -> int:
        *parents, name = self._parts(number)
        folder_fd = folders.at(parents)
        if not make:
            return paths.open_to_write(folder_fd, name)
        try:
            fd = paths.create_file(folder_fd, name)
        except FileExistsError:
            return paths.open_to_write(folder_fd, name)
        with self._lock:
            self._made.add(number)
        return fd

    def _folders(self) -> paths.LastFolder:
        return paths.LastFolder(self.fd, make=True)

    def _size_of(self, segment: Segment) -> int:
        """Bytes of the segment's file; 0 for `REST`, which has no size of its own."""
        if segment.entry == REST:
            return 0
        return self._manifest.entries[segment.entry].size

    def _parts(self, number: int) -> Sequence[str]:
        return self._path(number).split("/")

    def _path(self, number: int) -> str:
        return self._rest.name if number == REST else self._manifest.entries[number].path

    def _path_of(self, number: int) -> str:
        return os.path.join(self._destination.part_path, self._path(number))
