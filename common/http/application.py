"""ASGI application of one listener: its routes behind the checks of `Access`, and its headers.

Owns: the headers of each response, the exchange of a one-time secret for a session, and problem
details for what the routes do not answer. Not here: the checks (see common.http.access).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as WebRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.http import problems
from common.http.access import Access, Denied, Sessions
from common.http.requests import TooLarge, read_body
from common.http.routes import PREFIX
from common.messages.refusals import Code

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
        " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
SESSION_PATH = f"{PREFIX}/session"


class Guarded:
    """ASGI middleware: the checks of `Access` before, and the headers of safety behind.

    ``public``: paths that need no token, those that the page itself is made of.
    """

    def __init__(self, app: ASGIApp, access: Access, public: Callable[[str], bool]) -> None:
        self._app = app
        self._access = access
        self._public = public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close"})
            else:
                await self._app(scope, receive, send)
            return

        async def send_safely(sent: Message) -> None:
            if sent["type"] == "http.response.start":
                headers = MutableHeaders(scope=sent)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(sent)

        denied = self._denied(scope)
        if denied is not None:
            code = "no-session" if denied.status == 401 else "denied"
            found = problems.details(code, denied.reason, denied.hint, denied.status)
            await problems.response(found)(scope, receive, send_safely)
            return
        await self._app(scope, receive, send_safely)

    def _denied(self, scope: Scope) -> Denied | None:
        headers, method = Headers(scope=scope), scope["method"]
        public = self._public(scope["path"])
        found = self._access.check_host(headers) or self._access.check_site(
            method, headers, public=public
        )
        if found is None and not public:
            found = self._access.check_token(headers)
        return found


def session_routes(sessions: Sessions, open_again: str) -> list[WebRoute]:
    """The exchange of a one-time secret for the token of a session."""

    async def begin(request: Request) -> Response:
        found = await read_body(request)
        secret = found.get("secret") if isinstance(found, dict) else None
        token = sessions.redeem(secret) if isinstance(secret, str) else None
        if token is None:
            return problems.response(
                problems.details(
                    "no-session",
                    "this page was opened before, or too long ago",
                    open_again,
                    403,
                )
            )
        return JSONResponse({"token": token})

    return [WebRoute(SESSION_PATH, begin, methods=["POST"])]


def application(
    routes: list[WebRoute], access: Access, public: Callable[[str], bool] = lambda _: False
) -> ASGIApp:
    """Return the application of one listener."""

    async def not_found(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 404)
        text = "there is no such resource" if status == 404 else "the method does not apply here"
        headers = getattr(error, "headers", None) or {}
        made = problems.response(problems.details("not-found", text, status=status))
        made.headers.update(headers)
        return made

    async def too_large(request: Request, error: Exception) -> Response:
        return problems.problem(Code.USAGE, "the body is too long", 413)

    async def not_json(request: Request, error: Exception) -> Response:
        return problems.problem(Code.MALFORMED, "the body is not JSON")

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        404: not_found,
        405: not_found,
        TooLarge: too_large,
        msgspec.DecodeError: not_json,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guarded(app, access, public)
