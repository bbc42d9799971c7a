"""API of a tracker: each request is a command, asked of the tracker and answered as a document.

Data flow: reads are answered from `Cached`, so that many pages cost the tracker one look. Changes
go straight to the tracker, and clear the cache. Not here: rights and headers (see
common.http.application).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, assert_never

import msgspec
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as WebRoute

from common import limits
from common.cli.json_form import plain
from common.errors import MiniTorrentError
from common.host.clock import monotonic
from common.http import problems
from common.http.requests import command_or_problem, until_disconnect
from common.http.routes import PREFIX, Route
from common.link import parse_link
from common.messages import operator as messages
from common.messages.refusals import Code
from tracker.admin.backup import back_up
from tracker.admin.doctor import examine
from tracker.documents import document_of
from tracker.http import commands as c
from tracker.http.cached import Cached
from tracker.http.openapi import openapi
from tracker.http.routes import ROUTES, command_of
from tracker.http.survey import Survey
from tracker.http.tracker_client import TrackerClient
from tracker.random_password import random_password

log = logging.getLogger(__name__)

LISTS_S = 1.0  # a page looks at lists every two seconds
SWARMS_S = 3.0
SURVEY_REST = 5.0  # times the time of a survey: a large tracker has a minute between two
MEMBERS_S = 3.0
MONITORED_S = 1.0
HISTORY_S = 2.0
HEALTH_S = 2.0  # for an answer of a tracker that works

C = TypeVar("C", c.ListUsers, c.ListGroups, c.ListDevices)
R = TypeVar("R")
A = TypeVar("A", bound=messages.Answer)


class Api:
    """The API of one tracker, for any number of listeners."""

    def __init__(self, home: Path, client: TrackerClient, release: str) -> None:
        self._home = home
        self._client = client
        self._release = release
        self._survey = Survey(client)
        self._cached = Cached(monotonic)
        self._places = asyncio.Semaphore(limits.HTTP_COMMANDS_MAX)

    def close(self) -> None:
        """End all work."""
        self._cached.close()

    def routes(self) -> list[WebRoute]:
        """The routes of the API."""
        made = [
            WebRoute(PREFIX + route.path, partial(self._on_command, route), methods=[route.method])
            for route in ROUTES
        ]
        made.append(WebRoute(f"{PREFIX}/openapi.json", self._on_openapi, methods=["GET"]))
        return made

    async def _on_openapi(self, request: Request) -> Response:
        return JSONResponse(openapi(self._release))

    async def _on_command(self, route: Route, request: Request) -> Response:
        command = await command_or_problem(route, request, command_of)
        if isinstance(command, Response):
            return command
        if self._places.locked():
            text = f"{limits.HTTP_COMMANDS_MAX} requests are being answered"
            return problems.problem(Code.BUSY, text)
        async with self._places:
            return await until_disconnect(request, self._answer(command))

    async def _answer(self, command: c.Command) -> Response:
        try:
            return JSONResponse(await self._document(command))
        except MiniTorrentError as error:
            return problems.response(problems.of_error(error))
        except Exception:
            log.exception("request %s: internal error", type(command).__name__)
            return problems.problem(Code.INTERNAL, "internal error; the tracker's log has more")

    # -- commands -------------------------------------------------------------------------------

    async def _document(self, command: c.Command) -> Any:
        match command:
            case c.GetStatus():
                return plain(await self._cached_for(messages.Status(), messages.StatusIs))
            case messages.GetLoad():
                return plain(await self._cached_for(command, messages.LoadIs))
            case messages.ListLog():
                return plain((await self._cached_for(command, messages.Log)).rows)
            case messages.ListMembers():
                found = await self._cached_for(command, messages.Members, MEMBERS_S)
                return plain(found.rows)
            case c.GetHistory(after):
                kept = await self._cached_for(messages.GetHistory(), messages.HistoryIs, HISTORY_S)
                new = [point for point in kept.points if point.number > after]
                return plain(msgspec.structs.replace(kept, points=new))
            case c.ListUsers():
                return plain(await self._surveyed(command, self._survey.users))
            case c.ListGroups():
                return plain(await self._surveyed(command, self._survey.groups))
            case c.ListDevices():
                return plain(await self._surveyed(command, self._survey.devices))
            case c.ListSwarms():
                swarms = await self._cached.get(
                    "swarms", self._survey.swarms, SWARMS_S, SURVEY_REST
                )
                return plain(swarms.answer(command))
            case c.Doctor():
                return await self._cached.get("doctor", self._examine, LISTS_S)
            case _:
                return await self._change(command)

    async def _change(self, command: Any) -> Any:
        """Carry out a command that changes something. A client that leaves does not undo it."""
        working = asyncio.create_task(self._changed(command))
        try:
            return await asyncio.shield(working)
        finally:
            working.add_done_callback(lambda _: self._cached.clear())

    async def _changed(
        self,
        command: messages.Stop
        | messages.SetDisabled
        | messages.DeleteUser
        | messages.DeleteGroup
        | messages.SetRegistration
        | c.ResetPassword
        | c.Backup,
    ) -> Any:
        match command:
            case c.Backup(file, replace):
                path = Path(file)
                size = await asyncio.to_thread(back_up, self._home, path, replace=replace)
                return {"file": file, "size_bytes": size}
            case c.ResetPassword(user, password):
                made = "" if password else random_password()
                reset = messages.ResetPassword(user, password or made)
                changed = await self._client.request(reset, messages.Changed)
                return {**document_of(reset, changed), **({"password": made} if made else {})}
            case messages.SetRegistration():
                return plain(await self._client.request(command, messages.RegistrationIs))
            case (
                messages.Stop()
                | messages.SetDisabled()
                | messages.DeleteUser()
                | messages.DeleteGroup()
            ):
                return document_of(command, await self._client.request(command, messages.Changed))
            case _:
                assert_never(command)

    async def _surveyed(self, command: C, survey: Callable[[C], Awaitable[R]]) -> R:
        return await self._cached.get(command, lambda: survey(command), LISTS_S, SURVEY_REST)

    async def _cached_for(
        self, command: messages.Command, answer: type[A], fresh_s: float = 0.5
    ) -> A:
        return await self._cached.get(
            command, lambda: self._client.request(command, answer), fresh_s
        )

    async def _examine(self) -> list[dict[str, Any]]:
        status = await self._cached_for(messages.Status(), messages.StatusIs)
        endpoint = parse_link(status.link).endpoints[0]
        found = await asyncio.to_thread(lambda: list(examine(self._home, endpoint)))
        return [
            plain(c.CheckRow(each.subject, each.health.value, each.text, each.advice))
            for each in found
        ]

    # -- monitoring -----------------------------------------------------------------------------

    async def metrics(self) -> str:
        """Return the tracker's metrics. Raises `MiniTorrentError`."""
        return (await self._cached_for(messages.Metrics(), messages.MetricsAre, MONITORED_S)).text

    async def unhealthy(self) -> str:
        """Return why the tracker does not answer; empty if it does."""
        try:
            await self._load()
        except MiniTorrentError as error:
            return error.message
        return ""

    async def unready(self) -> str:
        """Return why the tracker cannot work; empty if it can."""
        try:
            load = await self._load()
        except MiniTorrentError as error:
            return error.message
        return "" if load.writable else "the database cannot be written"

    async def _load(self) -> messages.LoadIs:
        return await self._cached.get(
            "load", lambda: self._client.request(messages.GetLoad(), messages.LoadIs, HEALTH_S)
        )
