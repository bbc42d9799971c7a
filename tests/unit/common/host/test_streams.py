"""Standard streams that are closed or full."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def tracker_command(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracker.cli", *words],
        cwd=ROOT,
        text=True,
        timeout=60,
        check=False,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},  # type: ignore[call-overload]
    )


@pytest.mark.parametrize("words", [("rotate-key",), ("--help",), ("--version",)])
def test_the_tracker_says_that_its_output_could_not_be_written(
    tmp_path: Path, words: tuple[str]
) -> None:
    home = ("--home", str(tmp_path / "home")) if words == ("rotate-key",) else ()
    with open("/dev/full", "w") as full:
        ended = tracker_command(*words, *home, stdout=full)
    assert (ended.returncode, ended.stderr) == (1, "error: No space left on device\n")


def test_a_file_never_takes_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    program = (
        "import os, sys; os.close(0); os.close(2)\n"
        "from common.host.streams import open_closed_streams; open_closed_streams()\n"
        f"print(open({str(tmp_path / 'file')!r}, 'w').fileno() > 2, sys.stdin.read() == '')\n"
        "print('distress', file=sys.stderr)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert (ended.stdout, ended.stderr) == ("True True\n", "")
