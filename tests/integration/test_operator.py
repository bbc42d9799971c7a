"""The operator's commands on a running tracker, by the installed program."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from common.host.control_socket import find_endpoint
from common.host.home import lock_holder
from tests.support.paths import ROOT
from tests.support.processes import TRACKER, Ran, Swarm, run_program
from tests.support.waiting import PATIENCE_S, wait_for

# The transport makes no difference here.
pytestmark = pytest.mark.parametrize("transport", ["tcp"], indirect=True)


def operate(home: Path, *words: str, **options: Any) -> Ran:
    return run_program([TRACKER, words[0], *words[1:], "--home", str(home)], **options)


def ok(home: Path, *words: str, **options: Any) -> Any:
    ran = operate(home, *words, "--json", **options)
    assert ran.code == 0, str(ran)
    return ran.json


@pytest.fixture
def home(own_swarm: Swarm) -> Path:
    return own_swarm.tracker.home


def test_h118_a_disabled_user_is_cut_off_within_a_second_and_comes_back(
    own_swarm: Swarm, home: Path
) -> None:
    alice, bob = own_swarm.person("alice"), own_swarm.person("bob")
    group = alice.group_with(bob)
    path = own_swarm.file(1 << 20)
    alice.share(path, group)
    shared = bob.share(own_swarm.file(1 << 16), group)
    # A download that takes for ever at this rate.
    bob.down()
    bob.up("--download-limit", "1K")
    bob.ok("download-file", group, path.name, str(own_swarm.folder()), "--no-wait")
    wait_for(lambda: alice.files(group)[path.name]["leechers"] == 1, "the download")
    assert ok(home, "disable-user", "BOB") == {"user": "bob", "disabled": True, "devices": 1}
    wait_for(lambda: bob.status()["user"] is None, "the end of the login")
    assert 'the account "bob" is disabled' in bob.status()["trouble"]
    wait_for(lambda: alice.files(group)[path.name]["leechers"] == 0, "the end of the download")
    assert alice.files(group)[shared["name"]]["seeders"] == 0
    assert bob.refused("list-groups") != ""
    assert bob.refused("login", "bob", bob.password) == 'the account "bob" is disabled'
    [row] = [row for row in ok(home, "list-users") if row["user"] == "bob"]
    assert (row["disabled"], row["online"], row["devices"]) == (True, 0, 1)
    # Nothing is lost by a restart in this state.
    own_swarm.tracker.restart()
    wait_for(lambda: bob.status()["connected"], "the tracker")
    assert bob.status()["user"] is None
    ok(home, "enable-user", "bob")
    wait_for(lambda: bob.status()["user"] == "bob", "the return without a login")
    wait_for(lambda: alice.files(group)[shared["name"]]["seeders"] == 1, "the share")
    said = (own_swarm.root / "t.log").read_text()
    assert "operator: bob is disabled" in said
    assert "operator: bob is enabled" in said


def test_passwords_groups_and_accounts_are_the_operators(own_swarm: Swarm, home: Path) -> None:
    alice, bob = own_swarm.person("alice"), own_swarm.person("bob")
    group = alice.group_with(bob)
    [row] = ok(home, "list-groups")
    assert (row["group"], row["owner"], row["members"]) == (group, "alice", 2)
    told = operate(home, "reset-password", "bob").out.splitlines()
    assert told[0] == "bob has a new password; 1 device is logged out"
    assert told[1].startswith("new password: ")
    fresh = ok(home, "reset-password", "bob")["password"]
    wait_for(lambda: bob.status()["user"] is None, "the end of the login")
    bob.refused("login", "bob", bob.password)
    bob.ok("login", "bob", fresh)
    asked = operate(home, "reset-password", "bob", "--ask", stdin="another password\n")
    assert (asked.code, "another password" in asked.out) == (0, False), str(asked)
    assert operate(home, "reset-password", "bob", "--ask", stdin="short\n").code == 2
    assert operate(home, "reset-password", "bob", "--ask", stdin="").code == 2
    bob.ok("login", "bob", "another password")
    ok(home, "delete-user", "alice")
    wait_for(lambda: alice.status()["user"] is None, "the end of the login")
    [row] = bob.json("list-groups")
    assert (row["owner"], row["role"]) == ("bob", "owner")
    ok(home, "delete-group", group)
    wait_for(lambda: bob.json("list-groups") == [], "the end of the group")
    assert ok(home, "registration") == {"registration": "open", "changed": False}
    assert ok(home, "registration", "closed")["changed"]
    assert "makes no new accounts" in alice.refused("create-user", "alice", alice.password)
    own_swarm.tracker.restart()
    assert ok(home, "registration")["registration"] == "closed"
    assert ok(home, "registration", "open")["changed"]
    alice.ok("create-user", "alice", alice.password)


@pytest.mark.parametrize(
    "words",
    [["status"], ["stop"], ["disable-user", "bob"], ["reset-password", "bob"]],
    ids=" ".join,
)
def test_without_a_tracker_each_says_so(transport: str, tmp_path: Path, words: list[str]) -> None:
    ran = operate(tmp_path / "home", *words)
    assert (ran.code, ran.out) == (3, ""), str(ran)
    said, hint = ran.err.splitlines()
    assert said == f"error: no tracker runs for {tmp_path / 'home'}"
    assert hint == f"hint: start it: mini-torrent-tracker start --home {tmp_path / 'home'}"
    if words == ["status"]:
        error = json.loads(operate(tmp_path / "home", *words, "--json").err)["error"]
        assert error["code"] == "no-tracker"


@pytest.fixture
def in_background(tmp_path: Path) -> Iterator[Path]:
    """A home whose tracker is ended after the test."""
    yield tmp_path / "home"
    operate(tmp_path / "home", "stop")


def test_f113_start_status_stop_and_a_kill(transport: str, in_background: Path) -> None:
    home = in_background
    started = operate(home, "start", "--bind", "127.0.0.1:0")
    assert started.code == 0, str(started)
    first, *more = started.out.splitlines()
    assert first.startswith("tracker ready: mini-torrent://127.0.0.1:")
    assert more == []
    link = first.removeprefix("tracker ready: ")
    status = ok(home, "status")
    assert (status["running"], status["link"]) == (True, link)
    assert status["pid"] == lock_holder(home)
    assert status["database_bytes"] > 0
    again = operate(home, "start")
    assert (again.code, again.out) == (0, started.out)
    assert "already running" in again.err
    assert "not used" not in again.err
    elsewhere = operate(home, "start", "--bind", "127.0.0.1:0", "--advertise", "b.example.org")
    assert (elsewhere.code, elsewhere.out) == (0, started.out)
    assert "the options are not used" in elsewhere.err
    # Killed: its socket stays, and no tracker runs.
    place = Path(find_endpoint(home).removeprefix("ipc://"))
    os.kill(status["pid"], signal.SIGKILL)
    wait_for(lambda: lock_holder(home) is None, "its end")
    assert place.exists()
    assert operate(home, "status").code == 3
    assert ok(home, "start")["link"] == link, "where it listened before"
    assert ok(home, "stop")["stopped"]
    assert lock_holder(home) is None
    assert not place.exists()


def test_a_start_that_fails_tells_the_reason_of_the_tracker(
    transport: str, in_background: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = operate(in_background, "start", "--bind", where)
    assert failed.code == 1, str(failed)
    assert "in use" in failed.err.lower()
    assert lock_holder(in_background) is None
    wrong = operate(in_background, "start", "--bind", "nonsense:port")
    assert (wrong.code, "not an endpoint" in wrong.err) == (2, True), str(wrong)


def test_h119_the_operators_socket_is_private_and_survives_nonsense(
    own_swarm: Swarm, home: Path
) -> None:
    path = Path(find_endpoint(home).removeprefix("ipc://"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    if os.geteuid() == 0:
        code = (
            "import os, socket\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"socket.socket(socket.AF_UNIX).connect({str(path)!r})"
        )
        other = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert b"PermissionError" in other.stderr
    context = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.LINGER, 0)
    dealer.connect(f"ipc://{path}")
    for frames in (
        [b""],
        [b"MT\x01", b"1", b"\xc1"],
        [b"x" * 1000] * 3,
        [b"MT\x09", b"1", b"\x90"],
    ):
        dealer.send_multipart(frames)
    dealer.send_multipart([b"MT\x01", b"last", b"\x81\xa4type\xa7Nothing"])
    wait_for(lambda: dealer.poll(50), "an answer")
    dealer.close()
    context.term()
    for name in ("no\x1b[31mbody", "x" * 5_000, "", "-"):
        ran = operate(home, "disable-user", "--", name)
        assert ran.code in (1, 2), str(ran)
        assert "\x1b" not in ran.err
    assert ok(home, "status")["running"]


def test_run_prints_its_link_as_json(transport: str, tmp_path: Path) -> None:
    words = ["run", "--json", "--home", str(tmp_path / "t"), "--bind", "127.0.0.1:0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tracker.cli", *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["link"].startswith("mini-torrent://127.0.0.1:")
    process.communicate("quit\n", timeout=PATIENCE_S)
    assert process.returncode == 0
