"""Atomic writes of small files.

Owns: the one way in which keys, settings and records reach the disk, and the removal of temporary
files that a killed process left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

from common.errors import StorageError

_TOKEN_BYTES = 8
# The step was tried, and failed or found something in its way. Every other answer is that of a file
# system that does not know the step: vfat, CIFS, FUSE and NAS boxes give EPERM, EACCES, EINVAL,
# ENOSYS, EOPNOTSUPP, EROFS, EXDEV, ENOTTY and EBADF for that.
_FAILURES = frozenset(
    {
        *(errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM),
        *(errno.EMFILE, errno.ENFILE, errno.EINTR, errno.EAGAIN, errno.EBUSY),
        *(errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
        *(errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.ENOTCONN),
        *(errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTDOWN, errno.EHOSTUNREACH),
        *(errno.ENETDOWN, errno.ENETUNREACH, errno.ECONNABORTED, errno.ECONNRESET),
        *(errno.EBADMSG, errno.EUCLEAN, errno.ESHUTDOWN),
    }
)
_LEFTOVER = re.compile(rf".+\.[0-9a-f]{{{2 * _TOKEN_BYTES}}}\.new", re.DOTALL)


def is_refusal(error: OSError) -> bool:
    """Whether ``error`` means that the file system does not support the step.

    Another step may then do instead. False when the step itself failed.
    """
    return error.errno not in _FAILURES


def atomic_write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` (0600): after a crash the file has its old or its new content.

    Without ``durable`` no sync is awaited, and a power failure may leave any content. Thread
    safety: of concurrent writers, threads or processes, one wins with its whole content. Raises
    `StorageError`.
    """
    # Why: a temporary name shared with another writer would be renamed with half of its content.
    temporary = path.with_name(f"{path.name}.{os.urandom(_TOKEN_BYTES).hex()}.new")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                file.flush()
                if durable:
                    _sync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def remove_temp_files(directory: Path) -> None:
    """Remove temporary files of `atomic_write` in ``directory`` whose process was killed.

    Invariant: no other process writes to ``directory`` meanwhile. Raises `StorageError`.
    """
    try:
        for path in directory.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot clear {directory}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make names that were created or renamed in ``path`` durable, as far as its file system knows
    how. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if not is_refusal(error):
            raise
