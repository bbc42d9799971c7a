"""HTTP application over a handler of our own: answers, problems, streams and headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest

from common import limits
from common.errors import Refused
from common.http.access import UNIX_HOSTS, Access, Sessions
from common.http.application import SECURITY_HEADERS, application, session_routes
from common.messages import control
from common.messages.documents import document
from common.messages.refusals import Code
from peer.control.server import Notify, Waiting
from peer.http.application import Api
from tests.support.wire_samples import CONVERSATIONS

HOST = "127.0.0.1:4321"
Answering = Callable[[control.Command, Notify], Any]


class Handler:
    """Answers each command by ``answers``: a value, an error, or a function."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[control.Command] = []
        self.cancelled = asyncio.Event()
        self.notify: Notify = lambda _: None

    def listen(self, notify: Notify) -> Callable[[], None]:
        self.notify = notify
        return lambda: None

    async def __call__(self, command: control.Command, notify: Notify) -> control.Answer | Waiting:
        self.asked.append(command)
        answer = self.answers.get(type(command).__name__, control.Done(changed={"done": True}))
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            try:
                return await answer(command, notify)  # type: ignore[no-any-return]
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return answer  # type: ignore[no-any-return]


@asynccontextmanager
async def client(handler: Handler, sessions: Sessions | None = None) -> AsyncIterator[Any]:
    api = Api(handler, handler.listen, "1.2.3")
    routes = api.routes()
    hosts, base = UNIX_HOSTS, "http://localhost"
    if sessions is not None:
        routes += session_routes(sessions, "open it again")
        hosts, base = frozenset({HOST}), f"http://{HOST}"
    app = application(routes, Access(hosts, sessions), lambda path: path.endswith("/session"))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=base) as made:
        made.headers["accept"] = "application/json"
        made.api = api  # type: ignore[attr-defined]
        try:
            yield made
        finally:
            api.close()


def run(work: Any) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_answers_are_the_documents_of_the_command_line() -> None:
    async def talk() -> None:
        rows = [control.GroupRow("films", "anna", 2, "owner")]
        handler = Handler(ListGroups=control.Groups(rows))
        async with client(handler) as http:
            found = await http.get("/api/v1/groups")
            assert found.status_code == 200
            assert found.json() == [
                {"group": "films", "owner": "anna", "members": 2, "role": "owner"}
            ]
            done = await http.post("/api/v1/groups/films/downloads/a%20b/pause", json={})
            assert done.json() == {"done": True}
            assert handler.asked[-1] == control.Pause("films", "a b")

    run(talk())


@pytest.mark.parametrize("answer", CONVERSATIONS["control-answers"][1], ids=repr)
def test_every_answer_has_a_document(answer: control.Answer) -> None:
    assert msgspec.json.encode(document(answer))


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (Refused(Code.NOT_OWNER, "no", "do this"), 403, "not-owner"),
        (control.Failed(Code.UNKNOWN_GROUP, "no", "do this"), 404, "unknown-group"),
        (control.NeedsConsent("it stops a share"), 409, "needs-consent"),
        (control.Copies([], "1 of 2 copies", timed_out=True), 504, "timed-out"),
        (RuntimeError("a defect"), 500, "internal"),
    ],
)
def test_errors_are_problem_details(answer: Any, status: int, code: str) -> None:
    async def talk() -> None:
        async with client(Handler(Pause=answer)) as http:
            found = await http.post("/api/v1/groups/g/downloads/n/pause", json={})
            assert found.status_code == status
            assert found.headers["content-type"] == "application/problem+json"
            assert (found.json()["code"], found.json()["status"]) == (code, status)

    run(talk())


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/api/v1/groups", b"{", 400),
        ("POST", "/api/v1/groups", b'{"group": 3}', 400),
        ("POST", "/api/v1/groups", b'{"group": "g", "x": 1}', 400),
        ("POST", "/api/v1/groups", b"[" * 100_000, 400),
        ("POST", "/api/v1/groups", b'"\xff"', 400),
        ("POST", "/api/v1/groups", b" " * (limits.HTTP_BODY_BYTES_MAX + 1), 413),
        ("GET", "/api/v1/nothing", b"", 404),
        ("DELETE", "/api/v1/groups", b"", 405),
    ],
)
def test_h135_wrong_requests_are_refused(
    method: str, path: str, content: bytes, status: int
) -> None:
    async def talk() -> None:
        handler = Handler()
        async with client(handler) as http:
            headers = {"content-type": "application/json"}
            found = await http.request(method, path, content=content, headers=headers)
            assert found.status_code == status
            assert found.headers["content-type"] == "application/problem+json"
            assert not handler.asked

    run(talk())


def test_every_response_has_the_headers_of_safety() -> None:
    async def talk() -> None:
        async with client(Handler()) as http:
            for path in ("/api/v1/status", "/nothing", "/api/v1/openapi.json"):
                found = await http.get(path)
                for name, value in SECURITY_HEADERS.items():
                    assert found.headers[name] == value
            denied = await http.get("/api/v1/status", headers={"host": "evil.example"})
            assert denied.status_code == 421
            assert "content-security-policy" in denied.headers

    run(talk())


def test_a_page_exchanges_its_secret_for_a_token() -> None:
    async def talk() -> None:
        sessions = Sessions(lambda: 0.0)
        own = {"origin": f"http://{HOST}", "sec-fetch-site": "same-origin"}
        async with client(Handler(), sessions) as http:
            assert (await http.get("/api/v1/groups")).status_code == 401
            body = {"secret": sessions.new_secret()}
            begun = await http.post("/api/v1/session", json=body, headers=own)
            again = await http.post("/api/v1/session", json=body, headers=own)
            assert (begun.status_code, again.status_code) == (200, 403)
            bearer = {"authorization": f"Bearer {begun.json()['token']}"}
            assert (await http.get("/api/v1/groups", headers=bearer)).status_code == 200
            write = await http.post("/api/v1/groups", json={"group": "g"}, headers=bearer)
            assert write.status_code == 403  # without the origin of the page
            write = await http.post("/api/v1/groups", json={"group": "g"}, headers=bearer | own)
            assert write.status_code == 200

    run(talk())


def test_a_long_command_streams_its_progress_and_its_result() -> None:
    async def download(command: control.Command, notify: Notify) -> control.Answer:
        notify(control.Progress("downloading", 1, 2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return control.Begun("", "g", "/x", "n")

    async def talk() -> None:
        async with client(Handler(DownloadFile=download)) as http:
            found = await http.post(
                "/api/v1/groups/g/files/n/download",
                json={"dest": "/x"},
                headers={"accept": "text/event-stream"},
            )
            assert found.headers["content-type"].startswith("text/event-stream")
            parts = [part.split("\n") for part in found.text.strip().split("\n\n")]
            assert parts[0][0] == "event: progress"
            assert parts[-1][0] == "event: result"
            assert json.loads(parts[-1][1].removeprefix("data: "))["state"] == "downloading"

    run(talk())


def test_events_resume_after_the_last_id() -> None:
    async def talk() -> None:
        handler = Handler()
        async with client(handler) as http:
            feed = http.api.feed
            for name in ("a", "b"):
                handler.notify(control.Happened(1, "2026", "g", "share", {"name": name}))
            begun = [text async for text in _first(feed.stream(None, ""), 1)]
            assert begun == [b": alive\n\n"]
            lost = [text async for text in _first(feed.stream(None, "other-9"), 4)]
            assert b"event: gap" in lost[1]
            first_id = lost[2].split(b"\n")[0].removeprefix(b"id: ").decode()
            rest = [text async for text in _first(feed.stream("g", first_id), 2)]
            assert b'"name":"b"' in rest[1]
            assert feed.streams == 0

    run(talk())


async def _first(stream: AsyncIterator[bytes], count: int) -> AsyncIterator[bytes]:
    found = 0
    try:
        async for text in stream:
            yield text
            found += 1
            if found == count:
                return
    finally:
        await stream.aclose()  # type: ignore[attr-defined]


def test_a_reader_that_does_not_read_is_let_go() -> None:
    async def talk() -> None:
        handler = Handler()
        async with client(handler) as http:
            feed = http.api.feed
            stream = feed.stream(None, "")
            await anext(stream)
            for _ in range(limits.EVENT_BACKLOG_MAX + 1):
                handler.notify(control.Happened(1, "2026", "g", "share", {}))
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    run(talk())
