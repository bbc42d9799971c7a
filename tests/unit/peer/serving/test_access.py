"""Access control of the serving side."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import nacl.signing
import pytest

from common import limits
from common.crypto import tickets
from common.crypto.tickets import Ticket
from common.errors import Refused
from common.host.clock import TrackerTime
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages import tracker
from common.messages.refusals import Code
from peer.serving.access import AccessControl
from peer.serving.clients import ClientTable
from peer.serving.inventory import Inventory, ServedContent
from peer.swarm.serving.events import RequesterId

SIGNING = nacl.signing.SigningKey(bytes(range(32)))
ID = TrackerId(b"t" * 16)
DEVICE = DeviceKey(b"d" * 32)
FILMS = GroupId("films")
BOB = UserId("bob")
CONTENT = ContentId(b"1" * 32)
READER: Any = object()
T0 = 1_900_000_000_000


class AccessHarness:
    """A replica with one group, a clock set by hand, and the access control on both."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.time = TrackerTime(lambda: self.now_s)
        self.time.learn(T0, 0.0, 0.0)
        self.view = SimpleNamespace(group=FILMS, revoked={}, devices={DEVICE: BOB})
        self.replica = SimpleNamespace(groups={FILMS: self.view}, acts_for=self.acts_for)
        self.inventory = Inventory()
        self.inventory.put(FILMS, CONTENT, None, b"", READER, None)  # type: ignore[arg-type]
        self.access = AccessControl(self.replica, self.inventory, self.time)  # type: ignore[arg-type]
        self.access.learn(
            tracker.Welcome(
                ID, [bytes(SIGNING.verify_key)], "tcp://*:1", T0, "alice", b"i" * 16, b"n" * 32
            )
        )

    def acts_for(self, group: GroupId, user: UserId, device: DeviceKey) -> bool:
        return bool(self.replica.groups[group].devices.get(device) == user)

    def token(self, epoch: int = 1) -> bytes:
        return tickets.issue(SIGNING, ID, DEVICE, BOB, FILMS, epoch, self.time.now_ms())[0]

    def served(self, ticket: Ticket) -> ServedContent:
        client, *_ = (table := ClientTable()).add(RequesterId(b"1"), DEVICE)
        client.tickets[FILMS] = ticket
        channel = table.open(client, 5, FILMS, CONTENT)
        assert channel is not None
        return self.access.served(channel)

    def refusal(self, token: bytes) -> Code:
        with pytest.raises(Refused) as caught:
            self.access.authorize(DEVICE, FILMS, token)
        return caught.value.code


def test_a_valid_ticket_authorises_until_it_expires() -> None:
    harness = AccessHarness()
    ticket = harness.access.authorize(DEVICE, FILMS, harness.token())
    harness.now_s = limits.TICKET_LIFE_S + limits.CLOCK_SKEW_S - 0.001
    harness.served(ticket)
    harness.now_s += 0.001
    with pytest.raises(Refused) as caught:
        harness.served(ticket)
    assert caught.value.code is Code.TICKET_EXPIRED


def test_a_removal_revokes_an_accepted_ticket() -> None:
    harness = AccessHarness()
    token = harness.token(epoch=3)
    ticket = harness.access.authorize(DEVICE, FILMS, token)
    harness.view.revoked[BOB] = 4
    with pytest.raises(Refused) as caught:
        harness.served(ticket)
    assert caught.value.code is Code.REVOKED
    assert harness.refusal(token) is Code.REVOKED
    harness.access.authorize(DEVICE, FILMS, harness.token(epoch=4))  # admitted again
    harness.view.revoked[UserId("carol")] = 9
    harness.access.authorize(DEVICE, FILMS, harness.token(epoch=4))


def test_h43_a_ticket_is_valid_while_its_user_is_logged_in_on_that_device() -> None:
    harness = AccessHarness()
    token = harness.token()
    ticket = harness.access.authorize(DEVICE, FILMS, token)
    for devices in ({}, {DEVICE: UserId("carol")}):
        harness.view.devices = devices
        with pytest.raises(Refused) as caught:
            harness.served(ticket)
        assert caught.value.code is Code.TICKET_INVALID
        assert harness.refusal(token) is Code.TICKET_INVALID
    harness.view.devices = {DEVICE: BOB}
    harness.served(ticket)


def test_nothing_is_served_of_a_foreign_group() -> None:
    harness = AccessHarness()
    token = harness.token()
    harness.replica.groups.clear()
    assert harness.refusal(token) is Code.UNKNOWN_GROUP


def test_every_ticket_is_refused_before_the_tracker_is_known() -> None:
    harness = AccessHarness()
    fresh = AccessControl(harness.replica, Inventory(), harness.time)  # type: ignore[arg-type]
    with pytest.raises(Refused):
        fresh.authorize(DEVICE, FILMS, harness.token())


def test_a_content_is_served_while_the_group_offers_it() -> None:
    harness = AccessHarness()
    ticket = harness.access.authorize(DEVICE, FILMS, harness.token())
    assert harness.served(ticket).reader is READER
    harness.access = AccessControl(harness.replica, Inventory(), harness.time)  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        harness.served(ticket)
    assert caught.value.code is Code.UNKNOWN_SHARE
