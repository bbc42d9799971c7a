"""Rate limits of this peer's traffic: one token bucket for all of it, and one for each user.

Owns: the limits of one direction. Not here: the arithmetic of a bucket (see common.token_bucket)
and queues; traffic that has no tokens waits in the queue of its owner.

A caller may take more than a bucket holds, as long as it is not empty, and leaves a debt. So pieces
are never cut to fit, and the rate holds all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import UserId
from common.token_bucket import TokenBucket

BURST_S = 0.25  # after idleness a bucket holds the bytes of this time
REVIEW_S = 0.5
"""A wait for tokens ends at the latest after this time, and may begin again.

Why: the rates may have changed meanwhile, and no one has to be notified of it."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Limits in bytes a second; None: unlimited."""

    everything: float | None = None
    each_user: float | None = None


class RateLimit:
    """Limits of one direction of this peer's traffic."""

    def __init__(self, rates: Rates | None = None) -> None:
        self._rates = Rates()
        self._everything: TokenBucket | None = None
        self._users: dict[UserId, TokenBucket] = {}
        self.throttled_s = 0.0
        """Seconds in which some traffic waited for tokens."""
        self._throttled_until = 0.0
        self.set(Rates() if rates is None else rates)

    @property
    def rate(self) -> float:
        """Return the limit of all traffic in bytes a second; 0 if there is none."""
        return self._rates.everything or 0.0

    def set(self, rates: Rates) -> None:
        """Change the limits. Traffic that waits notices it within `REVIEW_S`."""
        before, self._rates = self._rates, rates
        if rates.everything != before.everything:
            self._everything = None if rates.everything is None else _bucket(rates.everything)
        if rates.each_user != before.each_user:
            self._users.clear()

    @property
    def unlimited(self) -> bool:
        return self._everything is None and self._rates.each_user is None

    def ready_at(self, now: float) -> float:
        """Return the time at which to ask again; `now` if any traffic is allowed."""
        return now if self._everything is None else self._reviewed(self._everything, now)

    def user_ready_at(self, user: UserId, now: float) -> float:
        """Return the time at which to ask again; `now` if the user's own bucket allows traffic."""
        bucket = self._bucket(user)
        return now if bucket is None else self._reviewed(bucket, now)

    def take(self, user: UserId, size: int, now: float) -> None:
        if self._everything is not None:
            self._everything.take(size, now)
        bucket = self._bucket(user)
        if bucket is not None:
            bucket.take(size, now)

    def _bucket(self, user: UserId) -> TokenBucket | None:
        rate = self._rates.each_user
        if rate is None:
            return None
        bucket = self._users.get(user)
        if bucket is None:
            bucket = self._users[user] = _bucket(rate)
        return bucket

    def _reviewed(self, bucket: TokenBucket, now: float) -> float:
        """Return when to ask again; the caller has traffic that waits until then."""
        ready_at = min(bucket.ready_at(now), now + REVIEW_S)
        if ready_at > now:
            self.throttled_s += max(0.0, ready_at - max(now, self._throttled_until))
            self._throttled_until = max(ready_at, self._throttled_until)
        return ready_at


def _bucket(rate: float) -> TokenBucket:
    return TokenBucket(rate, rate * BURST_S)
