"""Bytes of files over HTTP: ``/files/GROUP/NAME[/ENTRY]``, with ranges (RFC 9110).

Data flow: the path names a file, which is found without fetching it; the range is decided from its
size; then a reader gives the bytes, piece by piece, as they come.

Owns: ranges, preconditions and headers. Not here: the bytes (see peer.reading.reader), rights (see
common.http.access). A file is never shown in the place of a page: it is an attachment, of no type
that a browser runs, in a sandbox.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route as WebRoute
from starlette.types import Receive, Scope, Send

from common import limits
from common.errors import MiniTorrentError
from common.http import problems
from common.http.routes import PREFIX
from common.messages.refusals import Code
from peer.reading.manager import Reading
from peer.reading.reader import Reader
from peer.reading.target import Target

log = logging.getLogger(__name__)

_RANGE = re.compile(r"([0-9]{0,64})-([0-9]{0,64})")  # some programs ask for all up to 2^63 - 1
_STATUS = {Code.CHANGED: 409, Code.BUSY: 503, Code.TIMED_OUT: 504}


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of an answer; ``partial`` if a range was asked for."""

    begin: int
    size: int
    partial: bool = False


def span_of(header: str | None, size: int) -> Span | None:
    """Return the bytes that a ``Range`` asks for; None if there are none of them.

    A header that is malformed, has another unit or several ranges asks for the whole.
    """
    whole = Span(0, size)
    unit, equals, ranges = (header or "").partition("=")
    if unit.strip().lower() != "bytes" or not equals:
        return whole
    match = _RANGE.fullmatch(ranges.strip())
    if match is None or match[0] == "-":
        return whole
    if not match[1]:  # the last bytes
        count = min(size, int(match[2]))
        return Span(size - count, count, True) if count else None
    first, last = int(match[1]), int(match[2]) if match[2] else size - 1
    if match[2] and last < first:
        return whole
    return Span(first, min(last, size - 1) - first + 1, True) if first < size else None


def file_routes(reading: Reading) -> list[WebRoute]:
    """The routes of files, of shares that are one and of those in folders."""

    async def answer(request: Request) -> Response:
        path = request.path_params
        try:
            target = await reading.find(path["group"], path["name"], path.get("entry", ""))
            return await _answer(reading, target, request)
        except MiniTorrentError as error:
            status = _STATUS.get(Code(error.code), 0)
            return problems.response(
                problems.details(error.code, error.message, error.hint, status)
            )

    base = f"{PREFIX}/files/{{group}}/{{name}}"
    return [
        WebRoute(path, answer, methods=["GET", "HEAD"]) for path in (base, f"{base}/{{entry:path}}")
    ]


async def _answer(reading: Reading, target: Target, request: Request) -> Response:
    tag, asked = f'"{target.tag}"', request.headers
    headers = {
        "etag": tag,
        "accept-ranges": "bytes",
        "content-disposition": f"attachment; filename*=UTF-8''{quote(target.file_name, safe='')}",
        "content-security-policy": "default-src 'none'; sandbox",
        "cache-control": "private, no-cache",
    }
    if (wanted := asked.get("if-match")) is not None and not _matches(wanted, tag):
        return Response(status_code=412, headers=headers)
    if (known := asked.get("if-none-match")) is not None and _matches(known, tag):
        return Response(status_code=304, headers=headers)
    ranged = asked.get("if-range", tag) == tag and request.method == "GET"
    span = span_of(asked.get("range") if ranged else None, target.size)
    if span is None:
        headers["content-range"] = f"bytes */{target.size}"
        return Response(status_code=416, headers=headers)
    headers["content-length"] = str(span.size)
    if span.partial:
        end = span.begin + span.size - 1
        headers["content-range"] = f"bytes {span.begin}-{end}/{target.size}"
    if request.method == "HEAD" or not span.size:
        return Response(headers=headers, media_type="application/octet-stream")
    reader = reading.open(target)
    try:
        # The first piece before the head of the answer, so that a failure gets a status.
        first = await reader.read(span.begin, span.size, wait_s=limits.READ_WAIT_S)
    except BaseException:
        reader.close()
        raise
    return _FileResponse(reader, span, first, headers)


def _matches(header: str, tag: str) -> bool:
    """Whether a list of entity tags has this one, by weak comparison, or is ``*``."""
    found = [one.strip().removeprefix("W/") for one in header.split(",")]
    return "*" in found or tag in found


class _FileResponse(StreamingResponse):
    """The bytes of a reader, which ends with the answer, however that ends."""

    def __init__(
        self, reader: Reader, span: Span, first: memoryview, headers: dict[str, str]
    ) -> None:
        self._reader = reader
        super().__init__(
            _bytes(reader, span, first),
            206 if span.partial else 200,
            headers,
            "application/octet-stream",
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except MiniTorrentError as error:
            # The answer has begun: only an end before its length can say that it failed.
            log.info("http: an answer ends early: %s", error)
        finally:
            self._reader.close()


async def _bytes(reader: Reader, span: Span, data: memoryview) -> AsyncIterator[bytes]:
    at, end = span.begin, span.begin + span.size
    while True:
        for begin in range(0, len(data), limits.MIB):
            yield bytes(data[begin : begin + limits.MIB])
        at += len(data)
        if at >= end:
            return
        data = await reader.read(at, end - at, wait_s=limits.READ_WAIT_S)
