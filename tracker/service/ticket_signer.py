"""Ticket signer: signs a few tickets at a time, and none twice within seconds.

Owns: the signing key and recent tickets. Not here: the right to a ticket (see tracker.core.tickets)
and its format (see common.crypto.tickets).
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

FRESH_S = 5.0  # a ticket lives for minutes: within this time a caller gets the same one
SIGNED_AT_ONCE = 16  # about a millisecond of the event loop

_Right: TypeAlias = tuple[DeviceKey, UserId, GroupId, int]


@dataclass(frozen=True, slots=True)
class _Signed:
    token: bytes = field(repr=False)
    expires_ms: int
    at: float


class TicketSigner:
    """Issues tickets. Limits: it remembers at most the tickets that it can sign in ``FRESH_S``."""

    def __init__(self, tracker_id: TrackerId, key: nacl.signing.SigningKey) -> None:
        self._tracker_id = tracker_id
        self._key = key
        self._turn = asyncio.Lock()  # a few at once in all, and callers in turn
        self.signed = 0
        self._fresh: OrderedDict[_Right, _Signed] = OrderedDict()  # the oldest first

    async def sign(
        self,
        device: DeviceKey,
        user: UserId,
        groups: Iterable[tuple[GroupId, int]],
        now: Now,
    ) -> list[tracker.TicketRow]:
        """Return a ticket for each group in its epoch; other callers get turns in between."""
        self.tidy(now.mono_s)
        rights = [(device, user, group, epoch) for group, epoch in groups]
        found = self._known(rights)
        while not found.keys() >= set(rights):
            async with self._turn:
                found |= self._known(rights)  # another command of this device may have signed them
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
        self.signed += 1
        token, expires_ms = tickets.issue(self._key, self._tracker_id, *right, now.wall_ms)
        return _Signed(token, expires_ms, now.mono_s)

    def tidy(self, now: float) -> None:
        """Drop tickets that are no longer fresh."""
        while self._fresh:
            right, ticket = next(iter(self._fresh.items()))
            if now - ticket.at < FRESH_S:
                return
            del self._fresh[right]
