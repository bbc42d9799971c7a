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
    """Counts that follow every offer and its end. What is at zero takes no memory.

    ``offers``: one a share and device. ``shares``: those that a user offers on any device.
    ``manifest_bytes``: of these, in each group anew.
    """

    offers: Counter[UserId] = field(default_factory=Counter)
    shares: Counter[tuple[GroupId, UserId]] = field(default_factory=Counter)
    manifest_bytes: Counter[UserId] = field(default_factory=Counter)

    def add_offer(self, user: UserId) -> None:
        """One more device of ``user`` offers a share."""
        self.offers[user] += 1

    def drop_offer(self, user: UserId) -> None:
        """One device less."""
        _less(self.offers, user, 1)

    def add_share(self, group: GroupId, user: UserId, manifest_bytes: int) -> None:
        """``user`` offers one more share of ``group``."""
        self.shares[group, user] += 1
        self.manifest_bytes[user] += manifest_bytes

    def drop_share(self, group: GroupId, user: UserId, manifest_bytes: int) -> None:
        """They offer it on no device."""
        _less(self.shares, (group, user), 1)
        _less(self.manifest_bytes, user, manifest_bytes)


def _less(counts: Counter[K], key: K, amount: int) -> None:
    counts[key] -= amount
    if counts[key] <= 0:
        del counts[key]
