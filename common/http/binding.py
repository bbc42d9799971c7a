"""Sockets of an HTTP application: ``api.sock`` in a home, and a loopback port.

Not here: the server on them (see common.http.listener).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from common.errors import CannotListen

API_SOCKET = "api.sock"
LOOPBACK = "127.0.0.1"


def bind_unix(home: Path) -> socket.socket:
    """Bind ``api.sock`` in the home, 0600. Raises `CannotListen`.

    A socket that a killed process left behind is replaced: the lock of the home is ours.
    """
    path = home / API_SOCKET
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    before = os.umask(0o177)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise CannotListen(f"cannot listen at {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    return made


def bind_loopback() -> socket.socket:
    """Bind a free port of the loopback address. Raises `CannotListen`."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.bind((LOOPBACK, 0))
    except OSError as error:
        made.close()
        raise CannotListen(f"cannot listen at {LOOPBACK}: {error.strerror}") from error
    return made
