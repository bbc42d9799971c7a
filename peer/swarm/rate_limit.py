"""How fast data may flow: token buckets, for all traffic and for each user, up and down.

Owns the arithmetic. The time is passed in; what waits for tokens waits in the queue of its owner.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import UserId
from common.token_bucket import TokenBucket

BURST_S = 0.25  # what a bucket holds after idleness


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes a second; None is without limit."""

    everything: float | None = None
    each_user: float | None = None


class RateLimit:
    """One direction of this peer's traffic: a bucket for all of it and one for each user."""

    def __init__(self, rates: Rates | None = None) -> None:
        self._rates = Rates() if rates is None else rates
        self._everything: TokenBucket | None = None
        self._users: dict[UserId, TokenBucket] = {}
        self.set(self._rates)

    def set(self, rates: Rates) -> None:
        """Change the limits in mid-traffic: the buckets begin anew."""
        self._rates = rates
        self._everything = None if rates.everything is None else _bucket(rates.everything)
        self._users.clear()

    @property
    def unlimited(self) -> bool:
        return self._everything is None and self._rates.each_user is None

    def ready_at(self, now: float) -> float:
        """When any traffic may go on: `now`, or later."""
        return now if self._everything is None else self._everything.ready_at(now)

    def user_ready_at(self, user: UserId, now: float) -> float:
        """When traffic with `user` may go on, as far as the user's own bucket goes."""
        bucket = self._bucket(user)
        return now if bucket is None else bucket.ready_at(now)

    def take(self, user: UserId, size: int, now: float) -> None:
        if self._everything is not None:
            self._everything.take(size, now)
        bucket = self._bucket(user)
        if bucket is not None:
            bucket.take(size, now)

    def give_back(self, user: UserId, size: int) -> None:
        """Traffic that was taken for did not come about."""
        if self._everything is not None:
            self._everything.give_back(size)
        bucket = self._bucket(user)
        if bucket is not None:
            bucket.give_back(size)

    def _bucket(self, user: UserId) -> TokenBucket | None:
        rate = self._rates.each_user
        if rate is None:
            return None
        bucket = self._users.get(user)
        if bucket is None:
            bucket = self._users[user] = _bucket(rate)
        return bucket


def _bucket(rate: float) -> TokenBucket:
    return TokenBucket(rate, rate * BURST_S)
