"""Makes a manifest of a file or folder: walks it, digests it, remembers how it looked.

Owns what may be shared: plain files and folders, and nothing that a link leads to. A share's name
and group are no part of it, and neither is where the record of shares is kept.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import NamedTuple

from common import limits
from common.digests import Algorithm
from common.errors import ConfigError
from common.manifest import (
    MANIFEST_FORMAT,
    Entry,
    EntryKind,
    Layout,
    Manifest,
    count_pieces,
    piece_length_for,
)
from common.names import PATH_DEPTH_MAX, PathOrder, quoted
from peer.files import paths
from peer.files.errors import ContentChanged, Unreadable, translated
from peer.files.fingerprints import Fingerprint, Place, settle
from peer.files.handles import HandleCache
from peer.files.hashing import hash_pieces, never_cancelled
from peer.files.source_files import SourceFiles, why_unread
from peer.files.whereabouts import whereabouts

Progress = Callable[[int], None]
"""Called with the bytes done so far, from a worker thread, once a piece."""


def no_progress(_: int) -> None:
    """For work that nobody watches."""


class Scan(NamedTuple):
    """What stands at a path: its entries in the manifest's order, and how they looked."""

    entries: tuple[Entry, ...]
    place: Place

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


class Digested(NamedTuple):
    manifest: Manifest
    place: Place


# -- walking ------------------------------------------------------------------------------------


def scan(path: str) -> Scan:
    """List what would be shared from ``path``, without reading it.

    A link that the user names is followed; one that lies inside a folder is refused, as is anything
    else that is no plain file or folder. Raises `Unreadable`, `BadName` or `ConfigError`, which
    name what is in the way.
    """
    real = os.path.realpath(path)
    try:
        status = os.lstat(real)
    except OSError as error:
        raise Unreadable(f"cannot share {quoted(path)}: {os.strerror(error.errno or 0)}") from error
    walk = _Walk(real)
    if stat.S_ISDIR(status.st_mode):
        with translated(real, "share"):
            fd = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                walk.enter(fd, [])
            finally:
                os.close(fd)
    else:
        walk.add_file("", status, os.access(real, os.R_OK, effective_ids=True))
    place = Place(os.fsencode(real), tuple(walk.fingerprints), whereabouts(real))
    return Scan(tuple(walk.entries), place)


class _Walk:
    """Collects the entries of a folder in order, from the handle of each folder above."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._order = PathOrder()
        self.entries: list[Entry] = []
        self.fingerprints: list[Fingerprint | None] = []

    def enter(self, fd: int, parts: list[str]) -> None:
        names = sorted(os.listdir(fd))
        if not names and parts:
            self._add(Entry("/".join(parts), 0, EntryKind.FOLDER), None)
        if len(parts) >= PATH_DEPTH_MAX:
            raise ConfigError(f"{self._shown(parts)} is too many folders deep to be shared")
        for name in names:
            self._visit(fd, [*parts, name])

    def _visit(self, fd: int, parts: list[str]) -> None:
        name = parts[-1]
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISDIR(status.st_mode):
                path = "/".join(parts)
                readable = os.access(name, os.R_OK, dir_fd=fd, effective_ids=True)
                self.add_file(path, status, readable)
                return
            inner = paths.open_folder(fd, [name])
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise Unreadable(f"cannot share {self._shown(parts)}: {reason}") from error
        try:
            self.enter(inner, parts)
        finally:
            os.close(inner)

    def add_file(self, path: str, status: os.stat_result, readable: bool) -> None:
        shown = self._shown([path] if path else [])
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(
                f"{shown} is {paths.kind_of(status)}, which cannot be shared",
                "only plain files and folders can be",
            )
        if not readable:
            raise Unreadable(f"cannot read {shown}: {os.strerror(errno.EACCES)}")
        executable = bool(status.st_mode & stat.S_IXUSR)
        kind = EntryKind.EXECUTABLE if executable else EntryKind.FILE
        self._add(Entry(path, status.st_size, kind), Fingerprint.of(status))

    def _add(self, entry: Entry, fingerprint: Fingerprint | None) -> None:
        if entry.path:
            self._order.add(entry.path)
        if len(self.entries) == limits.ENTRIES_MAX:
            raise ConfigError(
                f"{quoted(self._root)} holds more than {limits.ENTRIES_MAX} files",
                "share a part of it, or an archive",
            )
        self.entries.append(entry)
        self.fingerprints.append(fingerprint)

    def _shown(self, parts: list[str]) -> str:
        return quoted(os.path.join(self._root, *parts))


# -- digesting ----------------------------------------------------------------------------------


def digest(
    path: str,
    algorithm: Algorithm = Algorithm.BLAKE3,
    piece_length: int | None = None,
    *,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> Digested:
    """The manifest of what stands at ``path``, and how it looked.

    ``piece_length`` in bytes is chosen by size if not given. Raises what `scan` does,
    `ContentChanged` if a file changes meanwhile, `Cancelled`.
    """
    return digest_scanned(
        scan(path),
        algorithm,
        piece_length,
        on_progress=on_progress,
        cancelled=cancelled,
        threads=threads,
    )


def digest_scanned(
    scanned: Scan,
    algorithm: Algorithm = Algorithm.BLAKE3,
    piece_length: int | None = None,
    *,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> Digested:
    """As `digest`, of what was scanned before."""
    size = scanned.size
    length = _checked_piece_length(piece_length, size)
    settle(scanned.place.fingerprints)
    whole = algorithm.new()
    pieces = bytearray()
    done = 0

    def in_order(_: int, view: memoryview, found: bytes | None) -> None:
        nonlocal done
        whole.update(view)
        pieces.extend(found or b"")
        done += len(view)
        on_progress(done)

    layout = Layout(scanned.entries, length)
    handles = HandleCache()
    files = SourceFiles(scanned.place, scanned.entries, layout, handles)
    try:
        hash_pieces(
            range(count_pieces(size, length)),
            layout.span,
            files.read_into,
            algorithm,
            in_order,
            threads=threads,
            cancelled=cancelled,
        )
        files.check()
    finally:
        handles.close()
    manifest = Manifest(
        MANIFEST_FORMAT, algorithm, length, size, whole.digest(), bytes(pieces), scanned.entries
    )
    return Digested(manifest, scanned.place)


def _checked_piece_length(chosen: int | None, size: int) -> int:
    length = chosen or piece_length_for(size)
    if not limits.PIECE_LENGTH_MIN <= length <= limits.PIECE_LENGTH_MAX or length & (length - 1):
        raise ConfigError(
            f"a piece cannot have {length} bytes",
            f"choose a power of two from {limits.PIECE_LENGTH_MIN} to {limits.PIECE_LENGTH_MAX}",
        )
    if count_pieces(size, length) > limits.PIECES_MAX:
        raise ConfigError(
            f"{size} bytes are more than {limits.PIECES_MAX} pieces of {length}",
            "choose larger pieces" if length < limits.PIECE_LENGTH_MAX else None,
        )
    return length


# -- looking again ------------------------------------------------------------------------------


def recheck(
    manifest: Manifest,
    path: str,
    *,
    on_progress: Progress = no_progress,
    cancelled: Callable[[], bool] = never_cancelled,
    threads: int | None = None,
) -> Place:
    """Digest again what stands at ``path`` (absolute, without links); how it looks, if it is the
    content still.

    Files that came to a folder since are passed over. Raises `ContentChanged` if it is not the
    content, `OutOfHandles`, `IOFailed`, `Cancelled`.
    """
    place = place_of(manifest, path)
    layout = Layout(manifest.entries, manifest.piece_length)
    handles = HandleCache()
    files = SourceFiles(place, manifest.entries, layout, handles)
    done = 0

    def in_order(index: int, view: memoryview, found: bytes | None) -> None:
        nonlocal done
        if found != manifest.piece_digest(index):
            raise ContentChanged(f"{quoted(path)} was changed")
        done += len(view)
        on_progress(done)

    try:
        files.check()
        hash_pieces(
            range(manifest.piece_count),
            layout.span,
            files.read_into,
            manifest.algorithm,
            in_order,
            threads=threads,
            cancelled=cancelled,
        )
        files.check()
    finally:
        handles.close()
    return place


def place_of(manifest: Manifest, path: str) -> Place:
    """How the entries of ``manifest`` look at ``path``; `ContentChanged` if one is missing or has
    another size, `OutOfHandles` for a shortage that passes, `IOFailed`. Nothing is read."""
    found: list[Fingerprint | None] = []
    looked_at = path
    try:
        parent, name = os.path.split(path)
        root_fd = paths.open_real_folder(path if manifest.is_folder else parent)
        try:
            with paths.LastFolder(root_fd) as folders:
                for entry in manifest.entries:
                    *parents, last = entry.path.split("/") if entry.path else [name]
                    looked_at = os.path.join(path, entry.path) if entry.path else path
                    found.append(_look(folders.at(parents), last, entry, path))
        finally:
            os.close(root_fd)
    except OSError as error:
        raise why_unread(error, looked_at) from error
    settle(found)
    return Place(os.fsencode(path), tuple(found), whereabouts(path))


def _look(folder_fd: int, name: str, entry: Entry, path: str) -> Fingerprint | None:
    status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    if entry.kind is EntryKind.FOLDER:
        is_it = stat.S_ISDIR(status.st_mode)
    else:
        is_it = stat.S_ISREG(status.st_mode) and status.st_size == entry.size
    if not is_it:
        shown = quoted(os.path.join(path, entry.path) if entry.path else path)
        raise ContentChanged(f"{shown} was changed")
    return None if entry.kind is EntryKind.FOLDER else Fingerprint.of(status)
