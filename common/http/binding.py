"""Sockets of an HTTP application: ``api.sock`` in a home, a loopback port, a port for metrics.

Not here: the server on them (see common.http.listener).
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from common.errors import CannotListen, ConfigError

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


def bind_address(address: str) -> socket.socket:
    """Bind HOST:PORT for the metrics. Raise `ConfigError`, `CannotListen`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not (port.isascii() and port.isdecimal()) or int(port) > 65_535:
        raise ConfigError(
            f"the address {address!r} for the metrics is invalid", "write HOST:PORT: 127.0.0.1:9100"
        )
    try:
        [(family, kind, protocol, _, where), *_] = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        made = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(where)
        except BaseException:
            made.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"cannot listen at {address} for the metrics: {reason}") from error
    return made


def address_of(bound: socket.socket) -> str:
    """Return HOST:PORT of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
