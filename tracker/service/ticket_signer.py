"""The signing of tickets: a few at once, and none twice within seconds.

Owns the signing key and the tickets that are fresh. Who has a right to which is decided in
``tracker.core.feed``; what a ticket is stands in ``common.crypto.tickets``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import nacl.signing

from common.crypto import tickets
from common.ids import DeviceKey, GroupId, TrackerId, UserId
from common.messages import tracker
from tracker.core.context import Now

FRESH_S = 5.0  # a ticket lives for minutes: who asks again so soon gets the same one
SIGNED_AT_ONCE = 16  # about a millisecond of the event loop

_Right: TypeAlias = tuple[DeviceKey, UserId, GroupId, int]


@dataclass(frozen=True, slots=True)
class _Signed:
    token: bytes = field(repr=False)
    expires_ms: int
    at: float


class TicketSigner:
    """Issues tickets. What it remembers is bounded by what it can sign in ``FRESH_S``."""

    def __init__(self, tracker_id: TrackerId, key: nacl.signing.SigningKey) -> None:
        self._tracker_id = tracker_id
        self._key = key
        self._turn = asyncio.Lock()  # so that it is a few at once in all, and whoever asks in turn
        self._fresh: OrderedDict[_Right, _Signed] = OrderedDict()  # the oldest first

    async def sign(
        self,
        device: DeviceKey,
        user: UserId,
        groups: Iterable[tuple[GroupId, int]],
        now: Now,
    ) -> list[tracker.TicketRow]:
        """A ticket for each group in its epoch, with turns for others in between."""
        self.tidy(now.mono_s)
        rights = [(device, user, group, epoch) for group, epoch in groups]
        found = self._known(rights)
        while not found.keys() >= set(rights):
            async with self._turn:
                found |= self._known(rights)  # others of this device may have asked for the same
                missing = [right for right in rights if right not in found]
                for right in missing[:SIGNED_AT_ONCE]:
                    found[right] = self._fresh[right] = self._issue(right, now)
                if missing:
                    await asyncio.sleep(0)
        return [
            tracker.TicketRow(right[2], found[right].token, found[right].expires_ms)
            for right in rights
        ]

    def _known(self, rights: list[_Right]) -> dict[_Right, _Signed]:
        return {right: self._fresh[right] for right in rights if right in self._fresh}

    def _issue(self, right: _Right, now: Now) -> _Signed:
        token, expires_ms = tickets.issue(self._key, self._tracker_id, *right, now.wall_ms)
        return _Signed(token, expires_ms, now.mono_s)

    def tidy(self, now: float) -> None:
        """Forget what is not fresh any more."""
        while self._fresh:
            right, ticket = next(iter(self._fresh.items()))
            if now - ticket.at < FRESH_S:
                return
            del self._fresh[right]
