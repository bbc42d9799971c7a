"""Small files that are written whole or not at all.

Owns the one way in which keys, settings and records reach the disk, and what it leaves when the
process dies meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
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
    """Whether a file system says with this that it does not know the step, so that another step
    may do instead. False when the step itself failed."""
    return error.errno not in _FAILURES


def atomic_write(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Put ``content`` at ``path`` (0600) so that a crash leaves all of it or what was there before.

    Without ``durable`` it waits for no disk, and a power failure may leave anything. Threads and
    processes that write the same file at once leave what one of them wrote. Raises `StorageError`.
    """
    # A name that nobody else writes to: a shared one would be renamed with half of its content.
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(_TOKEN_BYTES)}.new")
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
    """Remove what `write_whole` left in ``directory`` when its process died.

    Nobody else may be writing there. Raises `StorageError`.
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
