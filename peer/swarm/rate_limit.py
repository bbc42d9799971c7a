"""How fast data may flow: token buckets, for all traffic and for each user, up and down.

Owns the arithmetic. The time is passed in; what waits for tokens waits in the queue of its owner.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import UserId

_BURST_S = 0.25


class TokenBucket:
    """`rate` bytes a second, after idleness a burst of a quarter of a second's worth.

    Whoever finds it in credit may take more than is there and leaves a debt: pieces are never cut
    to fit, and the rate holds all the same.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError(f"a limit of {rate} bytes a second")
        self._rate = rate
        self._burst = rate * _BURST_S
        self._tokens = self._burst
        self._updated = float("-inf")

    def ready_at(self, now: float) -> float:
        """When something may be taken: `now`, or the moment at which the debt is paid."""
        self._refill(now)
        return now if self._tokens > 0 else now + (1e-6 - self._tokens / self._rate)

    def take(self, size: int, now: float) -> None:
        """Take `size` bytes, on debt if need be."""
        self._refill(now)
        self._tokens -= size

    def give_back(self, size: int) -> None:
        """What was taken was not used."""
        self._tokens = min(self._tokens + size, self._burst)

    def _refill(self, now: float) -> None:
        if now > self._updated:
            gained = (now - self._updated) * self._rate
            self._tokens = min(self._tokens + gained, self._burst)
            self._updated = now


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
        self._everything = None if rates.everything is None else TokenBucket(rates.everything)
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
            bucket = self._users[user] = TokenBucket(rate)
        return bucket
