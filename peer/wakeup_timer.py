"""Wake-up timer: calls the shell of a core when the core's next tick is due."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class WakeupTimer:
    """One timer, which rings at the latest when it is due. It may ring early.

    Why: setting it anew for each of thousands of messages a second costs more than a needless tick,
    so it is only moved to an earlier time.
    """

    def __init__(self, on_tick: Callable[[], None]) -> None:
        self._on_tick = on_tick
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def set(self, at: float | None, now: float) -> None:
        """Tick at ``at``, in seconds of the clock that reads ``now``; None asks for nothing."""
        if at is None or self._closed:
            return
        due = self._loop.time() + max(0.001, at - now)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._on_tick()

    def close(self) -> None:
        """Tick no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
