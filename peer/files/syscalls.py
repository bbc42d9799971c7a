"""The calls of Linux that Python's ``os`` lacks: reserve, rename without replacing, sync all.

Owns the bindings and their fall-backs on systems that lack a call. Raises `OSError`, as ``os``
does. All of them release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Any, Final

_libc = ctypes.CDLL(None, use_errno=True)

_RENAME_NOREPLACE: Final = 1
_TMPFS_MAGIC: Final = 0x01021994
_RAMFS_MAGIC: Final = 0x858458F6
_UNSUPPORTED: Final = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP})


def _bound(name: str, *argument_types: Any) -> Any:
    function = getattr(_libc, name, None)
    if function is not None:
        function.argtypes = argument_types
        function.restype = ctypes.c_int
    return function


_fallocate = _bound("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_syncfs = _bound("syncfs", ctypes.c_int)
_fstatfs = _bound("fstatfs", ctypes.c_int, ctypes.c_void_p)
_renameat2 = _bound(
    "renameat2", ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint
)


def _call(function: Any, *arguments: Any) -> None:
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    while function(*arguments) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))


def reserve(fd: int, offset: int, length: int) -> bool:
    """Take room on the disk for a stretch of a file, which reads as zeros until it is written.

    Returns False, having done nothing, where the file system cannot, or where that would take
    memory instead of disk (tmpfs). The C library's ``posix_fallocate`` would write every block.
    """
    if length == 0 or lives_in_memory(fd):
        return False
    try:
        _call(_fallocate, fd, 0, offset, length)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def lives_in_memory(fd: int) -> bool:
    """Whether the file is on tmpfs or ramfs."""
    buffer = ctypes.create_string_buffer(256)  # larger than any struct statfs; f_type comes first
    try:
        _call(_fstatfs, fd, buffer)
    except OSError:
        return False
    kind = ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF
    return kind in (_TMPFS_MAGIC, _RAMFS_MAGIC)


def sync_file_system(fd: int) -> None:
    """Write back everything of the file system that ``fd`` is on, and report its errors."""
    if _syncfs is None:
        os.sync()
        return
    _call(_syncfs, fd)


def rename_no_replace(old: str, new: str, folder_fd: int) -> None:
    """Rename within one folder; `FileExistsError` if ``new`` is there, whatever it is.

    Where the file system knows no such rename, a file is linked and unlinked, which is as good. For
    a folder, and where there are no hard links either, the check and the rename are two steps.
    """
    try:
        _call(
            _renameat2, folder_fd, os.fsencode(old), folder_fd, os.fsencode(new), _RENAME_NOREPLACE
        )
        return
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise _named(error, new) from None
    try:
        os.link(old, new, src_dir_fd=folder_fd, dst_dir_fd=folder_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _UNSUPPORTED | {errno.EPERM, errno.EMLINK}:
            raise
    else:
        os.unlink(old, dir_fd=folder_fd)
        return
    try:
        os.stat(new, dir_fd=folder_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)


def _named(error: OSError, path: str) -> OSError:
    return OSError(error.errno, error.strerror, path)
