"""Linux calls that Python's ``os`` lacks: reserve, share blocks, rename, sync all.

Owns: the bindings, and the alternatives on systems that lack a call. Raises `OSError`, as ``os``
does. Thread safety: all release the interpreter's lock.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from fcntl import ioctl
from typing import Any, Final

from common.host.atomic_files import is_refusal

_libc = ctypes.CDLL(None, use_errno=True)

_RENAME_NOREPLACE: Final = 1
_RENAME_EXCHANGE: Final = 2
_FICLONERANGE: Final = 0x4020940D
_TMPFS_MAGIC: Final = 0x01021994
_RAMFS_MAGIC: Final = 0x858458F6


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
    """Reserve disk space for a range of a file, which reads as zeros until it is written.

    Return False, without effect, if the file system cannot, or if that would take memory instead of
    disk (tmpfs). Why: the C library's ``posix_fallocate`` would write every block.
    """
    if length == 0 or lives_in_memory(fd):
        return False
    try:
        _call(_fallocate, fd, 0, offset, length)
    except OSError as error:
        if is_refusal(error):
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


def share_blocks(source_fd: int, source: int, length: int, fd: int, offset: int) -> None:
    """Let a range of ``fd`` share the blocks of a range of another file, until one is written.

    Both begin at a block, and end at one unless both end with their files.
    """
    ioctl(fd, _FICLONERANGE, struct.pack("=qQQQ", source_fd, source, length, offset))


def sync_file_system(fd: int) -> None:
    """Write back everything on the file system of ``fd``, and report its errors.

    If the system lacks that call, everything on all file systems is written back.
    """
    try:
        _call(_syncfs, fd)
    except OSError as error:
        if not is_refusal(error):
            raise
        os.sync()


def sync_file(fd: int, *, data_only: bool = False) -> OSError | None:
    """Write back one file or folder, and report its errors.

    If the file system lacks that call for it, use the next wider one, and return the error of the
    first.
    """
    steps: list[Callable[[int], None]] = [os.fsync, sync_file_system]
    if data_only:
        steps.insert(0, os.fdatasync)
    first: OSError | None = None
    for step in steps:
        try:
            step(fd)
        except OSError as error:
            if not is_refusal(error):
                raise
            first = first or error
        else:
            break
    return first


def exchange(one: str, other: str, folder_fd: int) -> None:
    """Exchange two names of one folder in one step."""
    encoded = os.fsencode(one), os.fsencode(other)
    _call(_renameat2, folder_fd, encoded[0], folder_fd, encoded[1], _RENAME_EXCHANGE)


def rename_no_replace(old: str, new: str, folder_fd: int, new_folder_fd: int = -1) -> bool:
    """Rename; raise `FileExistsError` if ``new`` exists, of any kind.

    ``new_folder_fd``: the folder of ``new``, if that is another one.

    Where the file system lacks such a rename, a file is linked and unlinked, which is as good. For
    a folder, and without hard links, the check and the rename are two steps. The last way is always
    tried, and its error is the one raised.

    Return whether ``old`` still exists as a second name of the same file.
    """
    to_fd = folder_fd if new_folder_fd < 0 else new_folder_fd
    try:
        _call(_renameat2, folder_fd, os.fsencode(old), to_fd, os.fsencode(new), _RENAME_NOREPLACE)
        return False
    except OSError as error:
        if error.errno == errno.EEXIST:
            raise FileExistsError(error.errno, error.strerror, new) from None
    try:
        os.link(old, new, src_dir_fd=folder_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:
        pass
    else:
        try:
            os.unlink(old, dir_fd=folder_fd)
        except OSError:
            return True
        return False
    try:
        os.stat(new, dir_fd=to_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(old, new, src_dir_fd=folder_fd, dst_dir_fd=to_fd)
        return False
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), new)
