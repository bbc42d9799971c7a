"""Contestant protocol, and the outcome of one run."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.environment import RunEnvironment
from benchmarks.processes import Span
from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished run. The docstring of each contestant's module defines its timed span."""

    wall_s: float
    span: Span
    """Measured by the clock; `wall_s` may be a part of it, by the contestant's own time stamps."""
    outputs: tuple[Path, ...]
    """Files or folders that must equal the source; compared after the clock has stopped."""
    notes: dict[str, float] = field(default_factory=dict)
    """More figures for the JSON line; each name ends with its unit."""


class Contestant(Protocol):
    """One program or setup that moves content between nodes."""

    @property
    def name(self) -> str: ...

    def skip_reason(self, workload: Workload) -> str | None:
        """Return the reason for which `workload` cannot run here, or None if it can."""

    def run(self, env: RunEnvironment) -> Outcome:
        """Set up, move the content once, and return the cost."""


def missing_program(*names: str) -> str | None:
    """Return a reason that names the first program not on the path, or None."""
    for name in names:
        if shutil.which(name) is None:
            return f"{name} is not installed"
    return None
