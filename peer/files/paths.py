"""Opening and making of files beneath a folder, never outside it.

Every step starts from the handle of the folder above and follows no link, so a link planted on the
way leads nowhere. Not here: decisions about names (see common.names). Raises `OSError`; callers
translate it with ``peer.files.errors``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress

from common.host.atomic_files import is_refusal

# Flags that a file system may refuse; the checks around each open make up for them.
_SOFT = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: a FIFO in the place of a file must not hold the thread until a program writes to it.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def open_real_folder(path: str, *, path_only: bool = False) -> int:
    """Open a folder by an absolute path without a single link in it.

    ``path_only``: open it as a path (``O_PATH``), only to reach its entries; it need not be
    readable then (mode 711).
    """
    fd = reach_real_folder(path)
    try:
        return open_same_folder(fd, path_only=path_only)
    finally:
        os.close(fd)


def reach_real_folder(path: str) -> int:
    """Open it as a handle that need not be readable, to check it and to go on from it."""
    fd = os.open("/", os.O_PATH | _FOLDER)
    try:
        for name in (part for part in path.split("/") if part):
            fd = _exchange(fd, os.open(name, os.O_PATH | _FOLDER, dir_fd=fd))
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_same_folder(fd: int, *, path_only: bool = False) -> int:
    """A new handle for the folder that is open as ``fd``, to list and sync it, or, with
    ``path_only``, only to open entries of it.
    """
    # No link can stand at ".": the flag has no use, and some file systems refuse it.
    flags = (os.O_PATH if path_only else os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
    return os.open(".", flags, dir_fd=fd)


def open_folder(
    root_fd: int, parts: Sequence[str], make: bool = False, *, path_only: bool = False
) -> int:
    """Open the folder at ``parts`` beneath ``root_fd``; with ``make``, missing ones are made.

    The caller closes the handle, also if ``parts`` is empty. ``path_only``: as above.
    """
    fd = open_same_folder(root_fd, path_only=path_only)
    try:
        for name in parts:
            fd = _exchange(fd, _step_into(fd, name, make, path_only))
    except BaseException:
        os.close(fd)
        raise
    return fd


class LastFolder:
    """Opens folders beneath a root and keeps the last one, which neighbours in a tree share."""

    def __init__(self, root_fd: int, make: bool = False, *, path_only: bool = False) -> None:
        self._root_fd = root_fd
        self._make = make
        self._path_only = path_only
        self._parts: Sequence[str] | None = None
        self._fd = -1

    def __enter__(self) -> LastFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()

    def at(self, parts: Sequence[str]) -> int:
        """The folder at ``parts``, for use until the next call; the caller does not close it."""
        if parts != self._parts:
            self._forget()
            self._fd = open_folder(self._root_fd, parts, self._make, path_only=self._path_only)
            self._parts = parts
        return self._fd

    def _forget(self) -> None:
        if self._parts is not None:
            os.close(self._fd)
            self._parts = None


def remove_empty_folders(folders: LastFolder, within: Iterable[str]) -> None:
    """Remove those of the folders at the paths ``within`` that are empty, the deepest first."""
    for path in sorted(within, reverse=True):
        *parents, name = path.split("/")
        with suppress(OSError):
            os.rmdir(name, dir_fd=folders.at(parents))


def _step_into(folder_fd: int, name: str, make: bool, path_only: bool) -> int:
    try:
        return _enter(folder_fd, name, path_only)
    except FileNotFoundError:
        if not make:
            raise
    try:
        os.mkdir(name, dir_fd=folder_fd)
    except FileExistsError:
        pass  # another thread was faster; opening fails if it is no folder
    return _enter(folder_fd, name, path_only)


def _enter(folder_fd: int, name: str, path_only: bool) -> int:
    try:
        access = os.O_PATH if path_only else os.O_RDONLY
        return os.open(name, access | _FOLDER, dir_fd=folder_fd)
    except OSError as error:
        if not is_refusal(error) or error.errno == errno.ENOTDIR:
            raise
    # With O_PATH the file system itself is not asked to open anything, nor for its flags.
    fd = os.open(name, os.O_PATH | _FOLDER, dir_fd=folder_fd)
    try:
        return open_same_folder(fd, path_only=path_only)
    finally:
        os.close(fd)


def _exchange(old_fd: int, new_fd: int) -> int:
    os.close(old_fd)
    return new_fd


def open_to_read(folder_fd: int, name: str) -> int:
    """Open a plain file to read it; anything else is an error."""
    return _plain(open_anything(folder_fd, name), name)


def open_anything(folder_fd: int, name: str) -> int:
    """Open an entry of any kind to read it, but no link."""
    return _open_file(folder_fd, name, os.O_RDONLY)


def _open_file(folder_fd: int, name: str, access: int) -> int:
    """Open without following a link, also where the file system refuses the flags for that."""
    try:
        return os.open(name, access | _FILE, dir_fd=folder_fd)
    except OSError as error:
        if not is_refusal(error):
            raise
        refused = error
    # Held open, so that its number cannot be given to another file meanwhile.
    seen = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder_fd)
    try:
        if not stat.S_ISREG(os.fstat(seen).st_mode):
            raise refused
        fd = os.open(name, access | _FILE & ~_SOFT, dir_fd=folder_fd)
        if not os.path.samestat(os.fstat(fd), os.fstat(seen)):
            os.close(fd)
            raise OSError(errno.ELOOP, "it was replaced by something else", name)
        return fd
    finally:
        os.close(seen)


def create_file(folder_fd: int, name: str) -> int:
    """Make a file that is not there yet, and open it to read and write."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE
    try:
        return os.open(name, flags, 0o666, dir_fd=folder_fd)
    except OSError as error:
        if not is_refusal(error):
            raise
    # O_EXCL alone follows no link: the name must not be there at all.
    return os.open(name, flags & ~_SOFT, 0o666, dir_fd=folder_fd)


def open_to_write(folder_fd: int, name: str) -> int:
    """Open an existing plain file to read and write, if it has no other link."""
    # Checked first, because merely opening some devices has effects.
    _refuse_unless_plain(os.stat(name, dir_fd=folder_fd, follow_symlinks=False), name)
    fd = _plain(_open_file(folder_fd, name, os.O_RDWR), name)
    if os.fstat(fd).st_nlink > 1:
        os.close(fd)
        raise OSError(errno.ELOOP, "the file has several links", name)
    return fd


def _plain(fd: int, name: str) -> int:
    try:
        _refuse_unless_plain(os.fstat(fd), name)
    except OSError:
        os.close(fd)
        raise
    return fd


def _refuse_unless_plain(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ELOOP, f"it is {kind_of(status)}", name)


def kind_of(status: os.stat_result) -> str:
    """The kind of an entry, in words."""
    mode = status.st_mode
    for test, words in _KINDS:
        if test(mode):
            return words
    return "no plain file"


_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISCHR, "a device"),
)


def is_link(status: os.stat_result) -> bool:
    """Whether it is a symbolic link."""
    return stat.S_ISLNK(status.st_mode)


def status_of(folder_fd: int, name: str) -> os.stat_result | None:
    """The status of ``name`` itself, without following links; None if it is free."""
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
