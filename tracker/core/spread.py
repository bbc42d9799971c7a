"""Choice of sources by user first, then by device.

Owns: the choice. Invariant: a user gets a second place only after each user has one, so many
devices of one member cannot crowd out those of others (an eclipse).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from common.ids import UserId
from common.messages.base import Source

T = TypeVar("T")


class Sampler(Protocol):
    """Random source that the caller passes in."""

    def sample(self, population: Sequence[T], k: int, /) -> list[T]: ...


def spread(offers: Mapping[UserId, Collection[T]], count: int, rng: Sampler) -> list[T]:
    """Choose at most ``count`` of all users' items, in rounds: one of each user in each round.

    The order of users and the choice among a user's items are random.
    """
    if count <= 0:
        return []
    users = rng.sample(list(offers), min(len(offers), count))
    mixed = [rng.sample(list(offers[user]), min(len(offers[user]), count)) for user in users]
    chosen: list[T] = []
    rounds = max(map(len, mixed), default=0)
    for turn in range(rounds):
        for some in mixed:
            if turn < len(some):
                chosen.append(some[turn])
                if len(chosen) == count:
                    return chosen
    return chosen


def by_user(sources: Sequence[Source]) -> dict[UserId, list[Source]]:
    """Group sources by user."""
    found: dict[UserId, list[Source]] = {}
    for source in sources:
        found.setdefault(UserId(source.user), []).append(source)
    return found
