"""HTTP API of a tracker over answers of our own: documents, problems, and the checks before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from common.errors import Refused
from common.http.access import UNIX_HOSTS, Access
from common.http.application import application
from common.http.metrics_routes import metrics_routes
from common.http.page_files import is_page_path, page_routes
from common.messages import operator as messages
from common.messages.refusals import Code
from tests.support.event_loop import in_event_loop
from tests.support.wire_samples import OPERATOR_ANSWERS
from tracker.http.api import Api
from tracker.http.service import PAGE

SAMPLES = {type(answer): answer for answer in OPERATOR_ANSWERS}
PROXY = "https://tracker.example.org"


class FakeClient:
    """Answers each question by a sample; ``error`` instead if it is set."""

    def __init__(self) -> None:
        self.asked: list[messages.Command] = []
        self.error: Refused | None = None

    async def request(self, command: messages.Command, answer: Any, silence_s: float = 0) -> Any:
        self.asked.append(command)
        if self.error is not None:
            raise self.error
        found = SAMPLES[answer]
        if isinstance(found, messages.Users | messages.Groups | messages.Devices):
            return type(found)(found.rows)
        return messages.Swarms(found.rows) if isinstance(found, messages.Swarms) else found

    def close(self) -> None:
        pass


@asynccontextmanager
async def client(fake: FakeClient, access: Access | None = None) -> AsyncIterator[Any]:
    api = Api(Path("/nowhere"), fake, "1.2.3")  # type: ignore[arg-type]
    monitoring = metrics_routes(api.metrics, api.unready, api.unhealthy)
    routes = [*page_routes(PAGE), *api.routes(), *monitoring]
    app = application(routes, access or Access(UNIX_HOSTS, None), is_page_path)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as made:
        yield made
    api.close()


@in_event_loop
async def test_reads_are_lists_and_objects_of_the_commands() -> None:
    fake = FakeClient()
    async with client(fake) as http:
        assert (await http.get("/api/v1/users")).json()[0]["user"] == "bob"
        await http.get("/api/v1/users?text=Bo&online=true&limit=7")
        assert fake.asked[-1] == messages.ListUsers("", "Bo", True, 7)
        await http.get("/api/v1/groups?text=fi&limit=600")
        assert fake.asked[-1] == messages.ListGroups("", "fi", messages.ROWS_MAX)
        assert (await http.get("/api/v1/devices?online=true")).json()[0]["key"] == "ab" * 32
        assert (await http.get("/api/v1/groups")).json()[0]["group"] == "films"
        assert (await http.get("/api/v1/groups/films/members")).json()[0]["role"] == "member"
        assert (await http.get("/api/v1/swarms")).json()["rows"][0]["fetching"][0]["pieces"] == 17
        assert (await http.get("/api/v1/log")).json()[0]["number"] == 17
        assert (await http.get("/api/v1/load")).json()["commits"] == 3
        status = (await http.get("/api/v1/status")).json()
        assert status["running"]
        assert "type" not in status


@in_event_loop
async def test_changes_are_asked_and_answered_as_the_command_line_does() -> None:
    fake = FakeClient()
    async with client(fake) as http:
        done = await http.post("/api/v1/users/bob/disabled", json={"disabled": True})
        assert done.json() == {"user": "bob", "disabled": True, "devices": 1}
        done = await http.post("/api/v1/users/bob/password", json={})
        made = done.json()["password"]
        assert fake.asked[-1] == messages.ResetPassword("bob", made)
        done = await http.post("/api/v1/users/bob/password", json={"password": "a password"})
        assert "password" not in done.json()
        done = await http.request(
            "DELETE", "/api/v1/users/bob", json={}, headers={"content-type": "application/json"}
        )
        assert done.json() == {"user": "bob", "deleted": True, "devices": 1, "groups": 2}
        assert (await http.post("/api/v1/stop", json={})).json() == {"stopped": True}
        done = await http.post("/api/v1/registration", json={"mode": "closed"})
        assert done.json() == {"registration": "closed", "changed": True}


@in_event_loop
async def test_a_refusal_is_a_problem() -> None:
    fake = FakeClient()
    fake.error = Refused(Code.UNKNOWN_USER, 'there is no user "bob"', "see the users")
    async with client(fake) as http:
        found = await http.post("/api/v1/users/bob/disabled", json={"disabled": True})
        assert found.status_code == 404
        assert found.json()["code"] == "unknown-user"
        assert (await http.get("/nothing")).headers["content-type"] == "application/problem+json"
        assert (await http.get("/metrics")).status_code == 503


@in_event_loop
async def test_h165_one_look_serves_all_readers_and_a_change_ends_it() -> None:
    fake = FakeClient()
    async with client(fake) as http:
        for _ in range(20):
            await http.get("/api/v1/users")
            await http.get("/api/v1/swarms")
            await http.get("/metrics")
        assert len(fake.asked) == 3
        await http.post("/api/v1/users/bob/disabled", json={"disabled": True})
        await http.get("/api/v1/users")
        assert len(fake.asked) == 5


@in_event_loop
async def test_f161_health_is_that_of_the_tracker() -> None:
    fake = FakeClient()
    async with client(fake) as http:
        assert (await http.get("/healthz")).text == "ok\n"
        assert (await http.get("/readyz")).text == "ready\n"
    fake.error = Refused(Code.BUSY, "the tracker does not answer")
    async with client(fake) as http:
        for path in ("/healthz", "/readyz"):
            found = await http.get(path)
            assert (found.status_code, found.text) == (503, "the tracker does not answer\n")


OWN = {"host": "tracker.example.org", "origin": PROXY, "sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OWN, 200),
        ({"host": "localhost"}, 200),  # a script at the socket
        ({**OWN, "origin": "https://evil.example"}, 403),
        ({**OWN, "origin": "http://tracker.example.org"}, 403),
        ({**OWN, "sec-fetch-site": "cross-site"}, 403),
        ({"host": "tracker.example.org"}, 403),
        ({"host": "localhost", "origin": PROXY}, 403),
        ({"host": "evil.example"}, 421),
    ],
)
@in_event_loop
async def test_h169_behind_a_proxy_only_its_page_may_write(
    headers: dict[str, str], status: int
) -> None:
    fake = FakeClient()
    async with client(fake, Access(UNIX_HOSTS, None, origin=PROXY)) as http:
        found = await http.post(
            "/api/v1/users/bob/disabled", json={"disabled": True}, headers=headers
        )
        assert found.status_code == status, found.text
        assert bool(fake.asked) == (status == 200)
