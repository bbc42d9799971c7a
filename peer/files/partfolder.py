"""The part of a share that is a folder: many files that are written as one stream.

Owns which of its files are open and what is to be synced. Files and folders are made when their
first byte comes, each from the handle of the folder above it, so that a link which is planted among
them meanwhile leads nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Lock

from common.digests import Buffer
from common.limits import MIB
from common.manifest import Entry, EntryKind, Layout, Manifest, Segment
from peer.files import paths, syscalls
from peer.files.destination import Destination
from peer.files.errors import translated
from peer.files.handles import HandleCache
from peer.files.partfile import PartFiles, Range, make_executable, read_all, set_length, write_all

RESERVED_FROM_BYTES = 16 * MIB  # below, making all the files first would delay the start
OPEN_FILES_MAX = 32
SYNCED_SINGLY_MAX = 4  # files; a sync of the file system costs about what one file costs (ext4)


class PartFolder(PartFiles):
    """``fd`` is the folder at the top; ``found`` says that an earlier process made it."""

    def __init__(
        self, manifest: Manifest, destination: Destination, fd: int, *, found: bool = False
    ) -> None:
        super().__init__(manifest, destination, fd)
        self._layout = Layout(manifest.entries, manifest.piece_length)
        self._handles = HandleCache(OPEN_FILES_MAX)
        self._lock = Lock()  # of the next three
        # Which of the files, names and permissions that were found are on the disk, nobody knows:
        # what has the right length and looks sealed may be in memory only.
        self._unknown = found
        self._written: set[int] = set()  # files to be synced
        self._made: set[int] = set()  # entries whose names are to be synced

    def reserve(self, solid: Iterable[Range]) -> None:
        with self._folders() as folders:
            for offset, length in solid:
                for segment in self._layout.stretch(offset, length):
                    if self._entry(segment).size >= RESERVED_FROM_BYTES:
                        self._reserve(segment, folders)

    def _reserve(self, segment: Segment, folders: paths.LastFolder) -> None:
        with translated(self._path_of(segment), "reserve room for"):
            fd = self._open(segment, folders)
            try:
                set_length(fd, self._entry(segment).size)
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
        with self._folders() as folders:
            for segment in self._layout.stretch(offset, len(view)):
                shown = self._path_of(segment)
                with translated(shown, "write"), self._opened(segment, folders) as fd:
                    size = self._entry(segment).size
                    if size >= RESERVED_FROM_BYTES and os.fstat(fd).st_size < size:
                        self.cut_off = True
                    write_all(fd, view[done : done + segment.length], segment.offset)
                self._mark(segment)
                done += segment.length

    def leave_hole(self, offset: int, length: int) -> None:
        with self._folders() as folders:
            for segment in self._layout.stretch(offset, length):
                shown = self._path_of(segment)
                with translated(shown, "write"), self._opened(segment, folders) as fd:
                    set_length(fd, self._entry(segment).size)
                self._mark(segment)

    def _mark(self, segment: Segment) -> None:
        # After the write, never before it: a sync that runs meanwhile would take the mark away.
        with self._lock:
            self._written.add(segment.entry)

    def read_into(self, offset: int, view: memoryview) -> bool:
        done = 0
        with paths.LastFolder(self.fd) as folders:
            for segment in self._layout.stretch(offset, len(view)):
                part = view[done : done + segment.length]
                done += segment.length
                with translated(self._path_of(segment), "read"):
                    try:
                        with self._opened(segment, folders, make=False) as fd:
                            if not read_all(fd, part, segment.offset):
                                return False
                    except FileNotFoundError:
                        return False
        return True

    def forget_cached(self, offset: int, length: int) -> None:
        with paths.LastFolder(self.fd) as folders:
            for segment in self._layout.stretch(offset, length):
                with (
                    translated(self._path_of(segment), "read"),
                    suppress(FileNotFoundError),
                    self._opened(segment, folders, make=False) as fd,
                ):
                    os.posix_fadvise(fd, segment.offset, segment.length, os.POSIX_FADV_DONTNEED)

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
                with self._opened(Segment(number, 0, 0), folders, make=False) as fd:
                    os.fsync(fd)
            above: set[tuple[str, ...]] = set()
            for number in made:
                parts = self._parts(number)
                above.update(tuple(parts[:depth]) for depth in range(len(parts)))
            for parents in sorted(above, reverse=True):
                os.fsync(folders.at(parents))

    def seal(self) -> list[Range]:
        cut_off: list[Range] = []
        start = 0  # of the entry in the stream
        with self._folders() as folders:
            for number, entry in enumerate(self._manifest.entries):
                segment = Segment(number, 0, entry.size)
                with translated(self._path_of(segment), "finish"):
                    if entry.kind is EntryKind.FOLDER:
                        folders.at(self._parts(number))
                        self._made.add(number)
                    elif missing := self._seal_file(segment, folders):
                        cut_off.append((start + entry.size - missing, missing))
                start += entry.size
        if not cut_off:
            self.sync()
        return cut_off

    def _seal_file(self, segment: Segment, folders: paths.LastFolder) -> int:
        """Returns how many bytes are missing at its end; it is left as it is then."""
        entry = self._entry(segment)
        *parents, name = self._parts(segment.entry)
        status = paths.status_of(folders.at(parents), name)
        if status is not None and _is_sealed(status, entry):
            return 0
        missing = entry.size - (0 if status is None else status.st_size)
        if missing > 0 and (status is None or stat.S_ISREG(status.st_mode)):
            return missing
        fd = self._open(segment, folders)
        try:
            set_length(fd, entry.size)
            if entry.kind is EntryKind.EXECUTABLE:
                make_executable(fd)
        finally:
            os.close(fd)
        self._mark(segment)
        return 0

    def close(self) -> None:
        self._handles.close()
        super().close()

    # -- opening ------------------------------------------------------------------------------

    @contextmanager
    def _opened(
        self, segment: Segment, folders: paths.LastFolder, make: bool = True
    ) -> Iterator[int]:
        """The file to read and write. One that spans pieces is kept open for the next piece."""

        def opener() -> int:
            return self._open(segment, folders, make)

        if self._entry(segment).size > segment.length:
            with self._handles.using((self, segment.entry), opener) as fd:
                yield fd
            return
        fd = self._handles.open_anyhow(opener)
        try:
            yield fd
        finally:
            os.close(fd)

    def _open(self, segment: Segment, folders: paths.LastFolder, make: bool = True) -> int:
        *parents, name = self._parts(segment.entry)
        folder_fd = folders.at(parents)
        if not make:
            return paths.open_to_write(folder_fd, name)
        try:
            fd = paths.create_file(folder_fd, name)
        except FileExistsError:
            return paths.open_to_write(folder_fd, name)
        with self._lock:
            self._made.add(segment.entry)
        return fd

    def _folders(self) -> paths.LastFolder:
        return paths.LastFolder(self.fd, make=True)

    def _entry(self, segment: Segment) -> Entry:
        return self._manifest.entries[segment.entry]

    def _parts(self, number: int) -> Sequence[str]:
        return self._manifest.entries[number].path.split("/")

    def _path_of(self, segment: Segment) -> str:
        return os.path.join(self._destination.part_path, self._entry(segment).path)


def _is_sealed(status: os.stat_result, entry: Entry) -> bool:
    executable = entry.kind is EntryKind.EXECUTABLE
    return (
        stat.S_ISREG(status.st_mode)
        and status.st_size == entry.size
        and bool(status.st_mode & stat.S_IXUSR) == executable
    )
