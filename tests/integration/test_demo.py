"""The demo, as `make demo` runs it: real processes, every byte, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def demo(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "peer.cli", *words],
        cwd=ROOT,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def assert_nothing_is_left(story: str) -> None:
    places = re.findall(r"^place +(\S+)$", story, re.MULTILINE)
    assert len(places) == 1
    assert not Path(places[0]).exists()
    for pid in re.findall(r"process (\d+)$", story, re.MULTILINE):
        # Its number may have passed on to another process since.
        with contextlib.suppress(OSError):
            assert places[0] not in Path(f"/proc/{pid}/cmdline").read_text()


def test_a_folder_for_two_others(tmp_path: Path) -> None:
    folder = tmp_path / "some folder"
    (folder / "empty").mkdir(parents=True)
    (folder / "a").write_bytes(os.urandom(1_500_000))
    (folder / "nothing").touch()
    process = demo("demo", str(folder), "--peers", "3")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    assert_nothing_is_left(out)
    table = out[out.index("PEER") :].splitlines()
    assert [line.split()[0] for line in table[1:3]] == ["bert", "carla"]
    assert all(re.search(r"(anna|bert|carla) \d+", line) for line in table[1:3])
    assert "Every byte arrived." in table[-1]
    assert sorted(path.name for path in folder.iterdir()) == ["a", "empty", "nothing"]


def test_json(tmp_path: Path) -> None:
    process = demo("demo", "--size", "1M", "--peers", "2", "--json")
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (0, "")
    document = json.loads(out)
    assert document["ok"] is True
    assert document["size_bytes"] == 1 << 20
    assert [row["user"] for row in document["peers"]] == ["bert"]
    assert sum(source["pieces"] for source in document["peers"][0]["sources"]) == 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle(number: signal.Signals) -> None:
    process = demo("demo", "--size", "4M", "--peers", "2")
    assert process.stdout is not None
    story = ""
    while "peer " not in story and (line := process.stdout.readline()):
        story += line
    process.send_signal(number)
    out, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, "error: interrupted\n")
    assert_nothing_is_left(story + out)
