"""Base of the rows of `make chaos`: a seed, the time that is left, and swarms of processes."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support.processes import Swarm

LOG_LINES = 12


class Skipped(Exception):
    """This row cannot be shown here; the text says why."""


@dataclass
class Stage:
    """One row's surroundings. ``scale`` is 1.0 for the real thing and less for a quick look."""

    rng: random.Random
    scale: float
    ends_at: float
    soak_s: float

    def count(self, full: int) -> int:
        """So many times, or fewer for a quick look."""
        return max(3, round(full * self.scale))

    @property
    def left_s(self) -> float:
        """Time that all rows together have left."""
        return self.ends_at - time.monotonic()

    @contextlib.contextmanager
    def swarm(self) -> Iterator[Swarm]:
        """A swarm that is gone afterwards. The end of its logs is printed when the row fails."""
        made = Swarm("tcp")
        try:
            yield made
        except BaseException as error:
            if not isinstance(error, Skipped):
                for path, text in made.logs():
                    print(f"--- {path}", *text.splitlines()[-LOG_LINES:], sep="\n")
            raise
        finally:
            made.close()
