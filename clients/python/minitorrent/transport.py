"""Transport: HTTP over a Unix socket, one connection for each request.

Owns: requests, problem details as errors, and ``text/event-stream`` as messages.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote

from minitorrent.errors import Error, NotRunning

SOCKET = "api.sock"
PREFIX = "/api/v1"
STREAM = "text/event-stream"


def default_socket(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the socket of the peer of ``home``.

    The default is ``MINI_TORRENT_HOME``, then the user's data directory, as on the command line.
    """
    chosen = home or os.environ.get("MINI_TORRENT_HOME")
    if chosen:
        return Path(chosen).expanduser() / SOCKET
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(data).expanduser() / "mini-torrent" / "peer" / SOCKET


def path_of(*parts: str) -> str:
    """Return a path of the API from its parts, each percent-encoded."""
    return "/".join(["", *(quote(part, safe="") for part in parts)])


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = str(path)
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._timeout_s)
        self.sock.connect(self._path)


class Transport:
    """Requests to one peer. ``timeout_s`` bounds short commands only. It may be used by threads."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.path = path
        self._timeout_s = timeout_s

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the document of an answer. Raises `Error` and `NotRunning`."""
        connection = _UnixConnection(self.path, self._timeout_s)
        try:
            response = self._send(connection, method, path, body, {})
            return _document(response)
        finally:
            connection.close()

    def stream(
        self, method: str, path: str, body: dict[str, Any] | None = None, last_id: str = ""
    ) -> Iterator[tuple[str, str, Any]]:
        """Yield the messages of a stream as ``(event, id, document)``. Raises `Error`."""
        connection = _UnixConnection(self.path, None)
        headers = {"Accept": STREAM, **({"Last-Event-ID": last_id} if last_id else {})}
        try:
            response = self._send(connection, method, path, body, headers)
            if not (response.getheader("content-type") or "").startswith(STREAM):
                yield "result", "", _document(response)
                return
            yield from _messages(response)
        except (OSError, HTTPException) as error:
            raise NotRunning(str(self.path), f"the connection ended: {error}") from error
        finally:
            # Closing alone would wait for nothing: the peer sees the end and stops waiting.
            connection.close()

    @contextmanager
    def response(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> Iterator[HTTPResponse]:
        """Answer to a request without a body, of any status; it is closed behind the block.

        Raises `NotRunning`. Silence is no error: the peer may wait for a source.
        """
        connection = _UnixConnection(self.path, None)
        try:
            yield self._send(connection, method, path, None, headers or {})
        finally:
            connection.close()

    def _send(
        self,
        connection: HTTPConnection,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        headers: dict[str, str],
    ) -> HTTPResponse:
        content = None
        if method not in ("GET", "HEAD"):
            content, headers = (
                json.dumps(body or {}),
                {"Content-Type": "application/json", **headers},
            )
        try:
            connection.request(method, PREFIX + path, content, headers)
            return connection.getresponse()
        except TimeoutError as error:
            raise Error("timed-out", f"no answer within {self._timeout_s:.0f} s") from error
        except (OSError, HTTPException) as error:
            raise NotRunning(str(self.path), str(error)) from error


def _document(response: HTTPResponse) -> Any:
    text = response.read()
    try:
        found = json.loads(text or b"null")
    except ValueError:
        raise Error("malformed", "the answer is not JSON", None, response.status) from None
    if response.status >= 400:
        raise problem(found, response.status)
    return found


def problem_of(response: HTTPResponse) -> Error:
    """Return the error of an answer that has failed."""
    try:
        _document(response)
    except Error as error:
        return error
    return Error("malformed", "the answer has no error", None, response.status)


def problem(found: Any, status: int = 0) -> Error:
    """Return the error of a document of problem details."""
    if not isinstance(found, dict):
        return Error("malformed", "the answer has no error", None, status)
    return Error(
        str(found.get("code", "failed")),
        str(found.get("detail", "the request failed")),
        found.get("hint"),
        int(found.get("status", status)),
    )


def _messages(response: HTTPResponse) -> Iterator[tuple[str, str, Any]]:
    event, event_id = "message", ""
    data: list[str] = []
    for raw in iter(response.readline, b""):
        line = raw.decode().rstrip("\r\n")
        if not line:
            if data:
                yield sys.intern(event), event_id, json.loads("\n".join(data))
            event, data = "message", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            event = value
        elif name == "id":
            event_id = value
        elif name == "data":
            data.append(value)
