"""Creation of the part of a download, and its opening after a restart.

Owns: the names, the reserved space, and the order in which part and journal are made, so that a
process that ends at any point leaves a part that `resume` can open. Not here: the pieces (see
peer.files.partial_content).
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from common.host.clock import monotonic
from common.ids import ContentId
from common.manifest import Manifest
from common.names import quoted
from peer.files import addition, paths, replacement
from peer.files.destination import Destination, part_name, short_part_name
from peer.files.destination_names import require_usable_names
from peer.files.disk_space import needed_bytes, solid_ranges
from peer.files.errors import Away, NameTooLong, translated
from peer.files.folder_identity import Folder, FolderIdentity, why_away
from peer.files.journal import Journal
from peer.files.missing_folders import missing_folders
from peer.files.part_resources import Fit, PartResources
from peer.files.partfile import PartFile, PartFiles
from peer.files.partfolder import PartFolder
from peer.files.partial_content import PartialContent
from peer.files.replacement import refuse_irreplaceable, undo_interrupted
from peer.files.selected_content import content_of
from peer.files.selection import Selection
from peer.files.unverified_part import UnverifiedPart

WHOLE = Fit()
_BACK = "it goes on by itself when the folder is back"


class Admitted(NamedTuple):
    """Answer of `admit`: the path to record, the folders to make for it, and whether a file or
    folder stands there."""

    path: str
    missing: list[str]
    taken: bool


def admit(path: str) -> Admitted:
    """The destination of a download to ``path``, before anything is made.

    Record path and folders before `make_folders` and `create`: then `resume` finds whatever an
    ended process leaves behind. Raises `AlreadyExists` if the name of the part is in use,
    `UnsafeDestination` if anything but a file or folder has the final name, `ConfigError`.
    """
    folder, name = os.path.split(os.path.abspath(path))
    real, missing = missing_folders(folder)
    if missing and name:
        return Admitted(os.path.join(real, name), missing, False)
    with contextlib.closing(Destination.choose(path)) as destination:
        destination.refuse_if_there(replaced=True)
        taken = destination.status(destination.name) is not None
        return Admitted(destination.path, [], taken)


def require_replaceable(path: str, own_homes: Iterable[str]) -> None:
    """Raise `UnsafeDestination` or `AlreadyExists` unless a download may replace what stands at a
    recorded ``path``."""
    with contextlib.closing(Destination.again(path)) as destination:
        destination.refuse_if_there(replaced=True)
        refuse_irreplaceable(destination, own_homes)


def refuse_in_the_way(path: str, manifest: Manifest, selection: Selection) -> None:
    """`addition.refuse_in_the_way` for a recorded ``path``."""
    with contextlib.closing(Destination.again(path)) as destination:
        addition.refuse_in_the_way(destination, manifest, selection.entries)


def finish_addition(path: str, manifest: Manifest, fit: Fit) -> bool:
    """`addition.finish` for a recorded ``path``, after a restart."""
    if fit.selection is None or not fit.adds:
        return False
    with contextlib.closing(Destination.again(path)) as destination:
        if destination.status(destination.part) is not None:
            return False
        replace = fit.replaces is not None
        return addition.finish(destination, manifest, fit.selection.entries, replace=replace)


def remove_addition(path: str) -> None:
    """Remove what `finish_addition` would move."""
    with contextlib.closing(Destination.again(path)) as destination:
        addition.discard(destination)


def remove_replaced(path: str, manifests: Iterable[Manifest]) -> str | None:
    """`replacement.remove_replaced` for a recorded ``path``, after a restart."""
    with contextlib.closing(Destination.again(path)) as destination:
        return replacement.remove_replaced(destination, manifests)


def part_paths(path: str) -> tuple[str, str]:
    """The paths that the part of a download to a recorded ``path`` may have."""
    folder, name = os.path.split(path)
    return os.path.join(folder, part_name(name)), os.path.join(folder, short_part_name(name))


def has_part(path: str) -> bool:
    """Whether something has the name of the part of a download to a recorded ``path``.

    Raises `StorageError` if that cannot be told.
    """
    if not os.path.lexists(os.path.dirname(path)):
        return False
    with contextlib.closing(Destination.again(path)) as destination:
        return destination.status(destination.part) is not None


def require_folder(path: str, folder: Folder | None, begun: bool) -> Folder | None:
    """The folder of a recorded path as of now; raises `Away` if it is not the right one.

    ``folder`` is the recorded one. Another one is taken if the part is in it, as after a move to
    another disk. Without a record, an empty folder is taken for a mount point without its disk if
    the download was ``begun``. Return None for a path through a link, which opening refuses.
    """
    parent = os.path.dirname(path)
    try:
        now = Folder.at(parent)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return None
        why = os.strerror(error.errno or 0)
        raise Away(f"the folder {quoted(parent)} cannot be reached: {why}", _BACK) from error
    if folder is not None and now.is_same(folder):
        return now
    reason = why_away(path, None if folder is None else FolderIdentity(folder))
    if reason is None or (folder is None and not begun) or has_part(path):
        return now
    raise Away(reason, _BACK)


def create(
    path: str,
    manifest: Manifest,
    content: ContentId,
    journal_path: str,
    times: bool = True,
    *,
    fit: Fit = WHOLE,
    clock: Callable[[], float] = monotonic,
) -> PartialContent:
    """Create the part of a download to ``path``, whose folder must exist, and reserve its space.

    On failure nothing is left behind. ``times``: whether the content gets the times of its
    manifest. Raises `AlreadyExists`, `UnsafeDestination` (also
    for names that the file system refuses), `DiskFull`, `ReadOnly`, `ConfigError`.
    """
    with _closed_on_failure(Destination.choose(path)) as destination:
        part = _begin(destination, manifest, content, journal_path, times, fit)
        return content_of(part, clock=clock)


def resume(
    path: str,
    manifest: Manifest,
    content: ContentId,
    journal_path: str,
    times: bool = True,
    *,
    fit: Fit = WHOLE,
    anew: bool = False,
    clock: Callable[[], float] = monotonic,
) -> UnverifiedPart:
    """Open the part of a download to a recorded ``path`` after a restart.

    A part that has vanished is created anew. Raises `AlreadyExists` if there is no part but
    something under the final name, and the errors of `create`. The process may have ended after the
    rename: `sharing.recheck` tells whether it is the content. If it is another one and it is to be
    replaced or added to, the next call is made with ``anew``.
    """
    with _closed_on_failure(Destination.again(path)) as destination:
        destination.forget_second_name()
        if anew:
            undo_interrupted(destination)
        if destination.status(destination.part) is None:
            if not anew:
                destination.refuse_if_there()
            part = _begin(destination, manifest, content, journal_path, times, fit)
            return UnverifiedPart(part, only_verified_writes=True, clock=clock)
        files = _open_part(destination, manifest, times, fit.selection)
        try:
            journal, found = Journal.resume(journal_path, content, manifest.piece_count)
        except BaseException:
            files.close()
            raise
        return UnverifiedPart(
            PartResources(manifest, destination, files, journal, fit),
            found.pieces if found.intact else range(manifest.piece_count),
            journalled=found.intact,
            owned=not found.missing,
            clock=clock,
        )


@contextlib.contextmanager
def _closed_on_failure(destination: Destination) -> Iterator[Destination]:
    try:
        yield destination
    except BaseException:
        destination.close()
        raise


def _begin(
    destination: Destination,
    manifest: Manifest,
    content: ContentId,
    journal_path: str,
    times: bool,
    fit: Fit,
) -> PartResources:
    selection = fit.selection
    destination.refuse_if_there(replaced=fit.adds or fit.replaces is not None)
    destination.check_space(needed_bytes(manifest, destination.block_size, selection))
    files = _make_part(destination, manifest, times, selection)
    try:
        wanted = None if selection is None else selection.pieces()
        files.reserve(solid_ranges(manifest, wanted))
        destination.sync()
        journal = Journal.create(journal_path, content)
    except BaseException:
        try:
            destination.remove_part(files.fd)
        finally:
            files.close()
        raise
    return PartResources(manifest, destination, files, journal, fit)


def _make_part(
    destination: Destination, manifest: Manifest, times: bool, selection: Selection | None
) -> PartFiles:
    try:
        fd = _make(destination, manifest)
    except NameTooLong:
        if not destination.shorten_part():
            raise
        fd = _make(destination, manifest)
    try:
        destination.made(fd)
        if not manifest.is_folder:
            return PartFile(manifest, destination, fd, times=times)
        _try_names(destination, fd, manifest)
        return PartFolder(manifest, destination, fd, times=times, selection=selection)
    except BaseException:
        os.close(fd)
        raise


def _try_names(destination: Destination, fd: int, manifest: Manifest) -> None:
    try:
        require_usable_names(fd, destination.part_path, manifest)
    except BaseException:
        destination.remove_part(fd)
        raise


def _make(destination: Destination, manifest: Manifest) -> int:
    with translated(destination.part_path, "create"):
        if not manifest.is_folder:
            return paths.create_file(destination.fd, destination.part)
        os.mkdir(destination.part, dir_fd=destination.fd)
        try:
            return paths.open_folder(destination.fd, [destination.part])
        except BaseException:
            with contextlib.suppress(OSError):
                os.rmdir(destination.part, dir_fd=destination.fd)
            raise


def _open_part(
    destination: Destination, manifest: Manifest, times: bool, selection: Selection | None
) -> PartFiles:
    with translated(destination.part_path, "go on with"):
        if not manifest.is_folder:
            fd = paths.open_to_write(destination.fd, destination.part)
            destination.made(fd)
            return PartFile(manifest, destination, fd, times=times)
        fd = paths.open_folder(destination.fd, [destination.part])
        destination.made(fd)
        return PartFolder(manifest, destination, fd, times=times, found=True, selection=selection)
