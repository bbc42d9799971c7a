"""Listeners of the HTTP application: the socket ``api.sock`` in the home, and the loopback port.

Owns: the sockets, which are bound here and handed to uvicorn, and their end. Invariant: an open
event stream does not delay the end of the peer: the feed is closed first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from common.errors import CannotListen
from peer.http.connections import BoundedConnection

log = logging.getLogger(__name__)

API_SOCKET = "api.sock"
LOOPBACK = "127.0.0.1"
IDLE_S = 30  # without a request a connection is closed
GRACE_S = 1  # for requests under way at the end


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the peer."""
        yield


class Listener:
    """One bound socket and its server. ``start`` and ``close`` run in the event loop."""

    def __init__(self, app: ASGIApp, bound: socket.socket) -> None:
        self._socket = bound
        config = uvicorn.Config(
            app,
            http=BoundedConnection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=GRACE_S,
        )
        self._server = _Server(config)
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to serve."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """Stop to serve; requests under way get `GRACE_S`."""
        if self._serving is None:
            self._socket.close()
            return
        self._server.should_exit = True
        with contextlib.suppress(Exception):
            await self._serving


def bind_unix(home: Path) -> socket.socket:
    """Bind ``api.sock`` in the home, 0600. Raises `CannotListen`.

    A socket that a killed peer left behind is replaced: the lock of the home is ours.
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
