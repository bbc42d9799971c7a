"""Agreement of the mirror with the database: commits of other trackers, and loading anew.

Owns: the commits that were received and are not applied, or not published, yet. Not here: the
tracker's own batches (see tracker.service.command_loop), and how commits arrive (the turn, and the
follower of the journal).

Invariant: commits are applied in their order, each once, and never during a batch. A commit that
does not fit leaves no trace; the mirror is then loaded anew, and questions are answered from the
old one until that succeeds. Changes are held meanwhile, and refused after ``PATIENCE_S``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from common.errors import StorageError
from common.host.clock import monotonic
from tracker.core.context import Context, Decision, Now, Nudge
from tracker.core.presence import SwarmChange
from tracker.core.state import State
from tracker.service.publisher import Publisher
from tracker.service.writer import PATIENCE_S, Writer
from tracker.store.turns import Commit, FellBehind

log = logging.getLogger(__name__)

RETRY_S = 1.0  # after a load that failed


class Mirror:
    """The state of ``context``. ``publisher`` gets each commit of another tracker.

    ``stale``: why it must be loaded anew, until it is.
    """

    def __init__(
        self,
        context: Context,
        writer: Writer,
        publisher: Publisher,
        now: Callable[[], Now],
    ) -> None:
        self.stale: StorageError | None = None
        self._context = context
        self._writer = writer
        self._publisher = publisher
        self._now = now
        self._received: deque[Commit] = deque()
        self._unpublished: deque[Commit] = deque()
        self._between: deque[Callable[[], list[SwarmChange]]] = deque()
        self._loading: asyncio.Task[State] | None = None
        self._loading_since = 0.0
        self._load_at = 0.0  # not before

    @property
    def behind(self) -> bool:
        """Whether something waits to be applied between two batches, or to be loaded."""
        if self._unpublished or self._between:
            return True
        if self._loading is not None:
            return self._loading.done()
        return bool(self._received) or self._must_load

    @property
    def holds(self) -> bool:
        """Whether changes wait for a load."""
        return self._loading is not None and monotonic() - self._loading_since < PATIENCE_S

    @property
    def refuses(self) -> StorageError | None:
        """The reason why nothing can be written now; or None."""
        return None if self.holds else self.stale

    @property
    def _must_load(self) -> bool:
        can = not self._writer.pending and self._writer.refuses is None
        return self.stale is not None and can and monotonic() >= self._load_at

    def between(self, step: Callable[[], list[SwarmChange]]) -> None:
        """Call ``step`` between two batches, and publish the changes that it returns."""
        self._between.append(step)

    def receive(self, commits: Iterable[Commit]) -> None:
        """Take commits; those that the mirror has are dropped later."""
        self._received.extend(commits)

    def apply_received(self) -> None:
        """Apply and publish the commits that were received, unless the next one is missing."""
        self.catch_up()
        self.publish_applied()
        for _ in range(len(self._between)):
            step = self._between.popleft()
            try:
                self._publisher.gather(step(), self._now().mono_s)
            except Exception:
                log.exception("failed to apply the presence at another tracker")

    def catch_up(self) -> None:
        """Apply the commits that were received. `publish_applied` comes before one's own effects.

        Why apart: other trackers wait for a turn meanwhile, and publishing takes as long again.
        """
        state = self._context.state
        while self._received and self.stale is None:
            commit = self._received.popleft()
            if commit.position <= state.position:
                continue
            if commit.position > state.position + 1:
                self.stale = FellBehind("commits of other trackers are missing")
                break
            state.begin()
            try:
                for change in commit.changes:
                    change.apply(state)
            except Exception as error:
                log.exception("a commit of another tracker does not fit")
                state.take_back()
                self.stale = FellBehind(f"a defect of the tracker: {type(error).__name__}")
                break
            state.keep()
            state.position = commit.position
            self._unpublished.append(commit)
        if self.stale is not None and self._loading is None:
            self._received.clear()

    def publish_applied(self) -> None:
        """Publish the commits that were applied, in order."""
        while self._unpublished:
            commit = self._unpublished.popleft()
            effects = tuple(Nudge(device) for device in commit.nudged)
            try:
                news = Decision(changes=commit.changes, effects=effects)
                self._publisher.publish(news, self._now())
            except Exception:
                log.exception("failed to publish a commit of another tracker")

    def load_if_stale(self) -> None:
        """Begin to load the mirror from the database, or take what was loaded."""
        if self._loading is None:
            if self._must_load:
                self._loading, self._loading_since = self._writer.load(), monotonic()
            return
        if not self._loading.done():
            return
        task, self._loading = self._loading, None
        try:
            loaded = task.result()
        except StorageError as error:
            if self.stale is None or self.stale.message != error.message:
                log.error("%s", error.message)
            self.stale, self._load_at = error, monotonic() + RETRY_S
            self._writer.wake_after(RETRY_S)
            return
        log.warning("the database was loaded anew: %s", self.stale.message if self.stale else "")
        before = self._context.state
        loaded.budgets = before.budgets
        self._context.state = loaded
        self.stale = None
        self._publisher.reloaded(before, self._now().mono_s)
