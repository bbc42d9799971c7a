"""Start and stop of a real peer. Its tracker does not run, which keeps no peer from starting."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.host import detached
from common.host.home import lock_holder
from peer.cli import daemon_process
from peer.control.client import ControlClient
from tests.support.paths import ROOT

NOBODY = "mini-torrent://127.0.0.1:1/" + "A" * 43
UP = ("up", "--tracker", NOBODY, "--listen", "127.0.0.1:0")
READY = re.compile(r"peer ready: (tcp://127\.0\.0\.1:\d+) \(tracker (\S+)\)\n")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "home"
    yield path
    if pid := lock_holder(path):
        os.kill(pid, signal.SIGKILL)


def mini_torrent(
    home: Path, *words: str, stdin: str = "", variables: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MINI_TORRENT")}
    return subprocess.run(
        [sys.executable, "-m", "peer.cli", "--home", str(home), *words],
        cwd=ROOT,
        env={**environment, **(variables or {})},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_up_status_down(home: Path) -> None:
    done = mini_torrent(home, *UP)
    found = READY.fullmatch(done.stdout)
    assert found, done
    assert (done.returncode, found[2]) == (0, NOBODY)
    assert "warning: the tracker cannot be reached" in done.stderr
    status = json.loads(mini_torrent(home, "--json", "status").stdout)
    assert (status["listen"], status["connected"], status["user"]) == (found[1], False, None)
    assert status["pid"] == lock_holder(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "peer.log").stat().st_mode) == 0o600
    again = mini_torrent(home, "up")
    assert again.returncode == 0
    assert again.stdout.startswith(f"peer is already running (PID {status['pid']})")
    assert mini_torrent(home, "login", "anna", "pw").returncode == 4
    assert mini_torrent(home, "down").stdout == "peer stopped\n"
    assert lock_holder(home) is None
    assert not detached.is_running(status["pid"])
    assert not (home / "control.sock").exists()


def test_the_options_of_up_are_saved(home: Path) -> None:
    variables = {"MINI_TORRENT_TRACKER": NOBODY, "MINI_TORRENT_LISTEN": "127.0.0.1:0"}
    assert mini_torrent(home, "up", variables=variables).returncode == 0
    assert mini_torrent(home, "down").returncode == 0
    assert READY.fullmatch(mini_torrent(home, "up").stdout)
    assert mini_torrent(home, "down").returncode == 0


def test_the_options_of_a_failed_start_are_not_saved(home: Path) -> None:
    assert mini_torrent(home, *UP).returncode == 0
    status = json.loads(mini_torrent(home, "--json", "status").stdout)
    other = home.parent / "other"
    done = mini_torrent(other, "up", "--tracker", NOBODY, "--listen", status["listen"])
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"error: cannot listen at {status['listen']}: Address already in use",
        "hint: another process uses it: stop that one, or choose another port",
    ]
    assert lock_holder(other) is None
    assert mini_torrent(other, "up").returncode == 2
    mini_torrent(home, "down")


def test_two_at_once_start_one(home: Path) -> None:
    starters = [
        subprocess.Popen(
            [sys.executable, "-m", "peer.cli", "--home", str(home), *UP],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    said = [starter.communicate(timeout=60) for starter in starters]
    assert [starter.returncode for starter in starters] == [0, 0, 0], said
    endpoints = {re.search(r"tcp://127\.0\.0\.1:\d{4,}", out)[0] for out, _ in said}  # type: ignore[index]
    assert len(endpoints) == 1
    assert mini_torrent(home, "down").returncode == 0


def test_a_frozen_peer_is_no_reason_to_wait_for_ever(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from common.errors import NoPeerRunning
    from common.messages import control

    daemon_process.start(home, {"tracker": NOBODY, "listen": "tcp://127.0.0.1:0"})
    pid = lock_holder(home)
    assert pid
    os.kill(pid, signal.SIGSTOP)
    try:
        monkeypatch.setattr("peer.control.client.SILENCE_S", 0.5)
        with ControlClient(home) as client, pytest.raises(NoPeerRunning, match="does not answer"):
            client.result(control.Status())
    finally:
        os.kill(pid, signal.SIGCONT)
    daemon_process.stop(home)
    assert not detached.is_running(pid)


def test_a_prompt_ends_the_peer_that_it_started(home: Path) -> None:
    done = mini_torrent(home, "shell", "127.0.0.1:0", NOBODY, stdin="status\n")
    assert done.returncode == 0
    pid = int(re.search(r"running, process (\d+)", done.stdout)[1])  # type: ignore[index]
    assert "stopping the peer that this shell started" in done.stderr
    assert lock_holder(home) is None
    assert not detached.is_running(pid)


def test_a_prompt_leaves_a_peer_that_ran_before(home: Path) -> None:
    status = daemon_process.start(home, {"tracker": NOBODY, "listen": "tcp://127.0.0.1:0"})
    assert mini_torrent(home, "shell", stdin="status\nquit\n").returncode == 0
    assert lock_holder(home) == status.pid
    refused = mini_torrent(home, "shell", "127.0.0.1:1", stdin="quit\n")
    assert refused.returncode == 1
    daemon_process.stop(home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_prompt_stops_its_peer(home: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "peer.cli", "--home", str(home), "shell", "127.0.0.1:0", NOBODY],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("status\n")
    process.stdin.flush()
    assert "running" in process.stdout.readline()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert lock_holder(home) is None


def test_a_module_beside_the_typist_is_not_ours(home: Path, tmp_path: Path) -> None:
    (tmp_path / "common.py").write_text("raise SystemExit('hijacked')")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "from peer.cli import run\n"
        "sys.exit(run(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(ROOT), "--home", str(home), *UP],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    daemon_process.stop(home)
