"""Which of several trackers to use.

Owns the order in which they are tried, and which one is home: it knew the last user of this device,
and is remembered over restarts. Trackers have accounts of their own each, so that another one would
take us for logged out, and all that our user shares and fetches would end.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from common.crypto.keys import key_text
from common.errors import StorageError
from common.host.atomic_files import atomic_write
from common.link import Tracker

log = logging.getLogger(__name__)

ANYWHERE_S = 30.0  # whoever wants to log in takes any tracker for so long


class TrackerSelector:
    """Among ``trackers``, in the order in which they are listed. ``memory`` is the file in which
    home's key is kept; times are monotonic seconds."""

    def __init__(self, trackers: Sequence[Tracker], memory: Path | None = None) -> None:
        self._trackers = list(trackers)
        self._memory = memory
        self._preferred = _read(memory)
        self._anywhere_until = float("-inf")

    @property
    def home(self) -> Tracker | None:
        """The tracker that knew our user last; None if it was none of these."""
        for where in self._trackers:
            if key_text(where.key) == self._preferred:
                return where
        return None

    def in_order(self) -> list[Tracker]:
        """Home first, the others as they are listed."""
        return sorted(self._trackers, key=self.is_foreign)

    def is_foreign(self, where: Tracker) -> bool:
        """Whether another one than ``where`` is home."""
        return self.home not in (None, where)

    def allow_any(self, now: float) -> None:
        """Somebody wants an account, or to log in: wherever that is possible, for a while."""
        self._anywhere_until = now + ANYWHERE_S

    def may_use(self, where: Tracker, logged_in: bool, now: float) -> bool:
        """Whether to use ``where``, though it knows nobody on this device. ``logged_in``: another
        one did, and what its user shares and fetches goes on without a tracker."""
        return not logged_in or not self.is_foreign(where) or now < self._anywhere_until

    def settle(self, where: Tracker) -> None:
        """``where`` knows our user: it is home from here on."""
        self._anywhere_until = float("-inf")
        preferred = key_text(where.key)
        if preferred == self._preferred:
            return
        self._preferred = preferred
        if self._memory is not None:
            try:
                atomic_write(self._memory, preferred.encode())
            except StorageError as error:
                log.warning("which tracker to try first was not recorded: %s", error)


def _read(memory: Path | None) -> str | None:
    if memory is None:
        return None
    try:
        return memory.read_text("ascii")
    except (OSError, ValueError):
        return None
