"""Selection of a tracker among several.

Owns: the order of attempts, the preferred tracker, and the rules for using another one. The
preferred tracker knew the last user of this device, and is stored in a file. Why: each tracker has
accounts of its own, so with another one our user would appear logged out, and all shares and
downloads would end.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from common.crypto.keys import key_text
from common.errors import StorageError, TransportError
from common.host.atomic_files import atomic_write
from common.link import Tracker

log = logging.getLogger(__name__)

ALLOW_ANY_S = 30.0  # after a login or a new account was asked for, any tracker is used


class WrongTracker(TransportError):
    """Tracker that serves, and does not know the user whom the preferred one knows."""


class TrackerSelector:
    """Selector among ``trackers``, in the order in which they are listed.

    ``memory`` is the file with the preferred tracker's key; times are monotonic seconds.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        memory: Path | None = None,
        logged_in: Callable[[], bool] = lambda: False,
    ) -> None:
        self._trackers = list(trackers)
        self._memory = memory
        self._logged_in = logged_in
        self._preferred_key = _read(memory)
        self._any_until = float("-inf")

    @property
    def preferred(self) -> Tracker | None:
        """The tracker that knew our user last; None if it is not listed."""
        for where in self._trackers:
            if key_text(where.key) == self._preferred_key:
                return where
        return None

    def in_order(self) -> list[Tracker]:
        """Return the trackers, the preferred one first."""
        return sorted(self._trackers, key=self.is_foreign)

    def is_foreign(self, where: Tracker) -> bool:
        """Whether another tracker than ``where`` is preferred."""
        return self.preferred not in (None, where)

    def allow_any(self, now: float) -> None:
        """Allow any tracker for a while: the user logs in or makes an account."""
        self._any_until = now + ALLOW_ANY_S

    def check(self, where: Tracker, knows_user: bool, now: float) -> None:
        """Raise `WrongTracker` if ``where`` must not be used now.

        That is so while a user of the preferred tracker is logged in: their transfers go on without
        a tracker. A tracker that knows a user of this device can always be used.
        """
        allowed = knows_user or not self._logged_in() or now < self._any_until
        if not allowed and self.is_foreign(where):
            raise WrongTracker(f"the tracker at {where.endpoint} does not know our user")

    def pin(self, where: Tracker) -> None:
        """Prefer ``where`` from now on: it knows our user."""
        self._any_until = float("-inf")
        key = key_text(where.key)
        if key == self._preferred_key:
            return
        self._preferred_key = key
        if self._memory is not None:
            try:
                atomic_write(self._memory, key.encode())
            except StorageError as error:
                log.warning("which tracker to try first was not recorded: %s", error)


def _read(memory: Path | None) -> str | None:
    if memory is None:
        return None
    try:
        return memory.read_text("ascii")
    except (OSError, ValueError):
        return None
