"""Agreement of the mirror with the database: commits of other trackers, and loading anew.

Owns: the commits that were heard of and are not applied yet. Not here: the tracker's own batches
(see tracker.service.command_loop), and how commits arrive (the turn, and the follower of the
journal).

Invariant: commits are applied in their order, each once, and never during a batch. A commit that
does not fit leaves no trace; the mirror is then loaded anew, and questions are answered from the
old one until that succeeds.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable

from common.errors import StorageError
from tracker.core.context import Context, Decision, Now, Nudge
from tracker.core.presence import SwarmChange
from tracker.service.publisher import Publisher
from tracker.service.writer import Writer
from tracker.store.turns import Commit, FellBehind, Store

log = logging.getLogger(__name__)


class Mirror:
    """The state of ``context``. ``publisher`` gets each commit of another tracker.

    ``stale``: why it must be loaded anew, until it is.
    """

    def __init__(
        self,
        context: Context,
        store: Store,
        writer: Writer,
        publisher: Publisher,
        now: Callable[[], Now],
    ) -> None:
        self.stale: StorageError | None = None
        self._context = context
        self._store = store
        self._writer = writer
        self._publisher = publisher
        self._now = now
        self._heard: deque[Commit] = deque()
        self._between: deque[Callable[[], list[SwarmChange]]] = deque()

    @property
    def behind(self) -> bool:
        """Whether something waits to be applied between two batches."""
        return bool(self._heard or self._between)

    def between(self, step: Callable[[], list[SwarmChange]]) -> None:
        """Call ``step`` between two batches, and publish the changes that it returns."""
        self._between.append(step)

    def hear(self, commits: Iterable[Commit]) -> None:
        """Take commits; those that the mirror has are dropped later."""
        self._heard.extend(commits)

    def apply_heard(self) -> None:
        """Apply the commits that were heard of, unless the next one is missing."""
        state = self._context.state
        while self._heard and self.stale is None:
            commit = self._heard.popleft()
            if commit.position <= state.position:
                continue
            if commit.position > state.position + 1:
                self.stale = FellBehind("commits of other trackers are missing")
                break
            state.begin()
            try:
                for change in commit.changes:
                    state.apply(change)
            except Exception as error:
                log.exception("a commit of another tracker does not fit")
                state.take_back()
                self.stale = FellBehind(f"a defect of the tracker: {type(error).__name__}")
                break
            state.keep()
            state.position = commit.position
            effects = tuple(Nudge(device) for device in commit.nudged)
            try:
                news = Decision(changes=commit.changes, effects=effects)
                self._publisher.publish(news, self._now())
            except Exception:
                log.exception("failed to publish a commit of another tracker")
        if self.stale is not None:
            self._heard.clear()
        for _ in range(len(self._between)):
            step = self._between.popleft()
            try:
                self._publisher.gather(step(), self._now().mono_s)
            except Exception:
                log.exception("failed to apply the presence at another tracker")

    async def load_if_stale(self) -> None:
        """Load the mirror from the database, if it must be and can be."""
        if self.stale is None or self._writer.pending or self._writer.refuses is not None:
            return
        try:
            loaded = await self._writer.call(self._store.load)
        except StorageError as error:
            if self.stale.message != error.message:
                log.error("%s", error.message)
            self.stale = error
            return
        log.warning("the database was loaded anew: %s", self.stale.message)
        before = self._context.state
        loaded.budgets = before.budgets
        self._context.state = loaded
        self.stale = None
        self._publisher.reloaded(before, self._now().mono_s)
