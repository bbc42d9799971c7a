"""Token bucket: a rate with a burst; also one bucket for each of many keys.

Owns: the arithmetic. Not here: the clock, which callers pass in, and the wait for tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

BUCKETS_MAX = 10_000  # of one `KeyedTokenBuckets`; the one unused longest is forgotten first


class TokenBucket:
    """Token bucket: ``rate`` tokens a second in the long run, and up to ``burst`` at once after
    idleness.

    `take` may leave a debt; `ready_at` is then the time at which it is paid.
    """

    __slots__ = ("_burst", "_rate", "_tokens", "_updated")

    def __init__(self, rate: float, burst: float) -> None:
        if rate <= 0:
            raise ValueError(f"a rate of {rate} a second")
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._updated = float("-inf")

    def level(self, now: float) -> float:
        """Return the tokens at ``now``; negative for a debt."""
        return min(self._tokens + max(0.0, now - self._updated) * self._rate, self._burst)

    def ready_at(self, now: float) -> float:
        """Return ``now`` if tokens are left, or the time at which the debt is paid."""
        level = self.level(now)
        return now if level > 0 else now + (1e-6 - level / self._rate)

    def take(self, tokens: float, now: float) -> None:
        """Take ``tokens``, on debt if they are not left."""
        self._tokens = self.level(now) - tokens
        self._updated = max(now, self._updated)

    def give_back(self, tokens: float) -> None:
        """Return tokens that were taken and not used."""
        self._tokens = min(self._tokens + tokens, self._burst)

    def set_back(self, now: float) -> None:
        """Follow a clock that was set back, so that it need not catch up before tokens come."""
        self._updated = min(self._updated, now)


@dataclass(frozen=True, slots=True)
class Rate:
    """Limit of a rate: ``burst`` at once, and ``per_s`` a second in the long run."""

    burst: float
    per_s: float


class KeyedTokenBuckets:
    """A token bucket for each of many keys, in bounded memory. None of them has a debt."""

    def __init__(self, rate: Rate, buckets_max: int = BUCKETS_MAX) -> None:
        self._rate = rate
        self._max = buckets_max
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def wait_s(self, key: Hashable, now: float, tokens: float = 1.0) -> float:
        """Return the seconds until ``tokens`` are left; 0 if they are."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.set_back(now)  # callers may call `take` only if the wait is 0
        level = self._rate.burst if bucket is None else bucket.level(now)
        return max(0.0, (tokens - level) / self._rate.per_s)

    def take(self, key: Hashable, now: float, tokens: float = 1.0) -> bool:
        """Take ``tokens`` if they are left. Return whether they were."""
        bucket = self._used(key)
        taken = bucket.level(now) >= tokens
        bucket.take(tokens if taken else 0.0, now)
        bucket.set_back(now)
        return taken

    def give_back(self, key: Hashable, now: float, tokens: float = 1.0) -> None:
        """Return ``tokens`` that were taken."""
        bucket = self._used(key)
        bucket.take(0.0, now)
        bucket.give_back(tokens)
        bucket.set_back(now)

    def _used(self, key: Hashable) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = TokenBucket(self._rate.per_s, self._rate.burst)
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max:
            self._buckets.popitem(last=False)
        return bucket
