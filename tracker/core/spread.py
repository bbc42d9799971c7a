"""Choice of sources by user first, then by device.

Owns the choice alone. Invariant: a user gets a second place only when every user has one, so the
devices of one member, however many, do not crowd out those of others (an eclipse).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeVar

from common.ids import UserId
from common.messages.base import Source

T = TypeVar("T")


class Sampler(Protocol):
    """The randomness that is passed in."""

    def sample(self, population: Sequence[T], k: int, /) -> list[T]: ...


def spread(offers: Mapping[UserId, Collection[T]], count: int, rng: Sampler) -> list[T]:
    """At most ``count`` of what all users have, in rounds: one of each user's in each round. Users
    and what is taken of each are chosen at random."""
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
    """The sources of each user."""
    found: dict[UserId, list[Source]] = {}
    for source in sources:
        found.setdefault(UserId(source.user), []).append(source)
    return found
