"""Copies of a process that become serving ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from common.host import detached
from tests.support.paths import ROOT

PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from common.host import detached

def facts():
    print("first", file=sys.stderr)
    with open(sys.argv[2], "w") as file:
        json.dump({
            "session": os.getsid(0) == os.getpid(), "folder": os.getcwd(),
            "files": sorted(map(int, os.listdir("/proc/self/fd")))[:4],
            "input": sys.stdin.read(), "ours": [n for n in os.environ if "MINI_TORRENT" in n],
            "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        }, file)
    if sys.argv[3] == "raise":
        raise ValueError("not well")
    return 7

signal.signal(signal.SIGTERM, lambda *_: None)
held = open(sys.argv[0] if os.path.exists(sys.argv[0]) else os.devnull)
assert detached.can_fork()
sys.stdout.write("once ")
with detached.open_log(Path(sys.argv[1])) as log:
    child = detached.fork(facts, log)
print(child.wait(20.0), child.poll(), end="")
"""


def forked(tmp_path: Path, how: str) -> tuple[str, dict[str, Any], str]:
    """The output of a program that forked, and what its copy found and logged."""
    log, found = tmp_path / "log", tmp_path / "found"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log), str(found), how],
        cwd=ROOT,
        env={**os.environ, "MINI_TORRENT_PASSWORD": "secret"},
        input="of the starter",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(found.read_text()), log.read_text()


def test_a_copy_keeps_nothing_of_the_process_that_started_it(tmp_path: Path) -> None:
    out, found, log = forked(tmp_path, "return")
    assert (out, log) == ("once 7 7", "first\n")
    assert found.pop("files") == [0, 1, 2, 3]  # 3 is the file of the facts
    assert found == {"session": True, "folder": "/", "input": "", "ours": [], "term": True}


def test_the_error_of_a_copy_is_in_its_log_alone(tmp_path: Path) -> None:
    out, _, log = forked(tmp_path, "raise")
    assert out == "once 1 1"
    assert log.endswith("ValueError: not well\n")


def test_a_process_with_threads_is_not_copied() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        assert not detached.can_fork()
    finally:
        ended.set()
        thread.join()
