"""Single-flight tasks: at most one task of a name runs at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Work = Callable[[], Coroutine[Any, Any, None]]


class SingleFlight:
    """Background tasks by name.

    A name that is requested again while its task runs is run once more afterwards, if
    ``may_repeat`` allows it then. ``pause_s`` follows each run of a name and limits its rate.
    """

    def __init__(self, may_repeat: Callable[[], bool]) -> None:
        self._may_repeat = may_repeat
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._requested: set[str] = set()

    def run(self, name: str, work: Work, pause_s: float = 0.0) -> None:
        """Run ``work`` now, or once more after the running task of this name."""
        if name in self._tasks:
            self._requested.add(name)
            return
        self._requested.discard(name)
        task = asyncio.create_task(_run(work, pause_s), name=name)
        self._tasks[name] = task

        def ended(_: asyncio.Task[None]) -> None:
            if self._tasks.get(name) is not task:
                return  # cancelled
            del self._tasks[name]
            if name in self._requested and self._may_repeat():
                self.run(name, work, pause_s)

        task.add_done_callback(ended)

    def cancel(self) -> None:
        """Cancel all tasks. A name that is requested afterwards runs at once."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._requested.clear()


async def _run(work: Work, pause_s: float) -> None:
    await work()
    if pause_s:
        await asyncio.sleep(pause_s)
