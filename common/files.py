"""Small files that are written whole or not at all.

Owns the one way in which keys, settings and records reach the disk.
"""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import StorageError


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` (0600) so that a crash leaves all of it or what was there before.

    Raises `StorageError`.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.unlink(missing_ok=True)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def sync_directory(path: Path) -> None:
    """Make names that were created or renamed in ``path`` durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
