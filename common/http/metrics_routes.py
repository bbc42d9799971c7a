"""Routes of the monitoring: ``/metrics``, ``/healthz`` and ``/readyz``, all of them GET.

Not here: rights (see common.http.access), and what is counted.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from common.errors import MiniTorrentError
from common.metrics.exposition import CONTENT_TYPE

HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def metrics_routes(
    metrics: Callable[[], str | Awaitable[str]],
    unready: Callable[[], str | Awaitable[str]],
    unhealthy: Callable[[], str | Awaitable[str]] = lambda: "",
) -> list[Route]:
    """Return the routes.

    ``metrics``: their text. ``unready``: the reason why the program cannot work; empty if it can.
    ``unhealthy``: the same for a program that hangs; that it answers is all if it runs here.
    """

    async def scraped(request: Request) -> Response:
        try:
            text = await _awaited(metrics())
        except MiniTorrentError as error:
            return _plain(f"{error.message}\n", 503)
        return PlainTextResponse(text, media_type=CONTENT_TYPE, headers=HEADERS)

    async def healthy(request: Request) -> Response:
        reason = await _awaited(unhealthy())
        return _plain(f"{reason or 'ok'}\n", 503 if reason else 200)

    async def ready(request: Request) -> Response:
        reason = await _awaited(unready())
        return _plain(f"{reason or 'ready'}\n", 503 if reason else 200)

    return [
        Route("/metrics", scraped, methods=["GET"]),
        Route("/healthz", healthy, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]


async def _awaited(found: str | Awaitable[str]) -> str:
    return await found if inspect.isawaitable(found) else found


def _plain(text: str, status: int) -> Response:
    return PlainTextResponse(text, status, headers=HEADERS)
