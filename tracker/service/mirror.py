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
from tracker.core.context import Context, Decision, Nudge
from tracker.service.writer import Writer
from tracker.store.turns import Commit, FellBehind, Store

log = logging.getLogger(__name__)


class Mirror:
    """The state of ``context``. ``publish`` is called with each commit of another tracker.

    ``stale``: why it must be loaded anew, until it is.
    """

    def __init__(
        self, context: Context, store: Store, writer: Writer, publish: Callable[[Decision], None]
    ) -> None:
        self.stale: StorageError | None = None
        self._context = context
        self._store = store
        self._writer = writer
        self._publish = publish
        self._heard: deque[Commit] = deque()

    @property
    def behind(self) -> bool:
        """Whether commits wait to be applied."""
        return bool(self._heard)

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
            self._publish(Decision(changes=commit.changes, effects=effects))
        if self.stale is not None:
            self._heard.clear()

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
        loaded.budgets = self._context.state.budgets
        self._context.state = loaded
        self.stale = None
