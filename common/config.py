"""Homes: the private directory in which a tracker or a peer keeps what it must not lose.

Owns where it is, that only its owner can look into it, and that one process at a time uses it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path

import platformdirs

from common.errors import ConfigError, MiniTorrentError, StorageError
from common.files import sweep_leftovers
from common.messages.refusals import Code


class HomeBusy(MiniTorrentError):
    """Another process uses this home."""

    code = Code.BUSY


def default_home(kind: str) -> Path:
    """Where ``peer`` or ``tracker`` lives unless told otherwise (XDG data directory)."""
    return Path(platformdirs.user_data_dir("mini-torrent", appauthor=False)) / kind


def open_home(path: Path) -> Path:
    """Make ``path`` a home (0700) or check that it is one; returns it absolute.

    Raises `ConfigError` when others can look into it or it belongs to somebody else, `StorageError`
    when it cannot be made.
    """
    # Links are followed: what matters is whose the directory is in the end, and who can look in.
    path = Path(os.path.realpath(path.expanduser()))
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.lstat()
    except FileExistsError as error:
        raise ConfigError(f"{path} is not a directory", "choose another --home") from error
    except OSError as error:
        raise StorageError(f"cannot make the home {path}: {error.strerror}") from error
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(f"{path} is not a directory", "choose another --home")
    if info.st_uid != os.geteuid():
        raise ConfigError(f"the home {path} belongs to another user", "choose another --home")
    if info.st_mode & 0o077:
        raise ConfigError(f"other users can look into the home {path}", f"chmod 700 {path}")
    return path


class HomeLock:
    """Held by the one process that uses a home. Ends with the process, however that ends."""

    def __init__(self, home: Path) -> None:
        self._path = home / "lock"
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open {self._path}: {error.strerror}") from error
        if not self._take():
            os.close(self._fd)
            raise HomeBusy(f"another process uses the home {home}")
        os.ftruncate(self._fd, 0)
        os.write(self._fd, f"{os.getpid()}\n".encode())
        sweep_leftovers(home)

    def _take(self) -> bool:
        # Whoever asks for the holder holds the lock for a moment: one refusal proves nothing.
        for _ in range(10):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def release(self) -> None:
        """Let the next one in."""
        os.close(self._fd)


def lock_holder(home: Path) -> int | None:
    """The process id that holds the lock of ``home``; None when nobody does."""
    try:
        fd = os.open(home / "lock", os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None
