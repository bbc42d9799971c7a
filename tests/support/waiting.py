"""Waiting for what must come true: the only way in which a test lets time pass."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

R = TypeVar("R")
PATIENCE_S = 40.0  # far more than anything takes: it bounds a failure, it is no measurement
TURN_S = 0.02


def wait_for(
    look: Callable[[], R],
    what: str = "",
    *,
    until: Callable[[R], object] = bool,
    patience_s: float = PATIENCE_S,
) -> R:
    """Look until what is seen satisfies ``until``, and return it; fails with what was seen last.

    A look that raises `AssertionError` or `LookupError` has not seen it yet.
    """
    deadline = time.monotonic() + patience_s
    pause = threading.Event()
    while True:
        seen: object
        try:
            found = look()
            if until(found):
                return found
            seen = found
        except (AssertionError, LookupError) as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'it'} did not come about; last seen: {seen!r}")
        pause.wait(TURN_S)
