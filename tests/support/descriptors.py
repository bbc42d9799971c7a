"""Descriptors of the test process: open files, and readiness beyond the limit of ``select``."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol


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


class HasDescriptor(Protocol):
    """A socket, pipe or file."""

    def fileno(self) -> int:
        """Return its descriptor."""


def readable(objects: Iterable[HasDescriptor | int], timeout_s: float) -> list[int]:
    """Return the descriptors that are readable within ``timeout_s``.

    Why: ``select`` refuses descriptors above 1,023, and a session of tests holds that many.
    """
    poller = select.poll()
    for each in objects:
        poller.register(each, select.POLLIN)
    return [descriptor for descriptor, _ in poller.poll(timeout_s * 1000)]
