"""The live view of the demo on terminals of usual widths."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from common.messages import control
from peer.cli.demo.view import Fetch, _bars


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_download_is_one_row(columns: int) -> None:
    sources = [control.SourceUse(f"u{at}", "tcp://192.0.2.1:1", 9) for at in range(12)]
    done = control.Downloaded(
        "g", "n", "/d/n", 1 << 28, "blake3", "ab", 1.29, 112.4 * (1 << 20), 1 << 28, 0, sources
    )
    moving = control.Progress("downloading", 1 << 20, 1 << 28, 112.4 * (1 << 20), 3.0, 3)
    fetches = [
        Fetch("bert", 1 << 28, done=done, began_at=1.0, ended_at=2.29),
        Fetch("gustav", 1 << 28, progress=moving),
        Fetch("peer32", 1 << 28, error=OSError("no space left on the device " * 9)),
    ]
    shown = io.StringIO()
    Console(file=shown, width=columns).print(_bars(fetches, columns))
    lines = shown.getvalue().splitlines()
    assert len(lines) == len(fetches)
    assert all(len(line) <= columns for line in lines)
    if columns >= 80:
        assert "112 MiB/s from 12 peers, done in 1.29 s" in lines[0]
