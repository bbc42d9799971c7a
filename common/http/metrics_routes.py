"""Routes of the monitoring: ``/metrics``, ``/healthz`` and ``/readyz``, all of them GET.

Not here: rights (see common.http.access), and what is counted.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from common.errors import ConfigError
from common.metrics.exposition import CONTENT_TYPE

HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def metrics_routes(metrics: Callable[[], str], unready: Callable[[], str]) -> list[Route]:
    """``metrics``: their text. ``unready``: the reason why it cannot work; empty if it can."""

    async def scraped(request: Request) -> Response:
        try:
            return PlainTextResponse(metrics(), media_type=CONTENT_TYPE, headers=HEADERS)
        except ConfigError as error:
            return _plain(f"{error.message}\n", 503)

    async def healthy(request: Request) -> Response:
        return _plain("ok\n", 200)  # that it answers is all: the event loop turns

    async def ready(request: Request) -> Response:
        reason = unready()
        return _plain(f"{reason or 'ready'}\n", 503 if reason else 200)

    return [
        Route("/metrics", scraped, methods=["GET"]),
        Route("/healthz", healthy, methods=["GET"]),
        Route("/readyz", ready, methods=["GET"]),
    ]


def _plain(text: str, status: int) -> Response:
    return PlainTextResponse(text, status, headers=HEADERS)
