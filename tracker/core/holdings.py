"""Counts of what each user has on record: offers, shares of each group, bytes of manifests.

Owns: the counts, so that a limit costs no pass over all shares. The limits are those of
``tracker.core.shares``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TypeVar

from common.ids import GroupId, UserId
from tracker.core.undo import UndoLog

K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class Holdings:
    """Counts that follow each offer and its end. A count of zero takes no memory.

    ``offers``: one for each share and device. ``shares``: those that a user offers on any device.
    ``manifest_bytes``: of these; a content in two groups counts twice.
    """

    offers: Counter[UserId] = field(default_factory=Counter)
    shares: Counter[tuple[GroupId, UserId]] = field(default_factory=Counter)
    manifest_bytes: Counter[UserId] = field(default_factory=Counter)

    def add_offer(self, user: UserId, undo: UndoLog) -> None:
        """Count one more device of ``user`` that offers a share."""
        _more(self.offers, user, 1, undo)

    def drop_offer(self, user: UserId, undo: UndoLog) -> None:
        """Count one device less."""
        _less(self.offers, user, 1, undo)

    def add_share(self, group: GroupId, user: UserId, manifest_bytes: int, undo: UndoLog) -> None:
        """Count one more share of ``group`` that ``user`` offers."""
        _more(self.shares, (group, user), 1, undo)
        _more(self.manifest_bytes, user, manifest_bytes, undo)

    def drop_share(self, group: GroupId, user: UserId, manifest_bytes: int, undo: UndoLog) -> None:
        """Count one share less: ``user`` offers it on no device."""
        _less(self.shares, (group, user), 1, undo)
        _less(self.manifest_bytes, user, manifest_bytes, undo)


def _more(counts: Counter[K], key: K, amount: int, undo: UndoLog) -> None:
    undo.item(counts, key)
    counts[key] += amount


def _less(counts: Counter[K], key: K, amount: int, undo: UndoLog) -> None:
    if counts[key] > amount:
        undo.item(counts, key)
        counts[key] -= amount
    else:
        undo.removal(counts, key, ordered=False)
        del counts[key]
