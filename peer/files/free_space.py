"""Free space on the disk of a path that need not exist yet.

Not here: the check before a download (see peer.files.destination).
"""

from __future__ import annotations

import os

from peer.files.errors import storage_error


def free_space(path: str) -> tuple[str, int | None]:
    """Return the deepest existing folder on the way to ``path``, and the bytes that are free there.

    None: the file system does not tell. Blocks. Raises `StorageError`.
    """
    folder = path
    while not os.path.isdir(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    try:
        found = os.statvfs(folder)
    except OSError as error:
        raise storage_error(error, folder, "look at") from error
    return folder, found.f_bavail * found.f_frsize if found.f_blocks else None
