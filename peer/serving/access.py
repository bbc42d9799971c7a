"""Who may fetch from us, and by what right we fetch from others.

Owns both ends of the tickets: `Rights` checks those that are shown to us, on every request again,
because a connection must not outlive the right that opened it; `Tickets` keeps ours fresh.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import nacl.signing

from common import limits
from common.crypto import tickets
from common.crypto.tickets import Ticket
from common.errors import MiniTorrentError, Refused
from common.host.clock import TrackerTime, monotonic
from common.ids import DeviceKey, GroupId, TrackerId, UserId
from common.messages import tracker
from common.messages.refusals import Code
from common.names import fold_id
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink

log = logging.getLogger(__name__)


class AccessControl:
    """Judges tickets by the tracker's keys and time, and by what we have heard of removals."""

    def __init__(self, replica: GroupReplica, time: TrackerTime) -> None:
        self._replica = replica
        self._time = time
        self._verify_keys: Sequence[nacl.signing.VerifyKey] = ()
        self._tracker_id = TrackerId(b"")

    def learn(self, welcome: tracker.Welcome) -> None:
        """Take in which keys sign tickets, and for which tracker."""
        self._verify_keys = [nacl.signing.VerifyKey(key) for key in welcome.verify_keys]
        self._tracker_id = TrackerId(welcome.tracker_id)

    def admit(self, device: DeviceKey, group: GroupId, token: bytes) -> Ticket:
        """The ticket in ``token``, checked whole. Raises `Refused`."""
        ticket = tickets.check(
            token,
            self._verify_keys,
            tracker_id=self._tracker_id,
            device=device,
            group=group,
            now_ms=self._time.now_ms(),
        )
        self.recheck(ticket)
        return ticket

    def recheck(self, ticket: Ticket) -> None:
        """Whether a ticket that was admitted still counts. Raises `Refused`.

        Cheap enough for every request: a few comparisons and look-ups.
        """
        if self._time.now_ms() >= ticket.expires_ms + limits.CLOCK_SKEW_S * 1000:
            raise Refused(Code.TICKET_EXPIRED, "the ticket has expired", "it is renewed by itself")
        view = self._replica.groups.get(GroupId(ticket.group))
        if view is None:
            raise Refused(Code.UNKNOWN_GROUP, "nothing of that group is shared here")
        if ticket.epoch < view.revoked.get(UserId(ticket.user), 0):
            raise Refused(Code.REVOKED, "the right to fetch from this group was withdrawn")
        if not self._replica.acts_for(view.group, UserId(ticket.user), DeviceKey(ticket.device)):
            raise Refused(Code.TICKET_INVALID, "the ticket's user is not logged in on that device")


class TicketWallet:
    """Our own tickets, one for each group, renewed at a random point of their life's second half.

    ``on_renewed`` tells who has connections on which the fresh one must be shown.
    """

    RETRY_S = 5.0

    def __init__(
        self,
        link: TrackerLink,
        time: TrackerTime,
        on_renewed: Callable[[GroupId, bytes], None],
        rng: random.Random,
    ) -> None:
        self._link = link
        self._time = time
        self._on_renewed = on_renewed
        self._rng = rng
        self._held: dict[GroupId, tuple[bytes, int]] = {}
        self._wanted: set[GroupId] = set()
        self._left_out: set[GroupId] = set()  # wanted and held, but not renewed when we asked
        self._renewal: asyncio.Task[None] | None = None

    def current(self, group: GroupId) -> bytes | None:
        """The ticket for ``group``, if there is one that has not expired."""
        token, expires_ms = self._held.get(group, (b"", 0))
        return token if expires_ms > self._time.now_ms() else None

    async def want(self, group: GroupId) -> bytes:
        """A ticket for ``group``, which is kept fresh from here on for as long as the tracker gives
        one. Raises what `ask` raises, and `Refused` when it gives none."""
        self._wanted.add(group)
        token = self.current(group)
        if token is None:
            await self._fetch([group])
            token = self.current(group)
        if token is None:
            raise Refused(Code.UNKNOWN_GROUP, f"there is no group {group}, or it is not yours")
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew(), name="tickets")
        return token

    def drop(self, group: GroupId) -> None:
        """Nothing is fetched from ``group`` any more."""
        self._wanted.discard(group)
        self._held.pop(group, None)
        self._left_out.discard(group)

    def clear(self) -> None:
        """Somebody else, or nobody, is logged in."""
        self._wanted.clear()
        self._held.clear()
        self._left_out.clear()
        if self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None

    async def _fetch(self, groups: list[GroupId]) -> None:
        sent_at = monotonic()
        try:
            reply = (await self._link.ask(tracker.GetTickets(list(groups)), tracker.Tickets)).reply
        except Refused as error:
            if error.code is Code.UNKNOWN_GROUP:  # none of them is ours
                self._not_given(groups)
            raise
        # What they say of their end is by this clock, which may have been set since we asked it.
        self._time.learn(reply.time_ms, sent_at, monotonic())
        # Invariant: a ticket is asked for anew within its longest life, whatever its row says.
        latest_ms = reply.time_ms + limits.TICKET_LIFE_S * 1000
        given = {GroupId(fold_id(row.group)): row for row in reply.rows}
        for group, row in given.items():
            if group in self._wanted:  # still
                self._held[group] = (row.token, min(row.expires_ms, latest_ms))
                self._left_out.discard(group)
                self._on_renewed(group, row.token)
        self._not_given([group for group in groups if group not in given])

    def _not_given(self, groups: Sequence[GroupId]) -> None:
        """These are not ours, says the tracker that answered.

        Another one of several may have let us in, and this one not have heard of it yet. So it is
        asked once more when the ticket that we hold expires, and believed then.
        """
        for group in groups:
            if self.current(group) is None:
                self.drop(group)
            else:
                self._left_out.add(group)

    def _due_in_s(self) -> float:
        """Seconds until the first ticket should be renewed: between a half and nine tenths of its
        life, so that many devices do not ask at once."""
        spare_s = limits.TICKET_LIFE_S * self._rng.uniform(0.1, 0.5)
        due_s = [
            (expires_ms - self._time.now_ms()) / 1000
            - (0.0 if group in self._left_out else spare_s)
            for group, (_, expires_ms) in self._held.items()
            if group in self._wanted
        ]
        return max(0.0, min(due_s, default=0.0))

    async def _renew(self) -> None:
        while self._wanted:
            await asyncio.sleep(self._due_in_s())
            try:
                await self._fetch(sorted(self._wanted))
            except MiniTorrentError as error:
                log.info("tickets could not be renewed: %s", error)
            await asyncio.sleep(self.RETRY_S)
