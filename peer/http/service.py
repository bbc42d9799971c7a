"""HTTP service of a peer: its listeners, which start when they are asked for.

Owns: when the Unix socket and the loopback port are open, and the sessions of pages. The metrics
are served at the Unix socket alone. Not here: the application (see peer.http.application).

Invariant: an open event stream does not delay the end of the peer: the feed is closed first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from common.hints import hint
from common.host.clock import monotonic
from common.http.access import UNIX_HOSTS, Access, Sessions
from common.http.application import SESSION_PATH, application, session_routes
from common.http.binding import API_SOCKET, LOOPBACK, bind_loopback, bind_unix
from common.http.listener import Listener
from common.http.metrics_routes import metrics_routes
from common.http.page_files import is_page_path, page_routes
from common.messages import control
from peer.control.server import Handle
from peer.http.application import Api
from peer.http.event_feed import Listen
from peer.reading.manager import Reading

log = logging.getLogger(__name__)

PAGE = "peer.http"
OPEN_AGAIN = hint("open the page again", "web")


class HttpService:
    """The HTTP service of one peer. All methods run in its event loop."""

    def __init__(
        self,
        home: Path,
        handle: Handle,
        listen: Listen,
        release: str,
        metrics: Callable[[], str],
        reading: Reading,
    ) -> None:
        self._home = home
        self._metrics = metrics
        self._api = Api(handle, listen, release, reading)
        self._sessions = Sessions(monotonic)
        self._listeners: list[Listener] = []
        self._page_url: str | None = None

    def serve_socket(self) -> None:
        """Serve the API at ``api.sock`` in the home. Raises `CannotListen`."""
        # It is ready: the control socket opened before.
        monitoring = metrics_routes(self._metrics, lambda: "")
        app = application([*self._api.routes(), *monitoring], Access(UNIX_HOSTS, None))
        self._start(Listener(app, bind_unix(self._home)))
        log.info("http: the API is at %s", self._home / API_SOCKET)

    def open_page(self) -> control.PageOpened:
        """Serve the page at a loopback port, and return its address with a one-time secret.

        Raises `CannotListen`.
        """
        if self._page_url is None:
            bound = bind_loopback()
            port = bound.getsockname()[1]
            hosts = frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})
            session = session_routes(self._sessions, OPEN_AGAIN)
            routes = [*page_routes(PAGE), *session, *self._api.routes()]
            app = application(routes, Access(hosts, self._sessions, OPEN_AGAIN), _is_public)
            self._start(Listener(app, bound))
            self._page_url = f"http://{LOOPBACK}:{port}/"
            log.info("http: the page is at %s", self._page_url)
        return control.PageOpened(self._page_url, self._sessions.new_secret())

    def _start(self, listener: Listener) -> None:
        listener.start()
        self._listeners.append(listener)

    async def close(self) -> None:
        """End all streams and listeners."""
        self._api.close()
        for listener in self._listeners:
            await listener.close()
        (self._home / API_SOCKET).unlink(missing_ok=True)


def _is_public(path: str) -> bool:
    return path == SESSION_PATH or is_page_path(path)
