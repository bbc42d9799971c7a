"""Names that the file system of a destination may refuse, tried before a download begins.

Every name that Linux can hold may be shared. Some file systems fold case or composition, so that
``Foo`` and ``foo`` are one file; some refuse ``aux.c``, ``a.`` or ``a:b``. This module tries such
names in the empty part. Ordinary names are not tried.
"""

from __future__ import annotations

import errno
import os
import re
import unicodedata
from collections.abc import Iterator

from common.manifest import EntryKind, Manifest
from common.names import quoted
from peer.files import paths
from peer.files.errors import UnsafeDestination, storage_error

TRIED_MAX = 2_000  # names; for each a file is made and removed
_UNUSUAL = re.compile(
    r'[<>:"|?*\\]|[. \xa0]$|^ |'
    r"^(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9\xb9\xb2\xb3])(?:\.|$)",
    re.IGNORECASE,
)
_IGNORED = re.compile("[\u00ad\u034f\u180b-\u180f\u200b-\u200f\ufe00-\ufe0f\ufeff]")
_REFUSING = {errno.EINVAL, errno.EILSEQ, errno.ENAMETOOLONG, errno.ENOENT, errno.EISDIR}
_HINT = "choose a folder on another file system"


def require_usable_names(folder_fd: int, shown: str, manifest: Manifest) -> None:
    """Raise `UnsafeDestination` unless the file system of the empty folder can hold the names of
    ``manifest``, each beside its neighbours; `StorageError` for other errors.
    """
    unusual, twins = _suspects(manifest)
    try:
        for name in unusual:
            if not _held(folder_fd, name):
                raise UnsafeDestination(
                    f"{quoted(shown)} cannot hold the name {quoted(name)}", _HINT
                )
        for one, other in twins:
            if _are_one(folder_fd, one, other):
                raise UnsafeDestination(
                    f"{quoted(one)} and {quoted(other)} would be one file in {quoted(shown)}", _HINT
                )
    except OSError as error:
        raise storage_error(error, shown, "create a file in") from error


def _suspects(manifest: Manifest) -> tuple[list[str], list[tuple[str, str]]]:
    """Unusual names, and pairs of siblings that some file system takes for one; each kind once."""
    unusual: dict[str, None] = {}
    twins: dict[tuple[str, str], None] = {}
    for siblings in _folders(manifest):
        by_fold: dict[str, str] = {}
        for name in siblings:
            if len(unusual) < TRIED_MAX and _UNUSUAL.search(name):
                unusual[name] = None
            other = by_fold.setdefault(_coarse(name), name)
            if other != name and len(twins) < TRIED_MAX:
                twins[other, name] = None
    return [*unusual], [*twins]


def _coarse(name: str) -> str:
    """A key that is equal for all names that some file system takes for one."""
    if name.isascii():
        return name.lower().rstrip(". ")
    visible = _IGNORED.sub("", unicodedata.normalize("NFKD", name))
    return unicodedata.normalize("NFKD", visible.casefold()).rstrip(". ")


def _folders(manifest: Manifest) -> Iterator[list[str]]:
    """The names in each folder. Entries come in order, so a folder is whole when it is left."""
    open_folders: list[list[str]] = [[]]
    last: list[str] = []
    for entry in manifest.entries:
        parts = entry.path.split("/")
        level = 0
        while level < min(len(parts), len(last)) and parts[level] == last[level]:
            level += 1
        while len(open_folders) > level + 1:
            yield open_folders.pop()
        for depth in range(level, len(parts)):
            open_folders[-1].append(parts[depth])
            if depth + 1 < len(parts) or entry.kind is EntryKind.FOLDER:
                open_folders.append([])
        last = parts
    yield from reversed(open_folders)


def _held(folder_fd: int, name: str) -> bool:
    """Whether a file of that name can be made, and is listed under it."""
    try:
        os.close(paths.create_file(folder_fd, name))
    except OSError as error:
        if error.errno in _REFUSING:
            return False
        raise
    found = os.listdir(folder_fd)
    _clear(folder_fd)
    return found == [name]


def _are_one(folder_fd: int, one: str, other: str) -> bool:
    os.close(paths.create_file(folder_fd, one))
    found = paths.status_of(folder_fd, other)
    _clear(folder_fd)
    return found is not None


def _clear(folder_fd: int) -> None:
    for name in os.listdir(folder_fd):
        os.unlink(name, dir_fd=folder_fd)
