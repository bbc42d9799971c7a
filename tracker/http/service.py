"""HTTP service of a tracker: its listeners on sockets that the tracker has bound.

Owns: which routes each listener has. The API is at the Unix socket and, behind a session, at the
page's loopback port; the port for Prometheus has the monitoring alone.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from common.hints import tracker_hint
from common.host.clock import monotonic
from common.host.release import RELEASE
from common.http.access import UNIX_HOSTS, Access, Sessions
from common.http.application import SESSION_PATH, application, session_routes
from common.http.binding import LOOPBACK, address_of
from common.http.listener import Listener
from common.http.metrics_routes import metrics_routes
from common.http.page_files import is_page_path, page_routes
from tracker.http.api import Api
from tracker.http.tracker_client import TrackerClient

PAGE = "tracker.http"
OPEN_AGAIN = tracker_hint("open the page again", "web")


@dataclass(frozen=True, slots=True)
class Sockets:
    """Bound sockets. ``api``, ``metrics``: None if it is off. ``origin``: of a proxy's page."""

    page: socket.socket
    api: socket.socket | None = None
    metrics: socket.socket | None = None
    origin: str | None = None


class HttpService:
    """The HTTP service of one tracker. All methods run in its event loop."""

    def __init__(self, home: Path, sockets: Sockets) -> None:
        self._sockets = sockets
        self._client = TrackerClient(home)
        self._api = Api(home, self._client, RELEASE)
        self._sessions = Sessions(monotonic)
        self._listeners: list[Listener] = []
        self._page_is_open = False

    def start(self) -> None:
        """Serve the API and the metrics, as far as they are on."""
        monitoring = metrics_routes(self._api.metrics, self._api.unready, self._api.unhealthy)
        sockets = self._sockets
        if sockets.api is not None:
            routes = [*page_routes(PAGE), *self._api.routes(), *monitoring]
            access = Access(UNIX_HOSTS, None, origin=sockets.origin)
            self._serve(application(routes, access, is_page_path), sockets.api)
        if sockets.metrics is not None:
            access = Access(_hosts_of(sockets.metrics), None)
            self._serve(application(monitoring, access), sockets.metrics)

    def open_page(self) -> str:
        """Serve the page, and return a one-time secret for it."""
        if not self._page_is_open:
            port = self._sockets.page.getsockname()[1]
            hosts = frozenset({f"{LOOPBACK}:{port}", f"localhost:{port}"})
            session = session_routes(self._sessions, OPEN_AGAIN)
            routes = [*page_routes(PAGE), *session, *self._api.routes()]
            access = Access(hosts, self._sessions, OPEN_AGAIN)
            self._serve(application(routes, access, _is_public), self._sockets.page)
            self._page_is_open = True
        return self._sessions.new_secret()

    def _serve(self, app: ASGIApp, bound: socket.socket) -> None:
        listener = Listener(app, bound)
        listener.start()
        self._listeners.append(listener)

    async def close(self) -> None:
        """End all listeners."""
        self._api.close()
        for listener in self._listeners:
            await listener.close()
        self._client.close()


def _is_public(path: str) -> bool:
    return path == SESSION_PATH or is_page_path(path)


def _hosts_of(bound: socket.socket) -> frozenset[str] | None:
    """Return the hosts that requests for the metrics may name; None admits all.

    Why: off this machine Prometheus uses names that the tracker does not know. On this machine a
    page in the browser could point a name of its own at the port.
    """
    host, port = bound.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback:
        return None
    return frozenset({address_of(bound), f"localhost:{port}"})
