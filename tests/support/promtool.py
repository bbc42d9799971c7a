"""Checks by promtool, where Debian's package ``prometheus`` is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.support.waiting import PATIENCE_S


def promtool(*words: str, given: str = "") -> None:
    """Run promtool, which must accept everything; skip the test where there is none."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [found, *words], input=given, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
