"""Processes of tracker and peer under a service manager of this test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import PEER, TRACKER
from tests.support.waiting import PATIENCE_S

CONFIG = Path(__file__).resolve().parents[2] / "config"


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(PATIENCE_S)
        yield made


def next_with(heard: socket.socket, line: str) -> list[str]:
    while line not in (lines := heard.recv(4096).decode().split("\n")):
        assert "READY=1" not in lines
    return lines


def test_tracker_and_peer_tell_the_service_manager_what_they_do(
    heard: socket.socket, tmp_path: Path
) -> None:
    variables = {
        **os.environ,
        "NOTIFY_SOCKET": str(heard.getsockname()),
        "WATCHDOG_USEC": "300000",
    }

    def started(*words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "out").open("wb") as out:
            return subprocess.Popen(words, env=variables, stdin=subprocess.DEVNULL, stdout=out)

    def told(process: subprocess.Popen[bytes], state: str) -> None:
        try:
            ready = next_with(heard, "READY=1")
            assert any(line.startswith("STATUS=") and state in line for line in ready), ready
            next_with(heard, "WATCHDOG=1")
            process.send_signal(signal.SIGTERM)
            assert next_with(heard, "STOPPING=1")
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
            process.wait()

    home = str(tmp_path / "tracker")
    told(started(TRACKER, "run", "--home", home, "--bind", "127.0.0.1:0"), "serving at ")
    link = (tmp_path / "tracker" / "link").read_text().strip()
    words = ("up", "--foreground", "--listen", "127.0.0.1:0", link)
    told(started(PEER, "--home", str(tmp_path / "peer"), *words), "waiting for the tracker")


@pytest.mark.parametrize("unit", ["mini-torrent.service", "mini-torrent-tracker.service"])
def test_units_wait_for_readiness_and_watch_the_loop(unit: str) -> None:
    lines = (CONFIG / unit).read_text().splitlines()
    assert {"Type=notify", "NotifyAccess=main", "WatchdogSec=30"} <= set(lines)
