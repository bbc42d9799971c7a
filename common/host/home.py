"""Home: the private directory with the state of a tracker or a peer.

Owns: its location, its privacy (only the owner can read it) and its lock (one process at a time).
"""

from __future__ import annotations

import fcntl
import os
import shlex
import stat
import time
from pathlib import Path

from common.errors import ConfigError, MiniTorrentError, StorageError
from common.hints import shell_hint
from common.host.atomic_files import remove_temp_files
from common.messages.refusals import Code


class HomeBusy(MiniTorrentError):
    """Home that another process uses."""

    code = Code.BUSY


def default_home(kind: str) -> Path:
    """Return the default home of ``peer`` or ``tracker`` (XDG data directory)."""
    import platformdirs

    return Path(platformdirs.user_data_dir("mini-torrent", appauthor=False)) / kind


def open_home(path: Path) -> Path:
    """Make ``path`` a home (0700) or check that it is one; returns it absolute.

    Raises `ConfigError` when others can look into it, may replace it, or own it; `StorageError`
    when it cannot be made.
    """
    # Links are followed: what matters is whose the directory is in the end, and who can look in.
    path = Path(os.path.realpath(path.expanduser()))
    _check_way(path)
    try:
        for folder in (*reversed(path.parents), path):
            if not os.path.lexists(folder):
                folder.mkdir(mode=0o700, exist_ok=True)  # whatever the umask says
        info = path.lstat()
    except OSError as error:
        raise StorageError(f"cannot make the home {path}: {error.strerror}") from error
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(f"{path} is not a directory", "choose another --home")
    if info.st_uid != os.geteuid():
        raise ConfigError(f"the home {path} belongs to another user", "choose another --home")
    if info.st_mode & 0o077:
        raise ConfigError(
            f"other users can look into the home {path}",
            shell_hint("close it", "chmod", "700", str(path)),
        )
    _check_way(path)  # once more, for what was made meanwhile
    return path


def _check_way(home: Path) -> None:
    fault = fault_above(home)
    if fault is not None:
        raise ConfigError(*fault)


def fault_above(home: Path) -> tuple[str, str] | None:
    """Return why another user could replace ``home`` despite its own mode, and the hint.

    None if no other user can.

    Limits: a folder that a group may write to is taken, since many systems give each user a group
    of their own.
    """
    ours = {0, os.geteuid()} | _unmapped()
    for folder in home.parents:
        try:
            info = folder.lstat()
        except OSError:
            continue  # it is still to be made, or is not for us to look at
        if info.st_uid not in ours:
            return (
                f"the home {home} lies in {folder}, which belongs to another user",
                "choose another --home",
            )
        # In a folder with the sticky bit, as /tmp, names can be changed by their owners alone.
        if info.st_mode & stat.S_IWOTH and not info.st_mode & stat.S_ISVTX:
            return (
                f"the home {home} lies in {folder}, to which all users may write",
                f"chmod o-w {shlex.quote(str(folder))}",
            )
    return None


def _unmapped() -> set[int]:
    """Return the user id that a container shows for files of unmapped users, such as its root."""
    try:
        if Path("/proc/self/uid_map").read_text("ascii").split() == ["0", "0", "4294967295"]:
            return set()
        return {int(Path("/proc/sys/kernel/overflowuid").read_text("ascii"))}
    except (OSError, ValueError):
        return set()


class HomeLock:
    """Lock of the one process that uses a home. The kernel releases it when the process ends."""

    def __init__(self, home: Path) -> None:
        self._path = home / "lock"
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StorageError(f"cannot open {self._path}: {error.strerror}") from error
        if not self._take():
            os.close(self._fd)
            raise HomeBusy(f"another process uses the home {home}")
        try:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, f"{os.getpid()}\n".encode())
        except OSError as error:
            os.close(self._fd)
            raise StorageError(f"cannot write {self._path}: {error.strerror}") from error
        remove_temp_files(home)

    def _take(self) -> bool:
        # Why: `lock_holder` takes the lock for a moment, so one failure proves nothing.
        for _ in range(10):
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                time.sleep(0.02)
            else:
                return True
        return False

    def release(self) -> None:
        """Release the lock."""
        os.close(self._fd)


def process_of(home: Path, advice: str) -> int | None:
    """Return `lock_holder` of a home of this user. Raise `ConfigError`, with ``advice``, if it
    belongs to another one."""
    try:
        owner = home.lstat().st_uid
    except OSError:
        return None
    if owner != os.geteuid():
        raise ConfigError(f"the home {home} belongs to another user", advice)
    return lock_holder(home)


def lock_holder(home: Path) -> int | None:
    """Return the id of the process that holds the lock of ``home``; None if the lock is free."""
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
