"""Access control of the serving side: the right of a fetching peer to a content.

Every request is authorised again, because a connection must not outlive the right that opened it.
Our own tickets are in ``peer.tracker_client.tickets``.
"""

from __future__ import annotations

from collections.abc import Sequence

import nacl.signing

from common import limits
from common.crypto import tickets
from common.crypto.tickets import Ticket
from common.errors import Refused
from common.host.clock import TrackerTime
from common.ids import DeviceKey, GroupId, TrackerId, UserId
from common.messages import tracker
from common.messages.refusals import Code
from peer.serving.clients import ClientChannel
from peer.serving.inventory import NOT_OFFERED, Inventory, ServedContent
from peer.tracker_client.group_replica import GroupReplica


class AccessControl:
    """Validates tickets by the tracker's keys and time, and by the removals known so far."""

    def __init__(self, replica: GroupReplica, inventory: Inventory, time: TrackerTime) -> None:
        self._replica = replica
        self._inventory = inventory
        self._time = time
        self._verify_keys: Sequence[nacl.signing.VerifyKey] = ()
        self._tracker_id = TrackerId(b"")

    def learn(self, welcome: tracker.Welcome) -> None:
        """Store the tracker's id and the keys that sign its tickets."""
        self._verify_keys = [nacl.signing.VerifyKey(key) for key in welcome.verify_keys]
        self._tracker_id = TrackerId(welcome.tracker_id)

    def authorize(self, device: DeviceKey, group: GroupId, token: bytes) -> Ticket:
        """Return the ticket in ``token`` after a full check. Raises `Refused`."""
        ticket = tickets.check(
            token,
            self._verify_keys,
            tracker_id=self._tracker_id,
            device=device,
            group=group,
            now_ms=self._time.now_ms(),
        )
        self._check(ticket)
        return ticket

    def served(self, channel: ClientChannel) -> ServedContent:
        """Return the content of a channel if its right still holds. Raises `Refused`.

        Cheap enough for every request: a few comparisons and look-ups.
        """
        self._check(channel.ticket)
        served = self._inventory.find(channel.group, channel.content)
        if served is None:
            raise Refused(NOT_OFFERED.code, NOT_OFFERED.message)
        return served

    def _check(self, ticket: Ticket) -> None:
        if self._time.now_ms() >= ticket.expires_ms + limits.CLOCK_SKEW_S * 1000:
            raise Refused(Code.TICKET_EXPIRED, "the ticket has expired", "it is renewed by itself")
        view = self._replica.groups.get(GroupId(ticket.group))
        if view is None:
            raise Refused(Code.UNKNOWN_GROUP, "this device is not in that group")
        if ticket.epoch < view.revoked.get(UserId(ticket.user), 0):
            raise Refused(Code.REVOKED, "the right to fetch from that group was revoked")
        if not self._replica.acts_for(view.group, UserId(ticket.user), DeviceKey(ticket.device)):
            raise Refused(Code.TICKET_INVALID, "its user is not logged in on your device")
