"""What a contestant is, and what one run of it yields."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from benchmarks.arena import Arena
from benchmarks.crew import Span
from benchmarks.workloads import Workload


@dataclass(frozen=True, slots=True)
class Outcome:
    """One finished run. Each contestant's module says what lies inside its timed span."""

    wall_s: float
    span: Span
    """As the clock saw it; `wall_s` may be a part of it, by the contestant's own time stamps."""
    outputs: tuple[Path, ...]
    """What must equal the source, byte for byte; compared after the clock has stopped."""
    notes: dict[str, float] = field(default_factory=dict)
    """Further figures for the JSON line, names with their units."""


class Contestant(Protocol):
    """One way to bring content from some nodes to others."""

    @property
    def name(self) -> str: ...

    def unfit(self, workload: Workload) -> str | None:
        """Why it cannot run `workload` here, in words; None when it can."""

    def run(self, arena: Arena) -> Outcome:
        """Set up, move the content once and tell what it cost."""


def missing_program(*names: str) -> str | None:
    """The first of `names` that is not on the path, in words."""
    for name in names:
        if shutil.which(name) is None:
            return f"{name} is not installed"
    return None
