"""Listener: one bound socket, and the server of an ASGI application on it.

Owns: bounds on connections, and the end of the server. Signals stay those of the process. Not here:
binding (see common.http.binding).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from starlette.types import ASGIApp

from common.http.connections import BoundedConnection

IDLE_S = 30  # without a request a connection is closed
GRACE_S = 1  # for requests under way at the end


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process."""
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
            log_level="warning",
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
