"""HTTP application of a real tracker: at its Unix socket, for Prometheus, and on the page."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.integration.test_http import Http, UnixConnection
from tests.integration.test_metrics import scraped, values
from tests.support.paths import ROOT
from tests.support.processes import TRACKER, RunningTracker, Swarm, operate, run_program
from tests.support.promtool import promtool
from tests.support.waiting import wait_for

TCP_ONLY = True
METRICS = re.compile(r"the metrics are at http://(127\.0\.0\.1:\d+)/metrics")
SERVES = re.compile(r"the web process serves \(PID (\d+)\)")


@pytest.fixture(scope="module")
def swarm() -> Iterator[Swarm]:
    swarm = Swarm(tracker=False)
    try:
        config = swarm.root / "tracker.toml"
        config.write_text('[http]\non = true\norigin = "https://tracker.example.org"\n')
        swarm.tracker = RunningTracker(
            swarm,
            "t",
            "tcp://127.0.0.1:0",
            "--metrics",
            "127.0.0.1:0",
            before=["--config", str(config)],
        )
        yield swarm
    finally:
        swarm.close()


@pytest.fixture(scope="module")
def home(swarm: Swarm) -> Path:
    return swarm.tracker.home


def web_pid(swarm: Swarm) -> int:
    """The process that served last."""
    found = wait_for(lambda: SERVES.findall(swarm.tracker.log.read_text()), "the web process")
    return int(found[-1])


def api(home: Path) -> Http:
    return Http(UnixConnection(home / "api.sock"))


def test_the_api_does_what_the_commands_do(swarm: Swarm, home: Path) -> None:
    anna, bert = swarm.person("anna"), swarm.person("bert")
    group = anna.group_with(bert)
    path = swarm.file(400_000)
    anna.share(path, group)
    http = api(home)
    assert http.request("GET", "/groups")[1] == operate(home, "list-groups")
    wait_for(lambda: http.request("GET", "/swarms")[1]["single_seeder"] == 1, "the seeder")
    bert.ok("download-file", group, path.name, swarm.folder())
    wait_for(lambda: http.request("GET", "/swarms")[1]["healthy"] == 1, "the second seeder")
    [row] = http.request("GET", f"/swarms?group={group}")[1]["rows"]
    assert (row["name"], row["seeders"], row["holders"]) == (path.name, 2, 2)
    assert {row["user"] for row in http.request("GET", "/devices?online=true")[1]} == {
        "anna",
        "bert",
    }
    members = http.request("GET", f"/groups/{group}/members")[1]
    assert [(row["user"], row["role"]) for row in members] == [
        ("anna", "owner"),
        ("bert", "member"),
    ]

    status, done = http.request("POST", "/users/bert/disabled", {"disabled": True})
    assert (status, done) == (200, {"user": "bert", "disabled": True, "devices": 1})
    wait_for(lambda: bert.status()["user"] is None, "the end of the login")
    assert http.request("POST", "/users/bert/disabled", {"disabled": False})[0] == 200
    wait_for(lambda: bert.status()["user"] == "bert", "the return")
    password = http.request("POST", "/users/bert/password", {})[1]["password"]
    bert.ok("login", "bert", password)
    status, problem = http.request("DELETE", "/groups/nothing")
    assert (status, problem["code"]) == (404, "unknown-group")
    texts = [row["text"] for row in http.request("GET", "/log")[1]]
    assert "operator: bert is enabled; 1 device is let in again" in texts
    backup = swarm.root / "backup.db"
    assert http.request("POST", "/backup", {"file": str(backup)})[1]["file"] == str(backup)
    assert http.request("GET", "/load")[1]["backup"] is not None
    assert {row["check"] for row in http.request("GET", "/checks")[1]} >= {"database", "home"}
    history = wait_for(
        lambda: http.request("GET", "/history")[1],
        "a point of the load",
        until=lambda found: found["points"],
    )
    # A page that is opened later shows what was before its process.
    again = str(SERVES.findall(swarm.tracker.log.read_text())[-1])
    os.kill(int(again), signal.SIGTERM)
    wait_for(
        lambda: SERVES.findall(swarm.tracker.log.read_text())[-1] != again, "another web process"
    )
    later = api(home).request("GET", "/history")[1]
    assert later["run"] == history["run"]
    assert later["points"][0] == history["points"][0]


def test_h168_metrics_at_the_port_and_nothing_else(swarm: Swarm, home: Path) -> None:
    found = METRICS.search(swarm.tracker.log.read_text())
    assert found is not None
    connection = HTTPConnection(found[1])
    wait_for(lambda: scraped(connection, "/readyz") == (200, "ready\n"), "the tracker")
    assert scraped(connection, "/healthz") == (200, "ok\n")
    status, text = scraped(connection, "/metrics")
    assert status == 200
    promtool("check", "metrics", given=text)
    assert values(text)["minitorrent_tracker_writable"] == 1
    assert scraped(connection, "/metrics", Host="evil.example")[0] == 421
    assert scraped(connection, "/metrics", Origin="http://evil.example")[0] == 403
    for path in ("/api/v1/users", "/", "/assets/app.js"):
        assert scraped(connection, path)[0] == 404
    assert scraped(UnixConnection(home / "api.sock"), "/metrics")[0] == 200
    assert stat.S_IMODE((home / "api.sock").stat().st_mode) == 0o600


def test_h167_the_page_needs_its_secret_once_and_its_own_origin(home: Path) -> None:
    opened = operate(home, "web", "--no-browser")
    url, secret = opened["url"], opened["address"].partition("#s=")[2]
    host = url.removeprefix("http://").rstrip("/")
    own = {"Origin": url.rstrip("/"), "Sec-Fetch-Site": "same-origin"}
    page = Http(HTTPConnection(host))
    assert page.request("GET", "/users")[0] == 401
    assert page.request("POST", "/session", {"secret": secret})[0] == 403
    status, found = page.request("POST", "/session", {"secret": secret}, **own)
    assert status == 200
    assert page.request("POST", "/session", {"secret": secret}, **own)[0] == 403
    bearer = {"Authorization": f"Bearer {found['token']}"}
    assert page.request("GET", "/status", **bearer)[0] == 200
    assert page.request("POST", "/registration", {}, **bearer)[0] == 403
    other = {**own, "Origin": "http://127.0.0.1:1"}
    assert page.request("POST", "/stop", {}, **bearer, **other)[0] == 403
    assert page.request("GET", "/status", **bearer, Host="evil.example")[0] == 421
    assert scraped(HTTPConnection(host), "/metrics", **bearer)[0] == 404
    assert page.request("POST", "/registration", {}, **bearer, **own)[0] == 200


def test_generated_requests_get_the_answers_of_the_document(swarm: Swarm, home: Path) -> None:
    pytest.importorskip("schemathesis", reason="no schemathesis: pip install schemathesis")
    from tests.support.api_explorer import Aim, Explorer

    files = [str(swarm.root / "explored.db"), "/nonexistent/explored.db", "relative"]
    explorer = Explorer(Aim(home, {"Stop"}, ["DeleteUser", "DeleteGroup"], {"file": files}))
    wrong = explorer.explore(number=17, examples=2)
    explorer.close()
    assert "\n\n".join(wrong) == ""
    assert {200, 404} <= set().union(*explorer.statuses.values())
    assert "Traceback" not in swarm.tracker.log.read_text()


def test_f160_a_web_process_that_is_killed_comes_again(swarm: Swarm, home: Path) -> None:
    before = web_pid(swarm)
    assert api(home).request("GET", "/status")[0] == 200
    os.kill(before, signal.SIGKILL)
    assert operate(home, "status")["running"]  # the tracker goes on
    assert api(home).request("GET", "/status")[0] == 200  # the request waits for it
    assert web_pid(swarm) != before
    assert operate(home, "web", "--no-browser")["address"].startswith("http://127.0.0.1:")


def test_f161_nothing_stays_of_a_tracker_that_is_killed(swarm: Swarm, home: Path) -> None:
    pid = web_pid(swarm)
    swarm.tracker.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of the web process")
    swarm.tracker.start()
    assert api(home).request("GET", "/status")[0] == 200
    pid = web_pid(swarm)
    assert swarm.tracker.end() == 0
    assert not Path(f"/proc/{pid}").exists()
    assert not (home / "api.sock").exists()
    swarm.tracker.start()


def test_a_taken_address_is_an_error_at_the_start(tmp_path: Path) -> None:
    where = ["--home", str(tmp_path / "t"), "--bind", "tcp://127.0.0.1:0"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ran = run_program([TRACKER, "run", *where, "--metrics", address])
    assert (ran.code, ran.out) == (1, ""), str(ran)
    assert f"error: cannot listen at {address} for the metrics: Address already in use" in ran.err


def test_caddy_reads_the_example_of_the_page_for_it(tmp_path: Path) -> None:
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("Caddy is not installed: apt-get install caddy")
    text = (ROOT / "docs" / "tracker-page.md").read_text()
    (example,) = re.findall(r"```\n(tracker\.example\.org \{.*?)```", text, re.DOTALL)
    (tmp_path / "Caddyfile").write_text(example)
    done = subprocess.run(
        [caddy, "adapt", "--config", tmp_path / "Caddyfile"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "unix//var/lib/mini-torrent-tracker/api.sock" in done.stdout
    assert "http_basic" in done.stdout
