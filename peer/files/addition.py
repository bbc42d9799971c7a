"""Addition of files to a folder that an earlier download of the same content left in part.

Owns: the steps after the new files are verified. The part gets the name ``NAME.adding``; then each
file is moved to its place in ``NAME``, and the rest of the part is removed. Not here: which files
(see peer.files.selection) and the part (see peer.files.partfolder).

Invariant: a file under its name in ``NAME`` is complete. A process that ends leaves some files in
``NAME.adding``; `finish` moves them.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable

from common.manifest import EntryKind, Manifest
from common.names import quoted
from peer.files import paths, syscalls
from peer.files.destination import Destination, name_with
from peer.files.errors import AlreadyExists, ContentChanged, UnsafeDestination, translated

ADDING_SUFFIX = ".adding"


def adding_name(name: str) -> str:
    """The name of a part whose files are being moved to ``name``."""
    return name_with(name, ADDING_SUFFIX)


def refuse_in_the_way(destination: Destination, manifest: Manifest, entries: Iterable[int]) -> None:
    """Raise `AlreadyExists` if something stands at the place of one of ``entries``."""
    with translated(destination.path, "look at"):
        fd = paths.open_folder(destination.fd, [destination.name], path_only=True)
        try:
            with paths.LastFolder(fd, path_only=True) as folders:
                for number in sorted(entries):
                    _refuse_one(destination, manifest, number, folders)
        finally:
            os.close(fd)


def _refuse_one(
    destination: Destination, manifest: Manifest, number: int, folders: paths.LastFolder
) -> None:
    entry = manifest.entries[number]
    *parents, name = entry.path.split("/")
    try:
        status = paths.status_of(folders.at(parents), name)
    except FileNotFoundError:
        return
    if status is not None and not (entry.kind is EntryKind.FOLDER and stat.S_ISDIR(status.st_mode)):
        shown = quoted(os.path.join(destination.path, entry.path))
        raise AlreadyExists(f"{shown} is already there", "remove or rename it")


def discard(destination: Destination) -> None:
    """Remove ``NAME.adding`` with what was not moved."""
    meanwhile = adding_name(destination.name)
    status = destination.status(meanwhile)
    if status is not None and stat.S_ISDIR(status.st_mode):
        with translated(os.path.join(destination.folder, meanwhile), "remove"):
            shutil.rmtree(meanwhile, dir_fd=destination.fd)


def begin(destination: Destination, part_fd: int) -> None:
    """Give the verified part its name for the time of the moves, if it is the one open as
    ``part_fd``. Nothing happens if it has it."""
    meanwhile = adding_name(destination.name)
    with translated(os.path.join(destination.folder, meanwhile), "create"):
        if destination.status(destination.part) is None and destination.status(meanwhile):
            return
        status = destination.status(destination.part)
        if status is None or not os.path.samestat(status, os.fstat(part_fd)):
            raise UnsafeDestination(f"{quoted(destination.part_path)} was replaced")
        syscalls.rename_no_replace(destination.part, meanwhile, destination.fd)
    destination.renamed = True
    destination.sync()


def finish(
    destination: Destination, manifest: Manifest, entries: Iterable[int], *, replace: bool
) -> bool:
    """Move ``entries`` from ``NAME.adding`` to their places; return whether it was there.

    ``replace``: also over other files. Raises `StorageError`; the same call can be made again.
    """
    meanwhile = adding_name(destination.name)
    if destination.status(meanwhile) is None:
        return False
    with translated(destination.path, "add files to"):
        source_fd = paths.open_folder(destination.fd, [meanwhile])
        try:
            target_fd = paths.open_folder(destination.fd, [destination.name])
            try:
                _move_all(source_fd, target_fd, manifest, entries, replace)
                syscalls.sync_file_system(target_fd)
            finally:
                os.close(target_fd)
        finally:
            os.close(source_fd)
        shutil.rmtree(meanwhile, dir_fd=destination.fd)
    destination.sync()
    return True


def _move_all(
    source_fd: int, target_fd: int, manifest: Manifest, entries: Iterable[int], replace: bool
) -> None:
    with paths.LastFolder(source_fd) as sources, paths.LastFolder(target_fd, True) as targets:
        for number in sorted(entries):
            entry = manifest.entries[number]
            *parents, name = entry.path.split("/")
            if entry.kind is EntryKind.FOLDER:
                targets.at([*parents, name])
                continue
            folder_fd = targets.at(parents)
            try:
                source_folder_fd = sources.at(parents)
                found = paths.status_of(source_folder_fd, name)
            except FileNotFoundError:
                found = None
            if found is not None:
                _move(name, source_folder_fd, folder_fd, replace)
                continue
            there = paths.status_of(folder_fd, name)  # it was moved before
            if there is None or not stat.S_ISREG(there.st_mode) or there.st_size != entry.size:
                raise ContentChanged(f"{quoted(entry.path)} is gone from the part")


def _move(name: str, source_fd: int, target_fd: int, replace: bool) -> None:
    there = paths.status_of(target_fd, name)
    if there is not None and not (replace and stat.S_ISREG(there.st_mode)):
        raise AlreadyExists(f"{quoted(name)} is already there", "remove or rename it")
    os.rename(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
