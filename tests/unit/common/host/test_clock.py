"""The clock of leases, tickets and timers: it counts the time in which the machine sleeps."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time

import pytest

from common.host import clock
from common.host.clock import TrackerTime, monotonic
from tests.support.paths import ROOT

# The command line's own waiting, in one process and for seconds.
COMMAND_LINE = ("peer/cli/", "peer/control/client.py")


def test_f93_sleep_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep_s = 0.0
    real = time.clock_gettime

    def clock_gettime(which: int) -> float:
        return real(which) + (asleep_s if which == time.CLOCK_BOOTTIME else 0.0)

    monkeypatch.setattr(time, "clock_gettime", clock_gettime)
    tracker_time = TrackerTime()
    before = monotonic()
    tracker_time.learn(1_000_000, before, before)
    asleep_s = 3_600.0
    assert monotonic() - before >= 3_600.0
    assert tracker_time.now_ms() >= 1_000_000 + 3_600_000, "so tickets expire meanwhile"


def test_f93_it_is_the_clock_of_the_system_that_counts_sleep() -> None:
    """A time namespace moves that clock and no other."""
    if shutil.which("unshare") is None:
        pytest.skip("NOT SHOWN HERE: unshare is not installed")
    show = (
        "import time; from common.host.clock import monotonic; "
        "print(monotonic() - time.monotonic())"
    )
    found = []
    for offset in ("0", "86400"):
        words = ["unshare", "--time", "--boottime", offset, "--fork", sys.executable, "-c", show]
        ran = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if ran.returncode != 0:
            pytest.skip(f"NOT SHOWN HERE: no time namespaces: {ran.stderr.strip()}")
        found.append(float(ran.stdout))
    assert round(found[1] - found[0]) == 86_400


@pytest.mark.parametrize("missing", ["name", "clock"])
def test_where_the_system_has_no_such_clock_the_other_one_does(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    if missing == "name":
        monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    else:

        def refuse(which: int) -> float:
            raise OSError(22, "Invalid argument")

        monkeypatch.setattr(time, "clock_gettime", refuse)
    assert clock._clock() == time.CLOCK_MONOTONIC


def test_no_other_clock_is_used() -> None:
    found = [
        str(file.relative_to(ROOT))
        for folder in ("common", "peer", "tracker")
        for file in (ROOT / folder).rglob("*.py")
        if re.search(r"\btime\.monotonic\b|from time import .*monotonic", file.read_text("utf-8"))
    ]
    assert not [path for path in found if not path.startswith(COMMAND_LINE)]
