"""Requests of the API: their bodies, the command of each, and clients that hang up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from common import limits
from common.http.problems import problem
from common.http.routes import Route
from common.messages.refusals import Code

A = TypeVar("A")
C = TypeVar("C")


class TooLarge(Exception):
    """The body of a request exceeds `limits.HTTP_BODY_BYTES_MAX`."""


async def read_body(request: Request) -> Any:
    """Return the JSON of the body. Raise `TooLarge` and `msgspec.DecodeError`."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limits.HTTP_BODY_BYTES_MAX:
            raise TooLarge
        parts.append(part)
    try:
        return msgspec.json.decode(b"".join(parts) or b"{}")
    except RecursionError as error:
        raise msgspec.DecodeError("it is nested too deeply") from error


async def command_or_problem(
    route: Route, request: Request, make: Callable[[Route, dict[str, Any], Any], C]
) -> C | Response:
    """Return the command of a request, made by ``make``; or the response that says why not."""
    try:
        body = await read_body(request) if route.has_body else dict(request.query_params)
        return make(route, dict(request.path_params), body)
    except msgspec.ValidationError as error:
        return problem(Code.USAGE, f"invalid request: {error}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return problem(Code.MALFORMED, f"the body is not JSON: {error}")
    except TooLarge:
        most = limits.HTTP_BODY_BYTES_MAX >> 20
        return problem(Code.USAGE, f"the body is longer than {most} MiB", 413)


async def until_disconnect(request: Request, work: Coroutine[Any, Any, A]) -> A:
    """Return the result of ``work``, which is cancelled when the client hangs up.

    Raises `ClientDisconnect`.
    """
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        gone.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
