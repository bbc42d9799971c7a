"""A device's key in two hands: what its owner does about it, and what the other one has then."""

from __future__ import annotations

import pytest

from common.messages import events, tracker
from common.messages.refusals import Code
from tests.support.attackers import AttackSwarm, user_of
from tests.support.tracker_process import Device


@pytest.mark.parametrize(
    "remedy",
    [
        lambda device: tracker.Logout(),
        lambda device: tracker.ForgetDevice(device.key),
        lambda device: tracker.Login(user_of(device) + "-other", "a password"),
    ],
    ids=["logout", "forget-device", "login of another"],
)
def test_h43_a_copied_key_opens_nothing_that_is_said_after(
    remedy: object, arena: AttackSwarm
) -> None:
    group = arena.group()
    owner = arena.member(group, "owner")
    owner.request(tracker.CreateUser(user_of(owner) + "-other", "a password"))
    thief = Device(arena.at, owner.pair)
    arena.devices.made.append(thief)
    thief.subscribe()
    assert group in thief.follow()
    owner.request(remedy(owner))  # type: ignore[operator]
    thief.next_entry(events.Device)
    thief.try_(tracker.Follow())
    newcomer = arena.member(group, "newcomer")
    newcomer.subscribe()
    newcomer.follow()
    newcomer.share(group, "secret.bin")
    assert newcomer.next_entry(events.Shared).event.name == "secret.bin"
    newcomer.next_event(lambda event: isinstance(event, events.GroupHead) and event.group == group)
    assert thief.sub is not None
    told = []
    while thief.sub.poll(200):
        told.append(thief._open(*thief.sub.recv_multipart()))
        if len(told) > 50:
            break
    assert None in told  # something was said that it could not open
    assert [event for event in told if isinstance(event, events.LogEntry)] == []
    assert thief.refused(tracker.EventsSince(group, 0)) in (
        Code.NOT_LOGGED_IN,
        Code.UNKNOWN_GROUP,
    )
