"""The pace at which manifests are given to those who fetch.

A part of a manifest is a large answer to a small question, and goes by no credit: without a pace,
whoever asks without end would take more than the upload limit, and more than their share. Owns the
questions that wait; what is sent, and by what right, is the seeder's.
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

USER_RATE = 32 * MIB  # bytes a second of manifests for one user, whatever the limits of traffic
Channel: TypeAlias = tuple[RequesterId, int]
_Question: TypeAlias = tuple[int, Callable[[], None]]  # bytes of the answer, and how it is given


class ManifestServing:
    """Lets one question of a channel wait at a time, and answers one of a user at a time."""

    def __init__(self, limit: RateLimit) -> None:
        self._limit = limit
        self._own = RateLimit(Rates(each_user=USER_RATE))
        self._waiting: dict[UserId, dict[Channel, _Question]] = {}
        self._timers: dict[UserId, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def asked(self, channel: Channel, user: UserId, size: int, give: Callable[[], None]) -> None:
        """``user`` asks for ``size`` bytes: ``give`` is called when they may have them."""
        self._waiting.setdefault(user, {}).setdefault(channel, (size, give))
        if user not in self._timers:
            self._answer(user)

    def _answer(self, user: UserId) -> None:
        """Answer what may be answered now, and come back for the rest."""
        self._timers.pop(user, None)
        questions = self._waiting[user]
        while questions:
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
            size, give = questions.pop(next(iter(questions)))
            self._limit.take(user, size, now)
            self._own.take(user, size, now)
            give()
        self._waiting.pop(user, None)

    def close(self) -> None:
        """Give nothing any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()
