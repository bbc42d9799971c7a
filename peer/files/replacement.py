"""Replacement of what stands under the final name of a download, when its user wants that.

Owns: the check of what may be replaced, the one step that replaces it, and the removal of what was
replaced. Not here: the part (see peer.files.destination) and who wants it (see peer.downloads).

A file takes the place of a file by one rename. Otherwise the part gets the name ``NAME.replaced``
and changes places with the old entry in one step; then the old one is removed under that name. On a
file system without that step two renames follow each other.

Invariants: the final name has the old or the new content, wherever the process ends. Of an old
folder only files are removed that the new content has too, or an earlier content that this device
put there. The rest is kept as ``NAME.old``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import msgspec
from blake3 import blake3

from common.errors import StorageError
from common.host.atomic_files import is_refusal
from common.manifest import EntryKind, Manifest, inner_folders
from common.names import quoted
from peer.files import homes, paths, syscalls
from peer.files.destination import Destination, name_with
from peer.files.errors import AlreadyExists, ContentChanged, UnsafeDestination, translated
from peer.files.fingerprint import SharedLocation
from peer.files.sharing import location_of

REPLACED_SUFFIX = ".replaced"
KEPT_SUFFIX = ".old"
KEPT_MAX = 1000  # names tried for a folder that is kept


class Replaces(NamedTuple):
    """Permission to replace what stands at a path.

    ``known``: earlier contents, of which no file need be kept. With ``looks``, the first of them is
    what stands there, and it is replaced only as long as its files look so.
    """

    known: tuple[Manifest, ...] = ()
    looks: bytes = b""


def looks_of(place: SharedLocation) -> bytes:
    """The digest of the fingerprints of a content: a change of any file changes it."""
    return blake3(msgspec.msgpack.encode(place.fingerprints)).digest()


def replaced_name(name: str) -> str:
    """The name of what was replaced under ``name``, until it is removed."""
    return name_with(name, REPLACED_SUFFIX)


def refuse_irreplaceable(destination: Destination, own_homes: Iterable[str]) -> None:
    """Raise `UnsafeDestination` for what is never replaced: links and special files (by
    `Destination.refuse_if_there`), mount points, and folders with a home of a peer or tracker.

    Raises `AlreadyExists` if the name that is needed meanwhile is in use.
    """
    path = destination.path
    meanwhile = os.path.join(destination.folder, replaced_name(destination.name))
    if os.path.lexists(meanwhile):
        raise AlreadyExists(
            f"{quoted(meanwhile)} is already there, which an interrupted replacement may have left",
            "look at it, and remove or rename it",
        )
    status = destination.status(destination.name)
    if status is None or not stat.S_ISDIR(status.st_mode):
        return
    if os.path.ismount(path):
        raise UnsafeDestination(f"{quoted(path)} is a mount point and is never replaced")
    for home in (os.path.realpath(home) for home in own_homes):
        if home == path or home.startswith(f"{path}/"):
            raise _holds_home(path)
    fd = destination.open(destination.name)
    try:
        if homes.home_in(fd, os.listdir(fd)) or homes.home_above(os.path.join(path, "x")):
            raise _holds_home(path)
    finally:
        os.close(fd)


def _holds_home(path: str) -> UnsafeDestination:
    return UnsafeDestination(
        f"{quoted(path)} holds the home of a peer or tracker and is never replaced",
        "choose another place",
    )


def rename_over_unchanged(destination: Destination, replaces: Replaces) -> bool:
    """`rename_over` for an earlier content. Raises `AlreadyExists` if that was changed."""
    if destination.status(destination.name) is not None:
        try:
            looks = looks_of(location_of(replaces.known[0], destination.path))
        except ContentChanged:
            looks = b""
        if looks != replaces.looks:
            raise AlreadyExists(
                f"{quoted(destination.path)} was changed while its new version was fetched",
                f"the new version is verified, at {quoted(destination.part_path)}: rename what is"
                " in its place, and resume the download",
            )
    return rename_over(destination)


def renaming(replaces: Replaces) -> Callable[[Destination], bool]:
    """The rename for a permission."""
    if replaces.looks:
        return partial(rename_over_unchanged, replaces=replaces)
    return rename_over


def rename_over(destination: Destination) -> bool:
    """Give the part the final name, in the place of what stands there. Raises `OSError`; then
    everything has its name from before. Return whether the part keeps its old name too."""
    fd, part, name = destination.fd, destination.part, destination.name
    old, new = paths.status_of(fd, name), paths.status_of(fd, part)
    if old is None or new is None:
        return syscalls.rename_no_replace(part, name, fd)
    if stat.S_ISREG(old.st_mode) and stat.S_ISREG(new.st_mode):
        os.rename(part, name, src_dir_fd=fd, dst_dir_fd=fd)
        return False
    if not (stat.S_ISREG(old.st_mode) or stat.S_ISDIR(old.st_mode)):
        raise UnsafeDestination(f"{quoted(destination.path)} is {paths.kind_of(old)}")
    meanwhile = replaced_name(name)
    syscalls.rename_no_replace(part, meanwhile, fd)
    try:
        syscalls.exchange(meanwhile, name, fd)
    except OSError as error:
        syscalls.rename_no_replace(meanwhile, part, fd)
        if not is_refusal(error):
            raise
    else:
        return False
    syscalls.rename_no_replace(name, meanwhile, fd)
    try:
        syscalls.rename_no_replace(part, name, fd)
    except OSError:
        syscalls.rename_no_replace(meanwhile, name, fd)
        raise
    return False


def undo_interrupted(destination: Destination) -> bool:
    """Take ``NAME.replaced`` for the part again, if the process ended before it got its final name;
    return whether it was there. To be called if the final name has another content."""
    meanwhile = replaced_name(destination.name)
    if destination.status(meanwhile) is None or destination.status(destination.part) is not None:
        return False
    with translated(destination.part_path, "go on with"):
        syscalls.rename_no_replace(meanwhile, destination.part, destination.fd)
    return True


def remove_replaced(destination: Destination, known: Iterable[Manifest]) -> str | None:
    """Remove what was replaced; return the path of what is kept of it, or None.

    ``known``: the contents with whose files it may be removed. Raises `StorageError`.
    """
    meanwhile = replaced_name(destination.name)
    status = destination.status(meanwhile)
    if status is None:
        return None
    with translated(os.path.join(destination.folder, meanwhile), "remove"):
        if stat.S_ISREG(status.st_mode):
            os.unlink(meanwhile, dir_fd=destination.fd)
        elif stat.S_ISDIR(status.st_mode):
            _remove_known(destination, meanwhile, known)
        if destination.status(meanwhile) is None:
            destination.sync()
            return None
        kept = _keep(destination, meanwhile)
    destination.sync()
    return os.path.join(destination.folder, kept)


def _remove_known(destination: Destination, name: str, known: Iterable[Manifest]) -> None:
    fd = paths.open_folder(destination.fd, [name])
    try:
        for manifest in known:
            if manifest.is_folder:
                _remove_files(fd, manifest)
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        os.rmdir(name, dir_fd=destination.fd)


def _remove_files(root_fd: int, manifest: Manifest) -> None:
    # Errors are passed over: what cannot be removed is kept.
    with paths.LastFolder(root_fd) as folders:
        for entry in manifest.entries:
            if entry.kind is not EntryKind.FOLDER:
                *parents, name = entry.path.split("/")
                with contextlib.suppress(OSError):
                    folder_fd = folders.at(parents)
                    status = paths.status_of(folder_fd, name)
                    if status is not None and stat.S_ISREG(status.st_mode):
                        os.unlink(name, dir_fd=folder_fd)
        paths.remove_empty_folders(folders, inner_folders(manifest.entries))


def _keep(destination: Destination, meanwhile: str) -> str:
    for number in range(1, KEPT_MAX):
        suffix = KEPT_SUFFIX if number == 1 else f"{KEPT_SUFFIX}-{number}"
        kept = name_with(destination.name, suffix)
        with contextlib.suppress(FileExistsError):
            syscalls.rename_no_replace(meanwhile, kept, destination.fd)
            return kept
    raise StorageError(f"no free name to keep {quoted(meanwhile)} under")
