"""Earlier versions that a follow keeps beside the current one, as ``NAME@K``.

Owns: making them by hard links when the next version begins, and removing them. Why links: they
take no space while both names stand, and the current name has its content throughout. All of this
blocks as long as the disk does. Not here: which versions are kept (see peer.follows.following).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from common import manifest as manifests
from common.errors import MiniTorrentError
from common.ids import ContentId
from common.manifest import EntryKind, Manifest, inner_folders
from common.names import versioned
from peer.files import paths, syscalls
from peer.files.damage import damaged_pieces
from peer.files.destination import Destination, part_name
from peer.files.errors import translated
from peer.files.fingerprint import SharedLocation
from peer.files.replacement import remove_replaced, replaced_name
from peer.files.sharing import location_of
from peer.records import Manifests


def keep(known: Manifests, content: bytes, path: str, version: int) -> SharedLocation:
    """Give the content at ``path`` a second name, and return its place there.

    Raises `MiniTorrentError` if that name is in use or the file system has no links.
    """
    manifest = _manifest(known, content)
    place = versioned(path, version)
    folder, name = os.path.split(place)
    with translated(folder, "use the folder"):
        fd = paths.open_real_folder(folder)
    try:
        with translated(place, "create"):
            if paths.status_of(fd, name) is None:
                _link(manifest, fd, os.path.basename(path), name)
            elif not _is_same(location_of(manifest, path), location_of(manifest, place)):
                raise FileExistsError(17, "", place)
    finally:
        os.close(fd)
    return location_of(manifest, place)


def _is_same(one: SharedLocation, other: SharedLocation) -> bool:
    return [each and each.inode for each in one.fingerprints] == [
        each and each.inode for each in other.fingerprints
    ]


def _link(manifest: Manifest, fd: int, source: str, name: str) -> None:
    if not manifest.is_folder:
        os.link(source, name, src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
        return
    part = part_name(name)
    _remove_links(manifest, fd, source, part)  # of a process that ended here
    os.mkdir(part, dir_fd=fd)
    from_fd, to_fd = paths.open_folder(fd, [source]), paths.open_folder(fd, [part])
    try:
        with paths.LastFolder(from_fd) as sources, paths.LastFolder(to_fd, make=True) as targets:
            for entry in manifest.entries:
                *parents, last = entry.path.split("/")
                if entry.kind is EntryKind.FOLDER:
                    targets.at([*parents, last])
                    continue
                there = {"src_dir_fd": sources.at(parents), "dst_dir_fd": targets.at(parents)}
                os.link(last, last, follow_symlinks=False, **there)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove_links(manifest, fd, source, part)
        raise
    finally:
        os.close(from_fd)
        os.close(to_fd)
    syscalls.rename_no_replace(part, name, fd)


def _remove_links(manifest: Manifest, fd: int, source: str, part: str) -> None:
    """Remove an unfinished second name of ``source``: links to its files, and their folders.

    Raises `FileExistsError` if anything else is there: a user, or a download, may have that name.
    """
    if paths.status_of(fd, part) is None:
        return
    from_fd, part_fd = paths.open_folder(fd, [source]), paths.open_folder(fd, [part])
    try:
        with paths.LastFolder(from_fd) as sources, paths.LastFolder(part_fd) as links:
            for entry in manifest.entries:
                *parents, last = entry.path.split("/")
                with contextlib.suppress(OSError):  # not made yet, or not ours
                    link = os.stat(last, dir_fd=links.at(parents), follow_symlinks=False)
                    own = os.stat(last, dir_fd=sources.at(parents), follow_symlinks=False)
                    if stat.S_ISREG(link.st_mode) and os.path.samestat(link, own):
                        os.unlink(last, dir_fd=links.at(parents))
            paths.remove_empty_folders(links, inner_folders(manifest.entries))
    finally:
        os.close(from_fd)
        os.close(part_fd)
    try:
        os.rmdir(part, dir_fd=fd)
    except OSError as error:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), part) from error


def discard(known: Manifests, content: bytes, path: str, version: int) -> None:
    """Remove a kept version; files that a user added to a folder of it stay as ``….old``.

    Raises `MiniTorrentError`, also if its bytes are others by now. A version that is gone is no
    error.
    """
    place = versioned(path, version)
    with contextlib.closing(Destination.again(place)) as destination:
        if destination.status(destination.name) is None:
            return
        manifest = _manifest(known, content)
        # Sizes do not tell it from a file that a user put there, so all of it is read.
        if damaged_pieces(manifest, place):
            raise MiniTorrentError("it has other bytes than the kept version")
        with translated(place, "remove"):
            meanwhile = replaced_name(destination.name)
            syscalls.rename_no_replace(destination.name, meanwhile, destination.fd)
        remove_replaced(destination, [manifest])


def _manifest(known: Manifests, content: bytes) -> Manifest:
    encoded = known.get(ContentId(content))
    if encoded is None:
        raise MiniTorrentError("its manifest is not on this device")
    return manifests.decode(encoded, ContentId(content))
