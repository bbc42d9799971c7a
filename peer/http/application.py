"""API of a peer: its commands and its events as routes.

Data flow: a request becomes a command of the control socket by the table of routes, is carried out
by the handler of the control socket, and its answer becomes a document, or the details of a
problem. Not here: rights and headers (see common.http.application).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as WebRoute

from common import limits
from common.errors import MiniTorrentError
from common.http import problems
from common.http.requests import command_or_problem, until_disconnect
from common.http.routes import PREFIX, Route
from common.messages import control
from common.messages.documents import document
from common.messages.refusals import Code
from peer.control.server import Handle, Waiting
from peer.http.event_feed import EventFeed, Listen, message
from peer.http.file_routes import file_routes
from peer.http.openapi import openapi
from peer.http.routes import ROUTES, STREAMED, command_of
from peer.reading.manager import Reading

log = logging.getLogger(__name__)

STREAM = "text/event-stream"


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
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End all event streams, readers of files, and waits for downloads."""
        self.feed.close()
        self._closed.set()
        if self._reading is not None:
            self._reading.close()

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
        command = await command_or_problem(route, request, command_of)
        if isinstance(command, Response):
            return command
        if self._places.locked():
            return problems.problem(
                Code.BUSY, f"{limits.HTTP_COMMANDS_MAX} requests are being answered"
            )
        wants = request.headers.get("accept", "")
        if isinstance(command, STREAMED) and STREAM in wants:
            return StreamingResponse(self._progress(command), media_type=STREAM)
        # A client that hangs up ends the wait, as on the control socket.
        return _response(await until_disconnect(request, self._carry_out(command, lambda _: None)))

    async def _carry_out(
        self,
        command: control.Command,
        notify: Callable[[control.Progress | control.Happened], None],
    ) -> control.Answer:
        try:
            async with self._places:
                answer = await self._handle(command, notify)
            # Outside: one that waits for a download takes no place.
            return await self._until_closed(answer) if isinstance(answer, Waiting) else answer
        except MiniTorrentError as error:
            return control.Failed(error.code, error.message, error.hint)
        except Exception:
            log.exception("request %s: internal error", type(command).__name__)
            return control.Failed(Code.INTERNAL, "internal error of the peer; its log has more")

    async def _until_closed(self, waiting: Waiting) -> control.Answer:
        """Wait for the rest of a command. Why: a download may take longer than the peer runs."""
        rest = asyncio.ensure_future(waiting.rest)
        closed = asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait({rest, closed}, return_when=asyncio.FIRST_COMPLETED)
            if rest.done():
                return rest.result()
            return control.Failed(Code.BUSY, "the peer stops; what was begun goes on at its start")
        finally:
            rest.cancel()
            closed.cancel()

    async def _progress(self, command: control.Command) -> AsyncIterator[bytes]:
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
            if (failure := _failure(answer)) is not None:
                yield message("problem", failure)
            else:
                yield message("result", document(answer))
        finally:
            work.cancel()

    # -- the rest -------------------------------------------------------------------------------

    async def _on_events(self, request: Request) -> Response:
        if self.feed.streams >= limits.EVENT_STREAMS_MAX:
            return problems.problem(Code.BUSY, f"{limits.EVENT_STREAMS_MAX} event streams are open")
        group = request.query_params.get("group")
        last_id = request.headers.get("last-event-id", "")
        stream = self.feed.stream(group.lower() if group else None, last_id)
        return StreamingResponse(stream, media_type=STREAM)

    async def _on_openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self._release))


def _response(answer: control.Answer) -> Response:
    if (failure := _failure(answer)) is not None:
        return problems.response(failure)
    return JSONResponse(document(answer))


def _failure(answer: control.Answer) -> dict[str, Any] | None:
    """The details of a problem, if the answer is one."""
    if isinstance(answer, control.Failed | control.NeedsConsent):
        return problems.details_of(answer)
    if isinstance(answer, control.Copies) and answer.timed_out:  # as the exit code 6
        return problems.details(Code.TIMED_OUT, answer.text)
    return None
