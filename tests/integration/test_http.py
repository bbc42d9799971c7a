"""HTTP API of a real peer: on its Unix socket and on the loopback port of the page."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from common.messages import control
from peer.control.client import ControlClient
from tests.support.processes import Person, Swarm
from tests.support.waiting import PATIENCE_S, wait_for

JSON = {"Content-Type": "application/json"}


class UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


class Http:
    """Requests to one listener."""

    def __init__(self, connection: HTTPConnection, headers: dict[str, str] | None = None) -> None:
        self.connection = connection
        self.headers = headers or {}

    def request(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        content = None if body is None else json.dumps(body)
        sent = {**(JSON if method != "GET" else {}), **self.headers, **headers}
        self.connection.request(method, f"/api/v1{path}", content, sent)
        response = self.connection.getresponse()
        return response.status, json.loads(response.read() or b"null")

    def stream(self, path: str, **headers: str) -> HTTPResponse:
        self.connection.request("GET", f"/api/v1{path}", headers={**self.headers, **headers})
        return self.connection.getresponse()


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    swarm = Swarm()
    yield swarm
    swarm.close()


def with_http(swarm: Swarm, name: str) -> Person:
    person = Person(swarm, name)
    person.home.mkdir(mode=0o700)
    (person.home / "peer.toml").write_text("[http]\non = true\n")
    person.up(tracker=swarm.tracker.link)
    person.ok("create-user", name, person.password)
    person.ok("login", name, person.password)
    return person


@pytest.fixture(scope="module")
def anna(swarm: Swarm) -> Person:
    return with_http(swarm, "anna")


def api(person: Person) -> Http:
    return Http(UnixConnection(person.home / "api.sock"))


def open_page(person: Person) -> control.PageOpened:
    with ControlClient(person.home) as client:
        found = client.result(control.OpenPage())
    assert isinstance(found, control.PageOpened)
    return found


def test_a_file_is_shared_and_fetched_over_http(swarm: Swarm, anna: Person) -> None:
    bert = with_http(swarm, "bert")
    http, other = api(anna), api(bert)
    assert http.request("POST", "/groups", {"group": "films"})[0] == 200
    assert other.request("POST", "/groups/films/join")[0] == 200
    assert [row["user"] for row in http.request("GET", "/groups/films/requests")[1]] == ["bert"]
    assert http.request("POST", "/groups/films/requests/bert/accept")[0] == 200
    path = swarm.file(300_000)
    status, shared = http.request("POST", "/groups/films/files", {"path": str(path), "name": "a b"})
    assert (status, shared["size_bytes"]) == (200, 300_000)

    def listed() -> bool:
        return other.request("GET", "/groups/films/files")[1][0:1] != []

    wait_for(listed, "the share")
    dest = swarm.folder()
    status, done = other.request("POST", "/groups/films/files/a%20b/download", {"dest": str(dest)})
    assert (status, done["digest"]) == (200, shared["digest"])
    assert Path(done["path"]).read_bytes() == path.read_bytes()
    assert other.request("GET", "/downloads")[1] == bert.json("show-downloads")
    status, problem = other.request("POST", "/groups/none/join")
    assert (status, problem["code"]) == (404, "unknown-group")
    assert problem["hint"]


def test_the_socket_is_private_and_replaced_after_a_kill(anna: Person) -> None:
    path = anna.home / "api.sock"
    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    anna.kill()
    assert path.exists()
    anna.up()
    assert api(anna).request("GET", "/status")[1]["user"] == "anna"


def test_events_come_while_they_happen_and_do_not_hold_up_the_end(swarm: Swarm) -> None:
    cora = with_http(swarm, "cora")
    group = cora.group_with()
    stream = api(cora).stream("/events")
    assert stream.readline() == b": alive\n"
    cora.share(swarm.file(1000), group)
    lines = iter(stream.readline, b"")
    told = next(line for line in lines if line == b"event: share\n")
    assert told
    assert json.loads(next(lines).removeprefix(b"data: "))["group"] == group
    cora.down()  # with the stream open
    assert b"".join(lines).strip() in (b"", b": alive")
    assert not (cora.home / "api.sock").exists()


def test_waits_are_answered_when_the_peer_ends(swarm: Swarm) -> None:
    """None of them is cut off, and none holds up the end until its grace has passed."""
    dora, emil = swarm.person("dora"), with_http(swarm, "emil")
    group = dora.group_with(emil)
    name = dora.share(swarm.file(500_000), group)["name"]
    dora.kill()
    where = f"/api/v1/groups/{group}/files/{name}/download"
    dest = json.dumps({"dest": f"{swarm.folder()}/"})
    waits = [UnixConnection(emil.home / "api.sock") for _ in range(2)]
    waits[0].request("GET", f"/api/v1/files/{group}/{name}")
    # A read that comes second would use the download of the other one.
    wait_for(lambda: len(emil.json("show-downloads")) == 1, "the download of the read")
    waits[1].request("POST", where, dest, JSON)
    wait_for(lambda: len(emil.json("show-downloads")) == 2, "both downloads")
    emil.down()
    codes = [json.loads(wait.getresponse().read())["code"] for wait in waits]
    assert codes == ["timed-out", "busy"]


def test_a_page_needs_its_secret_once_and_its_own_origin(anna: Person) -> None:
    page = open_page(anna)
    host = page.url.removeprefix("http://").strip("/")
    own = {"Origin": page.url.strip("/"), "Sec-Fetch-Site": "same-origin"}
    http = Http(HTTPConnection(host, timeout=PATIENCE_S), own)
    assert http.request("GET", "/status")[0] == 401
    status, begun = http.request("POST", "/session", {"secret": page.secret})
    assert status == 200
    assert http.request("POST", "/session", {"secret": page.secret})[0] == 403
    bearer = {"Authorization": f"Bearer {begun['token']}"}
    assert http.request("GET", "/status", **bearer)[1]["user"] == "anna"
    assert http.request("POST", "/groups", {"group": "paged"}, **bearer)[0] == 200
    for attack in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert http.request("POST", "/groups", {"group": "bad"}, **bearer, **attack)[0] == 403
    for name in ("evil.example", "127.0.0.1:1"):
        http.connection.putrequest("GET", "/api/v1/status", skip_host=True)
        http.connection.putheader("Host", name)
        http.connection.endheaders()
        response = http.connection.getresponse()
        assert (response.status, b"anna" in response.read()) == (421, False)
    assert "bad" not in {row["group"] for row in anna.json("list-groups")}


def test_without_http_there_is_no_socket(swarm: Swarm) -> None:
    dora = swarm.person("dora", log_in=False)
    assert not (dora.home / "api.sock").exists()
