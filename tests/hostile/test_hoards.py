"""Who takes what belongs to all: room, logs, and the right to log in."""

from __future__ import annotations

import os

from members import Arena, user_of
from tracker_fixtures import Device

from common import limits
from common.messages import tracker
from common.messages.refusals import Code, Refusal


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


def test_h45_one_account_does_not_fill_the_room_for_manifests(arena: Arena) -> None:
    evil = arena.device("evil")
    others = [arena.stranger() for _ in range(3)]
    for other in others:
        other.ask(tracker.Login(user_of(evil), "a password"))
    part = os.urandom(limits.MANIFEST_PART_BYTES)
    # Four manifests begun; the largest that there are would fill the room three times.
    refusals = [hoard(device, part, 66 * limits.MIB) for device in (evil, *others)]
    assert refusals[0] is None
    for refusal in refusals[1:]:
        assert refusal is not None
        assert refusal.code is Code.BUSY
    victim = arena.device("victim")
    victim.ask(tracker.CreateGroup(user_of(victim)))
    victim.share(user_of(victim), "new.bin", os.urandom(20_000))
