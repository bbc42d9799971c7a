"""Connections that send nothing, or take nothing, at a listener on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from common import limits
from common.http.binding import LOOPBACK, bind_loopback
from common.http.listener import Listener
from tests.support.peer_fakes import until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
GET = b"GET /%s HTTP/1.1\r\nHost: here\r\n\r\n"
LARGE = 64 * limits.MIB  # no socket holds that


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    body = bytes(LARGE) if scope["path"] == "/large" else b"fine"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def _listening() -> AsyncIterator[tuple[int, set[Any]]]:
    """A port, and the open connections of its listener."""
    bound = bind_loopback()
    listener = Listener(_app, bound)
    listener.start()
    try:
        yield bound.getsockname()[1], listener._server.server_state.connections
    finally:
        await listener.close()


async def _connect(port: int, sent: bytes = b"") -> Connection:
    async with asyncio.timeout(20):
        while True:
            try:
                reader, writer = await asyncio.open_connection(LOOPBACK, port)
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
    writer.write(sent)
    return reader, writer


async def _status(connection: Connection) -> bytes:
    async with asyncio.timeout(20):
        return await connection[0].readline()


async def _has_ended(connection: Connection) -> bool:
    """Whether the other side ends the connection, however much it has sent before."""
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while await connection[0].read(limits.MIB):
                pass
    return True


def test_h142_silent_connections_do_not_keep_a_page_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTP_CONNECTIONS_MAX", 4)

    async def scenario() -> None:
        async with _listening() as (port, _):
            silent = [await _connect(port) for _ in range(3)]
            silent += [await _connect(port, b"GET / HTTP/1.1\r\nHos") for _ in range(3)]
            unsent = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\n"
            silent += [await _connect(port, unsent) for _ in range(3)]
            page = await _connect(port, GET % b"")
            assert await _status(page) == b"HTTP/1.1 200 OK\r\n"
            for oldest in silent[:5]:
                assert await _has_ended(oldest)

    asyncio.run(scenario())


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: h\r\n"])
def test_h142_a_request_that_does_not_come_ends_its_connection(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HTTP_REQUEST_S", 0.2)

    async def scenario() -> None:
        async with _listening() as (port, _):
            assert await _has_ended(await _connect(port, sent))
            again = await _connect(port, GET % b"")
            assert await _status(again) == b"HTTP/1.1 200 OK\r\n"
            assert await _has_ended(again)  # and it does not wait longer for a second one

    asyncio.run(scenario())


def test_h142_a_reader_that_takes_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "NOT_READING_S", 0.2)

    async def scenario() -> None:
        async with _listening() as (port, open_ones):
            reader, writer = await _connect(port, GET % b"large")
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(20):
                await until(lambda: any(one.cycle is not None for one in open_ones))
                await until(lambda: not open_ones)
            writer.transport.resume_reading()  # type: ignore[attr-defined]
            taken = 0
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionError):
                    while data := await reader.read(limits.MIB):
                        taken += len(data)
            assert taken < LARGE

    asyncio.run(scenario())
