"""Manifest pacer: limits the rate at which parts of manifests are sent.

Why: a part is a large answer to a small request, and needs no acknowledgement. Without a pace, a
client that requests without end would exceed the upload limit and its user's share. Owns: waiting
requests. Not here: the right to a manifest, and sending it (see ``peer.serving.server``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from common.host.clock import monotonic
from common.ids import UserId
from common.limits import MIB
from peer.swarm.rate_limit import RateLimit, Rates
from peer.swarm.serving.events import RequesterId

USER_RATE = 32 * MIB  # bytes a second of manifests for one user, besides the limits of traffic
Channel: TypeAlias = tuple[RequesterId, int]
_Request: TypeAlias = tuple[int, Callable[[], None]]  # bytes of the answer, and its sending


class ManifestPacer:
    """Queues one request of each channel, and answers one request of each user at a time."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._own = RateLimit(Rates(each_user=USER_RATE))
        self._waiting: dict[UserId, dict[Channel, _Request]] = {}
        self._timers: dict[UserId, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, channel: Channel, user: UserId, size: int, answer: Callable[[], None]) -> None:
        """Call ``answer`` when ``user`` may get ``size`` bytes."""
        self._waiting.setdefault(user, {}).setdefault(channel, (size, answer))
        if user not in self._timers:
            self._answer(user)

    def _answer(self, user: UserId) -> None:
        """Answer the requests that the rates allow now, and schedule the rest."""
        self._timers.pop(user, None)
        requests = self._waiting[user]
        while requests:
            now = monotonic()
            ready_at = max(
                self._limit.ready_at(now),
                self._limit.user_ready_at(user, now),
                self._own.user_ready_at(user, now),
            )
            if ready_at > now:
                self._timers[user] = asyncio.get_running_loop().call_later(
                    ready_at - now, self._answer, user
                )
                return
            size, answer = requests.pop(next(iter(requests)))
            self._limit.take(user, size, now)
            self._own.take(user, size, now)
            answer()
        self._waiting.pop(user, None)

    def close(self) -> None:
        """Drop all waiting requests."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
