"""ASGI application: the API of a peer, its events, and its page.

Data flow: a request passes the checks of `Access` (host, site, token), becomes a command of the
control socket by the table of routes, is carried out by the handler of the control socket, and its
answer becomes a document, or the details of a problem.

Owns: this flow, and the headers of each response. Not here: sockets (see peer.http.listener).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as WebRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common import limits
from common.errors import MiniTorrentError
from common.messages import control
from common.messages.documents import document
from common.messages.refusals import Code
from peer.control.server import Handle, Waiting
from peer.http import problems
from peer.http.access import OPEN_AGAIN, Access, Denied, Sessions
from peer.http.event_feed import EventFeed, Listen, message
from peer.http.file_routes import file_routes
from peer.http.openapi import openapi
from peer.http.routes import PREFIX, ROUTES, Route, command_of
from peer.reading.manager import Reading

log = logging.getLogger(__name__)

STREAM = "text/event-stream"
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
_STREAMED = (control.UploadFile, control.DownloadFile, control.AwaitDownload)


class Api:
    """The API of one peer, for any number of listeners."""

    def __init__(
        self, handle: Handle, listen: Listen, release: str, reading: Reading | None = None
    ) -> None:
        self._reading = reading
        self.feed = EventFeed(listen)
        self._handle = handle
        self._release = release
        self._places = asyncio.Semaphore(limits.HTTP_COMMANDS_MAX)

    def close(self) -> None:
        """End all event streams."""
        self.feed.close()

    def routes(self) -> list[WebRoute]:
        """The routes of the API."""
        made = [
            WebRoute(PREFIX + route.path, partial(self._on_command, route), methods=[route.method])
            for route in ROUTES
        ]
        if self._reading is not None:
            made += file_routes(self._reading)
        made.append(WebRoute(f"{PREFIX}/events", self._on_events, methods=["GET"]))
        made.append(WebRoute(f"{PREFIX}/openapi.json", self._on_openapi, methods=["GET"]))
        return made

    # -- commands -------------------------------------------------------------------------------

    async def _on_command(self, route: Route, request: Request) -> Response:
        try:
            command = command_of(route, dict(request.path_params), await _body(route, request))
        except msgspec.ValidationError as error:
            return _problem(Code.USAGE, f"invalid request: {error}")
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return _problem(Code.MALFORMED, f"the body is not JSON: {error}")
        except _TooLarge:
            most = limits.HTTP_BODY_BYTES_MAX >> 20
            return _problem(Code.USAGE, f"the body is longer than {most} MiB", 413)
        if self._places.locked():
            return _problem(Code.BUSY, f"{limits.HTTP_COMMANDS_MAX} requests are being answered")
        wants = request.headers.get("accept", "")
        if isinstance(command, _STREAMED) and STREAM in wants:
            return StreamingResponse(self._progress(command), media_type=STREAM)
        return _response(await self._until_disconnect(request, command))

    async def _until_disconnect(self, request: Request, command: control.Ask) -> control.Answer:
        """Carry the command out; a client that hangs up ends the wait, as on the control socket."""
        work = asyncio.create_task(self._carry_out(command, lambda _: None))
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise ClientDisconnect
            return work.result()
        finally:
            gone.cancel()
            work.cancel()

    async def _carry_out(
        self,
        command: control.Ask,
        notify: Callable[[control.Progress | control.Happened], None],
    ) -> control.Answer:
        try:
            async with self._places:
                answer = await self._handle(command, notify)
            # Outside: one that waits for a download takes no place.
            return await answer.rest if isinstance(answer, Waiting) else answer
        except MiniTorrentError as error:
            return control.Failed(error.code, error.message, error.hint)
        except Exception:
            log.exception("request %s: internal error", type(command).__name__)
            return control.Failed(Code.INTERNAL, "internal error of the peer; its log has more")

    async def _progress(self, command: control.Ask) -> AsyncIterator[bytes]:
        """Messages ``progress``, and ``result`` or ``problem`` as the last one."""
        told: asyncio.Queue[control.Progress] = asyncio.Queue(maxsize=1)

        def notify(progress: control.Progress | control.Happened) -> None:
            if isinstance(progress, control.Progress):
                if told.full():
                    told.get_nowait()  # the newer one says more
                told.put_nowait(progress)

        work = asyncio.create_task(self._carry_out(command, notify))
        try:
            while not work.done():
                following = asyncio.create_task(told.get())
                await asyncio.wait({work, following}, return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    yield message("progress", document(following.result()))
                else:
                    following.cancel()
            answer = work.result()
            if isinstance(answer, control.Failed | control.NeedsConsent):
                yield message("problem", problems.details_of(answer))
            else:
                yield message("result", document(answer))
        finally:
            work.cancel()

    # -- the rest -------------------------------------------------------------------------------

    async def _on_events(self, request: Request) -> Response:
        if self.feed.streams >= limits.EVENT_STREAMS_MAX:
            return _problem(Code.BUSY, f"{limits.EVENT_STREAMS_MAX} event streams are open")
        group = request.query_params.get("group")
        last_id = request.headers.get("last-event-id", "")
        stream = self.feed.stream(group.lower() if group else None, last_id)
        return StreamingResponse(stream, media_type=STREAM)

    async def _on_openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self._release))


class _TooLarge(Exception):
    pass


async def _body(route: Route, request: Request) -> Any:
    if not route.has_body:
        return dict(request.query_params)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limits.HTTP_BODY_BYTES_MAX:
            raise _TooLarge
        parts.append(part)
    try:
        return msgspec.json.decode(b"".join(parts) or b"{}")
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _problem(code: Code, text: str, status: int = 0) -> Response:
    return problems.response(problems.details(code, text, status=status))


def _response(answer: control.Answer) -> Response:
    if isinstance(answer, control.Failed | control.NeedsConsent):
        return problems.response(problems.details_of(answer))
    return JSONResponse(document(answer))


# -- rights and headers -------------------------------------------------------------------------


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
        found = self._access.check_host(headers) or self._access.check_site(method, headers)
        if found is None and not self._public(scope["path"]):
            found = self._access.check_token(headers)
        return found


def session_routes(sessions: Sessions) -> list[WebRoute]:
    """The exchange of a one-time secret for the token of a session, and its end."""

    async def begin(request: Request) -> Response:
        found = await _body(_SESSION, request)
        secret = found.get("secret") if isinstance(found, dict) else None
        token = sessions.redeem(secret) if isinstance(secret, str) else None
        if token is None:
            return problems.response(
                problems.details(
                    "no-session",
                    "this page was opened before, or too long ago",
                    OPEN_AGAIN,
                    403,
                )
            )
        return JSONResponse({"token": token})

    return [WebRoute(SESSION_PATH, begin, methods=["POST"])]


SESSION_PATH = f"{PREFIX}/session"
_SESSION = Route("POST", "/session", control.Hello, control.Done, "")


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
        return _problem(Code.USAGE, "the body is too long", 413)

    async def not_json(request: Request, error: Exception) -> Response:
        return _problem(Code.MALFORMED, "the body is not JSON")

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        404: not_found,
        405: not_found,
        _TooLarge: too_large,
        msgspec.DecodeError: not_json,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    return Guarded(app, access, public)
