"""Queue of hooks: few at a time, each on a thread, none of which the peer waits for.

Owns: the bounds of queue and concurrency, the log of each run, and the end of all with the peer.
Not here: the process (see peer.hooks.process), the decision which download owes a hook (see
peer.hooks.downloads).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from common import names
from common.messages import events
from common.names import BadName, printable
from peer.hooks import variables
from peer.hooks.commands import HookEvent, HookSettings, shown
from peer.hooks.process import HookResult, run_hook
from peer.workers import Workers

log = logging.getLogger(__name__)

RUNNING_MAX = 2  # hooks at a time: they compete with the transfers for cores and disk
QUEUED_MAX = 1_000  # further hooks; events of shares beyond are dropped and logged


class _Run:
    """One hook that waits or runs. ``on_ended`` is called when it has ended by itself."""

    def __init__(
        self,
        event: HookEvent,
        words: Sequence[str],
        values: Mapping[str, str],
        on_ended: Callable[[], None],
    ) -> None:
        self.event = event
        self.words = words
        self.values = values
        self.on_ended = on_ended


class HookRunner:
    """Runs the hooks of one peer. Thread safety: used in the event loop only."""

    def __init__(self, settings: HookSettings, home: Path, notify: Callable[[str], None]) -> None:
        self.settings = settings
        self._home = str(home)
        self._notify = notify
        self._threads = Workers(RUNNING_MAX, "hook")
        self._queue: deque[_Run] = deque()
        self._running = 0
        self._stopped = False
        self._dropped = 0
        for event, program in settings.missing():
            notify(f"hook {event}: program not found: {names.quoted(program)}")

    # -- events ---------------------------------------------------------------------------------

    def entry(self, entry: events.LogEntry) -> None:
        """Run the hook for an entry of a group's log, if there is one."""
        try:
            found = variables.of_entry(entry)
        except BadName as error:
            log.warning("no hook runs for an event with an invalid name: %s", error)
            return
        if found is not None:
            event, values = found
            self.run(event, self.settings.command(event), values)

    def run(
        self,
        event: HookEvent,
        words: Sequence[str],
        values: Mapping[str, str],
        on_ended: Callable[[], None] = lambda: None,
    ) -> bool:
        """Queue a hook; an empty command ends at once. Return whether it was taken.

        ``on_ended`` is called after its end, but not if it ended with the peer.
        """
        if not words:
            on_ended()
            return True
        if self._stopped or len(self._queue) >= QUEUED_MAX:
            self._dropped += 1
            if self._dropped == 1 and not self._stopped:
                self._notify(f"more than {QUEUED_MAX:,} hooks wait; further ones are dropped")
            return False
        self._queue.append(_Run(event, words, values, on_ended))
        self._start_next()
        return True

    # -- runs -----------------------------------------------------------------------------------

    def _start_next(self) -> None:
        while self._queue and self._running < RUNNING_MAX and not self._stopped:
            run = self._queue.popleft()
            self._running += 1
            self._threads.submit(partial(self._ended, run), self._work, run)
        if not self._queue and self._dropped:
            log.warning("%d hooks were dropped", self._dropped)
            self._dropped = 0

    def _work(self, run: _Run) -> HookResult:
        environment = variables.environment(run.values, self._home)
        log.info("hook %s starts for %s", run.event, printable(run.values.get("NAME", "")))
        return run_hook(
            run.words,
            environment,
            self.settings.time_limit_s,
            lambda: self._stopped,
            lambda line: log.info("hook %s: %s", run.event, line),
        )

    def _ended(self, run: _Run, result: HookResult | None, error: BaseException | None) -> None:
        self._running -= 1
        if self._stopped:
            return
        name = printable(run.values.get("NAME", ""))
        problem = _problem_of(result, error)
        if problem:
            self._notify(f"hook {run.event} for {name}: {shown(run.words)}: {problem}")
        else:
            log.info("hook %s for %s is done", run.event, name)
        run.on_ended()
        self._start_next()

    async def end_with_peer(self) -> None:
        """Wait until this is cancelled, and then end all hooks."""
        try:
            await asyncio.Event().wait()
        finally:
            self.close()

    def close(self) -> None:
        """End the running hooks, which takes a second or two; those in the queue do not start."""
        self._stopped = True
        self._queue.clear()
        self._threads.close()


def _problem_of(result: HookResult | None, error: BaseException | None) -> str:
    if result is not None:
        return result.problem
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error)
