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

    def add_offer(self, user: UserId) -> None:
        """Count one more device of ``user`` that offers a share."""
        self.offers[user] += 1

    def drop_offer(self, user: UserId) -> None:
        """Count one device less."""
        _less(self.offers, user, 1)

    def add_share(self, group: GroupId, user: UserId, manifest_bytes: int) -> None:
        """Count one more share of ``group`` that ``user`` offers."""
        self.shares[group, user] += 1
        self.manifest_bytes[user] += manifest_bytes

    def drop_share(self, group: GroupId, user: UserId, manifest_bytes: int) -> None:
        """Count one share less: ``user`` offers it on no device."""
        _less(self.shares, (group, user), 1)
        _less(self.manifest_bytes, user, manifest_bytes)


def _less(counts: Counter[K], key: K, amount: int) -> None:
    counts[key] -= amount
    if counts[key] <= 0:
        del counts[key]
