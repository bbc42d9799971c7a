"""Place of the control socket of a home, which the command line and its process share."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from common.errors import ConfigError
from common.hints import shell_hint

SOCKET = "control.sock"
SOCKET_PATH_BYTES_MAX = 100  # the kernel takes 107; libzmq wants a few of them


def control_endpoint(home: Path) -> str:
    """The endpoint of the control socket of ``home``.

    If the path of the home is too long for a socket, it is in a private directory elsewhere, which
    is created here. Raises `ConfigError` if other users can open that directory.
    """
    path = home / SOCKET
    if _fits(path):
        return f"ipc://{path}"
    directory = _directories(home)[0]
    for part in (directory.parent, directory):
        part.mkdir(mode=0o700, exist_ok=True)
        _check_private(part)
    return f"ipc://{directory / SOCKET}"


def find_endpoint(home: Path) -> str:
    """The endpoint of a running peer of ``home``. Creates nothing.

    Why several places: a peer started by a service manager or over ssh may have had another
    directory for its session.
    """
    path = home / SOCKET
    if _fits(path):
        return f"ipc://{path}"
    directories = _directories(home)
    for directory in directories:
        if (directory / SOCKET).exists():
            _check_private(directory.parent)
            _check_private(directory)
            return f"ipc://{directory / SOCKET}"
    return f"ipc://{directories[0] / SOCKET}"


def has_socket(home: Path) -> bool:
    """Whether the control socket of ``home`` is there; one that a crash left counts as well."""
    return os.path.lexists(find_endpoint(home).removeprefix("ipc://"))


def _fits(path: Path) -> bool:
    try:
        return len(str(path).encode()) <= SOCKET_PATH_BYTES_MAX
    except UnicodeEncodeError:  # bytes that are no UTF-8: libzmq cannot be told such a path
        return False


def _directories(home: Path) -> list[Path]:
    import hashlib  # only for a home with a long path

    name = hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest()[:24]
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    bases = [Path(session) / "mini-torrent"] if session.startswith("/") else []
    bases.append(Path(f"/run/user/{os.geteuid()}/mini-torrent"))
    bases.append(Path(f"/tmp/mini-torrent-{os.geteuid()}"))
    places = [base / name for base in bases if base.parent.is_dir()]
    return [place for place in places if _fits(place / SOCKET)] or [bases[-1] / name]


def _check_private(directory: Path) -> None:
    info = directory.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise ConfigError(
            f"{directory} is open to other users",
            shell_hint(
                "choose a --home with a shorter path, or see whose it is",
                *("ls", "-ld", str(directory)),
            ),
        )
