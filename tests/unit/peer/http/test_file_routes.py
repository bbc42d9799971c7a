"""Files over HTTP: ranges, preconditions, headers, and the end of readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from common.errors import MiniTorrentError, Refused, StorageError, TimedOut
from common.http.access import UNIX_HOSTS, Access
from common.http.application import application
from common.messages.refusals import Code
from peer.http.file_routes import Span, file_routes, span_of
from tests.support.peer_fakes import until

DATA = bytes(range(256)) * 10
SIZE = len(DATA)
BASE = "/api/v1/files/films"


class FakeReader:
    """Gives 1,000 bytes at a time; ``error`` from the offset ``fails_at`` on."""

    def __init__(self, reading: FakeReading) -> None:
        self.reading = reading
        self.closed = False

    async def read(self, offset: int, size: int, *, wait_s: float | None = None) -> memoryview:
        reading = self.reading
        if reading.error is not None and offset >= reading.fails_at:
            raise reading.error
        if reading.stands_at is not None and offset >= reading.stands_at:
            await asyncio.Event().wait()
        return memoryview(DATA)[offset : offset + min(size, 1000)]

    def close(self) -> None:
        self.closed = True


class FakeTarget:
    size, tag, name = SIZE, "f00d", "n"

    def __init__(self, name: str) -> None:
        self.file_name = name


class FakeReading:
    def __init__(self) -> None:
        self.found: list[tuple[str, str, str]] = []
        self.readers: list[FakeReader] = []
        self.error: MiniTorrentError | None = None
        self.fails_at = 0
        self.stands_at: int | None = None

    async def find(self, group: str, name: str, entry: str) -> FakeTarget:
        self.found.append((group, name, entry))
        if name == "none":
            raise Refused(Code.UNKNOWN_SHARE, "there is none")
        return FakeTarget(entry.rpartition("/")[2] or name)

    def open(self, target: FakeTarget) -> FakeReader:
        if len(self.readers) >= 3:
            raise Refused(Code.BUSY, "too many")
        self.readers.append(FakeReader(self))
        return self.readers[-1]


@asynccontextmanager
async def client(reading: FakeReading) -> AsyncIterator[httpx.AsyncClient]:
    app = application(file_routes(reading), Access(UNIX_HOSTS, None))  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made


def ask(path: str, reading: FakeReading | None = None, method: str = "GET", **headers: str) -> Any:
    async def talk() -> httpx.Response:
        async with client(reading or FakeReading()) as http:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return await http.request(method, BASE + path, headers=named)

    return asyncio.run(asyncio.wait_for(talk(), 20))


@pytest.mark.parametrize(
    ("header", "span"),
    [
        (None, Span(0, 100)),
        ("bytes=0-9", Span(0, 10, True)),
        ("Bytes = 5-", Span(5, 95, True)),
        ("bytes=90-1000", Span(90, 10, True)),
        ("bytes=-10", Span(90, 10, True)),
        ("bytes=-1000", Span(0, 100, True)),
        ("bytes=99-99", Span(99, 1, True)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=9-3", Span(0, 100)),
        ("bytes=-", Span(0, 100)),
        ("bytes=1-2,4-5", Span(0, 100)),
        ("bytes=a-b", Span(0, 100)),
        (f"bytes=1-{2**63 - 2}", Span(1, 99, True)),
        (f"bytes=-{2**63 - 1}", Span(0, 100, True)),
        (f"bytes={2**63}-", None),
        ("bytes=1-" + "9" * 65, Span(0, 100)),
        ("items=1-2", Span(0, 100)),
        ("bytes", Span(0, 100)),
    ],
)
def test_ranges(header: str | None, span: Span | None) -> None:
    assert span_of(header, 100) == span


def test_nothing_has_no_range() -> None:
    assert span_of("bytes=0-", 0) is None
    assert span_of("bytes=-5", 0) is None
    assert span_of(None, 0) == Span(0, 0)


def test_a_file_and_a_range_of_it() -> None:
    reading = FakeReading()
    whole = ask("/n", reading)
    assert (whole.status_code, whole.content) == (200, DATA)
    assert whole.headers["content-length"] == str(SIZE)
    assert (whole.headers["etag"], whole.headers["accept-ranges"]) == ('"f00d"', "bytes")
    part = ask("/n/a%20b/c%3F", reading, range="bytes=990-2009")
    assert (part.status_code, part.content) == (206, DATA[990:2010])
    assert part.headers["content-range"] == f"bytes 990-2009/{SIZE}"
    assert reading.found == [("films", "n", ""), ("films", "n", "a b/c?")]
    assert all(reader.closed for reader in reading.readers)
    beyond = ask("/n", range=f"bytes={SIZE}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{SIZE}")


def test_preconditions() -> None:
    assert ask("/n", if_none_match='W/"f00d"').status_code == 304
    assert ask("/n", if_none_match='"x", "y"').status_code == 200
    assert ask("/n", if_match='"x"').status_code == 412
    assert ask("/n", if_match="*").status_code == 200
    assert ask("/n", range="bytes=0-1", if_range='"f00d"').status_code == 206
    assert ask("/n", range="bytes=0-1", if_range='"old"').status_code == 200
    assert ask("/n", range="bytes=0-1", if_range="Mon, 30 Nov 2026 10:00:00 GMT").content == DATA


def test_a_head_fetches_nothing() -> None:
    reading = FakeReading()
    head = ask("/n", reading, "HEAD", range="bytes=0-1")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(SIZE)
    assert reading.readers == []


def test_h139_a_file_is_never_shown_as_a_page() -> None:
    for name in ("/x.html", "/x.svg", "/a%22%0d%0aX-Evil:%201;.html", "/n/%E2%80%AEgpj.html"):
        found = ask(name)
        headers = found.headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert "sandbox" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "x-evil" not in headers


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (TimedOut("late"), 504),
        (Refused(Code.CHANGED, "another"), 409),
        (StorageError("full"), 507),
    ],
)
def test_a_failure_before_the_first_byte_is_a_problem(error: MiniTorrentError, status: int) -> None:
    reading = FakeReading()
    reading.error = error
    found = ask("/n", reading)
    assert (found.status_code, found.json()["code"]) == (status, str(error.code))
    assert reading.readers[0].closed
    assert ask("/none").status_code == 404
    assert ask("/n", method="PUT", content_type="application/json").status_code == 405


def test_h141_too_many_readers_are_refused_and_each_ends_with_its_client() -> None:
    async def talk() -> None:
        reading = FakeReading()
        reading.stands_at = 1000
        async with client(reading) as http:
            waiting = [asyncio.create_task(http.get(f"{BASE}/n")) for _ in range(3)]
            await until(lambda: len(reading.readers) == 3)
            assert (await http.get(f"{BASE}/n")).status_code == 503
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert [reader.closed for reader in reading.readers] == [True] * 3

    asyncio.run(asyncio.wait_for(talk(), 20))


def test_an_answer_that_fails_on_its_way_ends_early() -> None:
    reading = FakeReading()
    reading.error, reading.fails_at = TimedOut("late"), 2000
    with pytest.raises(AssertionError):  # the test's transport misses the end of the answer
        ask("/n", reading)
    assert reading.readers[0].closed
