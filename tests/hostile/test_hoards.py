"""Hoards: one user takes what belongs to all, such as room, logs, and the right to log in."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter

from common import limits
from common.messages import tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from tests.support.attackers import AttackSwarm, user_of
from tests.support.tracker_process import Device


def hoard(device: Device, part: bytes, size: int) -> Refusal | None:
    """Begin a manifest and never end it; the refusal that stops it before ``size`` bytes."""
    content = os.urandom(32)
    offsets = range(0, size, len(part))
    ids: list[bytes] = []
    for offset in offsets:
        put = tracker.PutManifest(content, limits.MANIFEST_BYTES_MAX, offset)
        ids.append(device.send(put, part))
        if len(ids) >= 16:
            reply = device.receive(ids.pop(0))
            if isinstance(reply, Refusal):
                return reply
    replies = [device.receive(request_id) for request_id in ids]
    return next((reply for reply in replies if isinstance(reply, Refusal)), None)


def test_h45_one_account_does_not_fill_the_room_for_manifests(arena: AttackSwarm) -> None:
    evil = arena.device("evil")
    others = [arena.stranger() for _ in range(3)]
    for other in others:
        other.request(tracker.Login(user_of(evil), "a password"))
    part = os.urandom(limits.MANIFEST_PART_BYTES)
    # Four manifests begun; the largest that there are would fill the room three times.
    refusals = [hoard(device, part, 66 * limits.MIB) for device in (evil, *others)]
    assert refusals[0] is None
    for refusal in refusals[1:]:
        assert refusal is not None
        assert refusal.code is Code.BUSY
    victim = arena.device("victim")
    victim.request(tracker.CreateGroup(user_of(victim)))
    victim.share(user_of(victim), "new.bin", os.urandom(20_000))


def test_h46_guesses_from_elsewhere_do_not_stop_a_login_on_a_new_device(
    arena: AttackSwarm,
) -> None:
    """Guesses come from one address of the loopback network, the user from another one."""
    owner = arena.device("owner")
    port = arena.at.endpoint.rpartition(":")[2]
    elsewhere = dataclasses.replace(arena.at, endpoint=f"tcp://127.0.0.9:0;127.0.0.1:{port}")
    codes = [
        arena.devices(elsewhere).refused(tracker.Login(user_of(owner), f"guess {number}"))
        for number in range(9)
    ]
    assert codes == [Code.WRONG_CREDENTIALS] * 5 + [Code.SLOW_DOWN] * 4
    fresh = arena.stranger()
    assert fresh.request(tracker.Login(user_of(owner), "a password")) == tracker.LoggedIn(
        user_of(owner)
    )
    # Nor do those at one's own address keep out a device that was let in before.
    fresh.request(tracker.Logout())
    for _ in range(6):
        arena.stranger().refused(tracker.Login(user_of(owner), "guess"))
    assert arena.stranger().refused(tracker.Login(user_of(owner), "a password")) is Code.SLOW_DOWN
    fresh.request(tracker.Login(user_of(owner), "a password"))


def test_h57_a_flood_of_right_passwords_does_not_stop_other_logins(arena: AttackSwarm) -> None:
    """Ten devices with five logins each under way all the time: others log in at the first try."""
    evil, victim = arena.device("evil"), arena.device("victim")
    flood = [evil, *(arena.stranger() for _ in range(9))]
    command = tracker.Login(user_of(evil), "a password")
    counts = Counter[str]()
    for each in flood:
        for _ in range(5):
            each.send(command)
    for _ in range(4):
        fresh = arena.stranger()
        asked = fresh.send(tracker.Login(user_of(victim), "a password"))
        while not fresh.socket.poll(5):
            for each in flood:
                for _, reply in each.arrived():
                    refused = isinstance(reply, Refusal)
                    counts[str(reply.code) if refused else type(reply).__name__] += 1
                    each.send(command)
        assert fresh.receive(asked) == tracker.LoggedIn(user_of(victim))
    assert set(counts) <= {"LoggedIn", str(Code.BUSY)}
    assert counts[str(Code.BUSY)]
