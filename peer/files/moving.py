"""Move of a content to another place on this device.

Owns: the one rename within a file system, the copy to another one, and the removal of the files
that were copied. Not here: which content is moved, and its records (see peer.shares.moving).

Invariants: nothing that stands at the new place is replaced. A copy gets its final name after each
piece of it was read back and verified. Old files are removed only if they look as before the copy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from common.errors import IntegrityError, MiniTorrentError
from common.manifest import EntryKind, Manifest, inner_folders
from common.names import quoted
from peer.files import paths, sharing, syscalls
from peer.files.destination import Destination
from peer.files.destination_names import require_usable_names
from peer.files.errors import (
    Cancelled,
    ContentChanged,
    UnsafeDestination,
    storage_error,
    translated,
)
from peer.files.fingerprint import Fingerprint, SharedLocation
from peer.files.folder_identity import identity_of
from peer.files.homes import home_above
from peer.files.missing_folders import missing_folders
from peer.files.partfile import write_all

CHUNK = 1024 * 1024  # bytes copied at a time
_ZEROS = bytes(CHUNK)
Looks = Sequence[Fingerprint | None]


class Target(NamedTuple):
    """A new place. ``missing``: folders to make for it, the uppermost first."""

    path: str
    missing: list[str]


def target_of(text: str, former: str) -> Target:
    """The place that ``text`` means for the content at ``former``: within a folder, or a new path.

    It is ``former`` itself if the content is there. Raises `AlreadyExists` if the place is in use,
    `UnsafeDestination` for one within the content or a home, and `StorageError`.
    """
    if os.path.realpath(text) == former:
        return Target(former, [])
    within = text.endswith("/") or os.path.isdir(text)
    path = os.path.join(text, os.path.basename(former)) if within else text
    folder, name = os.path.split(os.path.abspath(path))
    real, missing = missing_folders(folder)
    target = os.path.join(real, name)
    if target == former:
        return Target(former, [])
    if target.startswith(f"{former}/"):
        raise UnsafeDestination(
            f"move {quoted(former)}: {quoted(target)} lies within it", "choose another place"
        )
    if home_above(target) is not None:
        raise UnsafeDestination(
            f"move to {quoted(target)}: it is in a home of this program", "choose another place"
        )
    if not missing:
        with contextlib.closing(Destination.again(target)) as destination:
            destination.refuse_if_there()
    return Target(target, missing)


def is_alike(one: Looks, other: Looks) -> bool:
    """Whether files are the same ones, unchanged, as far as a rename lets that be told."""
    return len(one) == len(other) and all(map(_is_alike, one, other))


def _is_alike(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.inode, one.size, one.mtime_ns) == (other.inode, other.size, other.mtime_ns)


# -- within a file system -----------------------------------------------------------------------


def rename(former: str, target: str) -> bool:
    """Rename in one step; return False if ``target`` is on another file system.

    Raises `AlreadyExists` if something stands there by now, and `StorageError`.
    """
    with _folder_of(former) as (old_fd, old), _folder_of(target) as (new_fd, new):
        try:
            syscalls.rename_no_replace(old, new, old_fd, new_fd)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            taken = error.errno == errno.EEXIST
            raise storage_error(error, target if taken else former, "move") from error
        return True


def sync_names(*moved: str) -> None:
    """Sync the folders of paths."""
    for path in moved:
        with translated(path, "sync"), _folder_of(path) as (fd, _):
            syscalls.sync_file(fd)


def renamed(manifest: Manifest, place: SharedLocation, target: str) -> SharedLocation:
    """The location of files that were just renamed from ``place``.

    A file that was changed meanwhile keeps the old fingerprint, and is digested before it is used.
    """
    looks = place.fingerprints
    if not manifest.is_folder:  # a rename of a folder changes no file in it
        with contextlib.suppress(MiniTorrentError):
            now = sharing.location_of(manifest, target).fingerprints
            looks = now if is_alike(now, looks) else looks
    return SharedLocation(os.fsencode(target), looks, identity_of(target), place.links)


@contextlib.contextmanager
def _folder_of(path: str) -> Iterator[tuple[int, str]]:
    folder, name = os.path.split(path)
    with translated(folder, "use the folder"):
        fd = paths.open_real_folder(folder)
    try:
        yield fd, name
    finally:
        os.close(fd)


# -- to another file system ---------------------------------------------------------------------


def copy(
    manifest: Manifest,
    place: SharedLocation,
    target: str,
    on_progress: sharing.Progress,
    cancelled: Callable[[], bool],
) -> None:
    """Copy the files at ``place`` to the part of ``target``; they are on the disk on return.

    Raises `ContentChanged` if a file is changed meanwhile, `StorageError`, `Cancelled`.
    """
    with contextlib.closing(Destination.again(target)) as destination:
        destination.refuse_if_there()
        destination.check_space(manifest.size)
        with translated(destination.part_path, "create"), _folder_of(place.path) as (fd, name):
            if manifest.is_folder:
                _copy_folder(manifest, place, (fd, name), destination, on_progress, cancelled)
                return
            made = paths.create_file(destination.fd, destination.part)
            try:
                _copy_file((fd, name), made, place.fingerprints[0], on_progress, cancelled)
                syscalls.sync_file(made)
            finally:
                os.close(made)


def _copy_folder(
    manifest: Manifest,
    place: SharedLocation,
    source: tuple[int, str],
    destination: Destination,
    on_progress: sharing.Progress,
    cancelled: Callable[[], bool],
) -> None:
    os.mkdir(destination.part, dir_fd=destination.fd)
    source_fd = paths.open_folder(source[0], [source[1]])
    fd = paths.open_folder(destination.fd, [destination.part])
    done = 0

    def progress(of_file: int) -> None:
        on_progress(done + of_file)

    try:
        require_usable_names(fd, destination.folder, manifest)
        with paths.LastFolder(source_fd) as sources, paths.LastFolder(fd, make=True) as targets:
            for entry, looks in zip(manifest.entries, place.fingerprints, strict=True):
                *parents, name = entry.path.split("/")
                if entry.kind is EntryKind.FOLDER:
                    targets.at([*parents, name])
                    continue
                made = paths.create_file(targets.at(parents), name)
                try:
                    _copy_file((sources.at(parents), name), made, looks, progress, cancelled)
                finally:
                    os.close(made)
                done += entry.size
            for path in [*sorted(inner_folders(manifest.entries), reverse=True), ""]:
                parts = path.split("/") if path else []
                _copy_status(sources.at(parts), targets.at(parts))
        syscalls.sync_file_system(fd)
    finally:
        os.close(fd)
        os.close(source_fd)


def _copy_file(
    source: tuple[int, str],
    made: int,
    looks: Fingerprint | None,
    on_progress: sharing.Progress,
    cancelled: Callable[[], bool],
) -> None:
    folder_fd, name = source
    fd = paths.open_to_read(folder_fd, name)
    try:
        if looks is None or not looks.matches(os.fstat(fd)):
            raise ContentChanged(f"{quoted(name)} was changed while it was copied")
        for offset in range(0, looks.size, CHUNK):
            if cancelled():
                raise Cancelled("the move was cancelled; everything is where it was")
            data = os.pread(fd, CHUNK, offset)
            if data != _ZEROS[: len(data)]:  # a hole stays one
                write_all(made, data, offset)
            on_progress(min(offset + CHUNK, looks.size))
        os.ftruncate(made, looks.size)
        _copy_status(fd, made)
    finally:
        os.close(fd)


def _copy_status(source_fd: int, fd: int) -> None:
    """Copy times, permissions and attributes, as far as the file system takes them."""
    status = os.fstat(source_fd)
    with contextlib.suppress(OSError):
        for name in os.listxattr(source_fd):
            os.setxattr(fd, name, os.getxattr(source_fd, name))
    with contextlib.suppress(OSError):
        os.fchmod(fd, stat.S_IMODE(status.st_mode))
    with contextlib.suppress(OSError):
        os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def verify_copy(
    manifest: Manifest, target: str, on_progress: sharing.Progress, cancelled: Callable[[], bool]
) -> SharedLocation:
    """The location of a copy that has every piece of the content.

    Raises `IntegrityError` if it has not, `StorageError`, `Cancelled`.
    """
    with contextlib.closing(Destination.again(target)) as destination:
        part = destination.part_path
    try:
        return sharing.recheck(manifest, part, on_progress=on_progress, cancelled=cancelled)
    except ContentChanged as error:
        raise IntegrityError(
            f"move to {quoted(target)}: the copy does not verify; everything is where it was"
        ) from error


def publish_copy(manifest: Manifest, copied: SharedLocation, target: str) -> SharedLocation:
    """Give a verified copy its final name. Raises `AlreadyExists` if that is in use by now."""

    def stands(name: str) -> bool:
        with contextlib.suppress(MiniTorrentError):
            sharing.location_of(manifest, os.path.join(destination.folder, name))
            return True
        return False

    with contextlib.closing(Destination.again(target)) as destination:
        fd = destination.open(destination.part)
        try:
            destination.made(fd)
            destination.publish(fd, stands)
        finally:
            os.close(fd)
    return renamed(manifest, copied, target)


def discard_copy(target: str) -> None:
    """Remove the part of ``target``, if there is one. Raises `StorageError`."""
    with contextlib.closing(Destination.again(target)) as destination:
        if destination.status(destination.part) is not None:
            fd = destination.open(destination.part)
            try:
                destination.remove_part(fd)
            finally:
                os.close(fd)


def remove_former(manifest: Manifest, place: SharedLocation) -> bool:
    """Remove the files at ``place``, unless they were changed; return whether anything is left.

    Files that are no part of the content stay, and the folders that hold them. Raises
    `StorageError`.
    """
    with translated(place.path, "remove"), _folder_of(place.path) as (fd, name):
        status = paths.status_of(fd, name)
        if status is not None and not manifest.is_folder:
            _remove_file(fd, name, place.fingerprints[0])
        elif status is not None and stat.S_ISDIR(status.st_mode):
            root_fd = paths.open_folder(fd, [name])
            try:
                _remove_files(root_fd, manifest, place)
            finally:
                os.close(root_fd)
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=fd)
        left = paths.status_of(fd, name) is not None
        syscalls.sync_file(fd)
        return left


def _remove_files(root_fd: int, manifest: Manifest, place: SharedLocation) -> None:
    with paths.LastFolder(root_fd) as folders:
        for entry, looks in zip(manifest.entries, place.fingerprints, strict=True):
            if looks is not None:
                *parents, name = entry.path.split("/")
                with contextlib.suppress(FileNotFoundError):
                    _remove_file(folders.at(parents), name, looks)
        paths.remove_empty_folders(folders, inner_folders(manifest.entries))


def _remove_file(folder_fd: int, name: str, looks: Fingerprint | None) -> None:
    status = paths.status_of(folder_fd, name)
    # A rename and the removal of another link change only the third time.
    if status is None or not stat.S_ISREG(status.st_mode):
        return
    if _is_alike(Fingerprint.of(status), looks):
        os.unlink(name, dir_fd=folder_fd)
