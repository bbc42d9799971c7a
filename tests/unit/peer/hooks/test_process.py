"""Runs of hooks: no shell, bounded in time and output, and no process left behind."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from peer.hooks import process
from peer.hooks.process import LINE_MAX, LINES_MAX, OUTPUT_MAX, HookResult, run_hook
from tests.support.waiting import wait_for


class Ran:
    """The result of one run, and its lines."""

    def __init__(self, *words: str, limit_s: float = 30.0, stopped: threading.Event | None = None):
        self.lines: list[str] = []
        self.began = time.monotonic()
        stop = stopped or threading.Event()
        self.result = run_hook(
            words, {"PATH": os.environ["PATH"], "MT_NAME": "a $(b) `c`"}, limit_s, stop.is_set,
            self.lines.append,
        )  # fmt: skip
        self.took_s = time.monotonic() - self.began


def shell(script: str, **options: float) -> Ran:
    return Ran("/bin/sh", "-c", script, limit_s=options.get("limit_s", 30.0))


def test_h122_words_and_values_reach_the_program_as_they_are(tmp_path: Path) -> None:
    odd = ["$(touch x)", "a b", "", "-n", "*", "'", '"', "\u202e"]
    script = "import os, sys; print(sys.argv[1:], [os.environ['MT_NAME'], os.getcwd()])"
    ran = Ran(sys.executable, "-c", script, *odd)
    assert ran.result == HookResult(0)
    assert not ran.result.problem
    assert ran.lines == [f"{odd} ['a $(b) `c`', '/']".replace("\u202e", "\\u202e")]


@pytest.mark.parametrize(
    ("script", "problem"),
    [("exit 3", "exit code 3"), ("kill -9 $$", "ended by signal 9"), ("true", "")],
)
def test_the_end_of_a_hook_is_told(script: str, problem: str) -> None:
    assert shell(script).result.problem == problem


def test_a_missing_program_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="No such file"):
        Ran("/nowhere/hook")


def test_output_of_both_streams_is_printable_lines() -> None:
    ran = shell("printf 'one\\n\\033[2Jtwo\\r\\n'; printf 'bad \\377 three' >&2")
    assert ran.lines == ["one", "\\x1b[2Jtwo", "bad \ufffd three"]


def test_h123_a_flood_of_output_is_bounded() -> None:
    ran = shell("yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", limit_s=1.0)
    assert "time limit" in ran.result.problem
    assert sum(map(len, ran.lines)) <= OUTPUT_MAX + 100
    assert len(ran.lines) <= LINES_MAX + 2
    assert "further bytes of output" in ran.lines[-1]
    ran = shell("head -c 200000 /dev/zero | tr '\\0' x; echo; yes '' | head -n 5000")
    assert ran.result.problem == ""
    assert max(map(len, ran.lines)) <= LINE_MAX + 3
    assert len(ran.lines) <= LINES_MAX + 2


def children_with(mark: str) -> list[int]:
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        if mark in (one.info["cmdline"] or []) and one.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(one.pid)
    return found


@pytest.mark.parametrize(
    "script",
    [
        "sleep {mark}; exit 1",
        "trap '' TERM; sleep {mark} & while :; do wait; done",
        "(sleep {mark} &) ; (sleep {mark} &); sleep {mark}",
    ],
)
def test_h123_a_hook_that_hangs_ends_with_all_its_processes(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE_S", 0.2)
    mark = f"1000{os.getpid()}"
    ran = shell(script.format(mark=mark), limit_s=0.5)
    assert ran.result.ended_by == "ended after its time limit of 0.5 s"
    assert ran.took_s < 20
    wait_for(lambda: not children_with(mark), "the end of all its processes")


def test_h123_processes_that_a_hook_leaves_in_the_background_end_with_it() -> None:
    mark = f"2000{os.getpid()}"
    ran = shell(f"sleep {mark} & echo started")  # which holds the output open
    assert (ran.result.problem, ran.lines) == ("", ["started"])
    wait_for(lambda: not children_with(mark), "the end of the background process")


def test_f117_a_hook_ends_with_the_peer() -> None:
    stopped = threading.Event()
    threading.Timer(0.3, stopped.set).start()
    ran = Ran("/bin/sleep", "100", stopped=stopped)
    assert ran.result.problem == "ended with the peer"
    assert ran.took_s < 20
