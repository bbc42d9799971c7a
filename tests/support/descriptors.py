"""Which files this process has open: for tests that nothing stays open behind their back."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def open_files(under: Path) -> list[str]:
    """The paths beneath ``under`` of this process' descriptors, removed files included.

    All descriptors cannot be counted: those of other threads and of what is not collected yet
    come and go.
    """
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{number}")
            if path.startswith(f"{under}/"):
                found.append(path)
    return sorted(found)
