"""Bytes of files over the HTTP API, by range.

Owns: ranges and entity tags, and going on behind an answer that ended early. A peer sends bytes as
it gets them; if no source has the next ones for a while, it ends the answer, and is asked again.
Not here: connections (see minitorrent.transport).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from minitorrent.errors import Error, NotRunning
from minitorrent.transport import Transport, path_of, problem_of

BUSY_S = 0.2  # between two attempts while all readers of the peer are taken
CHUNK_BYTES = 1 << 20
BEHIND_ALL = 1 << 59  # no file is that long
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]+)-([0-9]+)|\*)/([0-9]+)")


@dataclass(frozen=True)
class Stat:
    """Size of a file in bytes, and its entity tag: for a share that is one file, its digest."""

    size: int
    tag: str


def stat(transport: Transport, parts: tuple[str, ...]) -> Stat:
    """Return the size and tag of a file; nothing of it is fetched. Raises `Error`.

    ``parts``: group, name and, in a folder, the path of the entry. It asks for a byte that no file
    has. Why: unlike that of a HEAD, a failed answer has a body with the reason.
    """
    with transport.response("GET", _path(parts), {"Range": f"bytes={BEHIND_ALL}-"}) as answer:
        if answer.status == 416:
            return Stat(_place(answer)[2], _tag(answer))
        raise problem_of(answer)


def read(
    transport: Transport,
    parts: tuple[str, ...],
    begin: int = 0,
    end: int | None = None,
    *,
    tag: str = "",
    patience_s: float,
) -> bytes:
    """Return the bytes from ``begin`` to ``end``, or to the end of the file.

    A negative ``begin`` counts from the end of the file, and takes no ``end``. ``tag``: the file
    must have it still, or the code of the error is ``changed``. ``patience_s``: the time without a
    byte after which it is ``timed-out``. Raises `Error`.
    """
    found, since = bytearray(), time.monotonic()
    span = f"{begin}" if begin < 0 else f"{begin}-{'' if end is None else end - 1}"
    while True:
        before = len(found)
        headers = {"Range": f"bytes={span}", **({"If-Match": f'"{tag}"'} if tag else {})}
        with transport.response("GET", _path(parts), headers) as answer:
            if answer.status == 416:
                return bytes(found)
            if answer.status == 412:
                raise Error("changed", "another version came meanwhile", "open it again", 412)
            if answer.status == 206:
                first, last, _ = _place(answer)
                tag = tag or _tag(answer)
                _take(answer, found, transport)
                done = first + len(found) - before
                if done > last:
                    return bytes(found)
                span = f"{done}-{last}"
                fault = Error("timed-out", f"no byte came for {patience_s:.0f} s", None, 504)
            else:
                fault = problem_of(answer)
        if len(found) > before:
            since = time.monotonic()
        elif fault.code not in ("timed-out", "busy") or time.monotonic() - since > patience_s:
            raise fault
        if fault.code == "busy":
            time.sleep(BUSY_S)


def _path(parts: tuple[str, ...]) -> str:
    return path_of("files", *parts[:2]) + "".join(path_of(*part.split("/")) for part in parts[2:])


def _tag(answer: HTTPResponse) -> str:
    return (answer.getheader("etag") or "").strip('"')


def _place(answer: HTTPResponse) -> tuple[int, int, int]:
    """The first and last byte of an answer, and the size of the file."""
    found = _CONTENT_RANGE.fullmatch(answer.getheader("content-range") or "")
    if found is None:
        raise Error("malformed", "the answer names no range", None, answer.status)
    first, last, size = (int(text or 0) for text in found.groups())
    return first, last, size


def _take(answer: HTTPResponse, found: bytearray, transport: Transport) -> None:
    """Add the body, as far as it comes."""
    try:
        while data := answer.read1(CHUNK_BYTES):
            found += data
    except HTTPException:
        return  # it ended early
    except OSError as error:
        raise NotRunning(str(transport.path), f"the connection ended: {error}") from error
