"""Random commands of a few users in a few groups, for tests that compare the mirror with something.

All come from the caller's random source, so a seed makes them again.
"""

from __future__ import annotations

import random

from common.ids import ContentId, DeviceKey, UserId
from common.invitation import id_of, key_of
from common.messages import tracker
from common.messages.operator import Registration
from tests.support.tracker_harness import TrackerHarness, content_id
from tracker.core import commands, operator
from tracker.core.context import Caller

OPEN = Registration.OPEN


def random_command(harness: TrackerHarness, rng: random.Random) -> None:
    """Decide one; the clock goes on by up to 30 s."""
    device = harness.device(f"device {rng.randrange(6)}")
    user, group = f"u{rng.randrange(5)}", f"g{rng.randrange(3)}"
    name = rng.choice(["a", "b"])
    harness.wait(rng.random() * 30)
    if device.user is None or rng.random() < 0.05:
        device.enters(user)
        return
    device.asks(
        rng.choice(
            [
                tracker.CreateGroup(group),
                tracker.JoinGroup(group),
                tracker.LeaveGroup(group),
                tracker.AcceptRequest(group, user),
                tracker.AcceptRequest(group, user),
                tracker.RejectRequest(group, user),
                tracker.RemoveMember(group, user),
                tracker.Offer(group, name, _content(harness, name)),
                tracker.Offer(group, name, _content(harness, name)),
                tracker.Offer(group, name, _content(harness, "c"), True),
                tracker.Offer(group, name, _content(harness, "d"), True),
                tracker.Offer(group, name, _content(harness, "c"), False, rng.randrange(3)),
                tracker.StopShare(group, name, rng.randrange(3)),
                tracker.Withdraw(group, name, rng.randrange(3)),
                tracker.SetFollow(group, True, rng.choice([[], ["*.iso", "a?"]])),
                tracker.SetFollow(group, rng.random() < 0.7),
                tracker.Logout(),
                tracker.ForgetDevice(harness.device(f"device {rng.randrange(6)}").key),
                tracker.Announce("tcp://192.0.2.7:9000"),
                tracker.Depart(),
                tracker.Invite(group, _key(rng), rng.randint(1, 2), rng.randint(60, 600)),
                tracker.Invite(group, _key(rng), 1),
                tracker.Redeem(proof(rng.randrange(4))),
                tracker.Redeem(proof(rng.randrange(4))),
                tracker.RevokeInvitation(group, id_of(_key(rng))),
            ]
        )
    )
    if rng.random() < 0.03:
        _operate(harness, rng, UserId(user), group)
    if rng.random() < 0.02 and device.user is not None:
        order = device.does(tracker.ChangePassword("secret", "fresh one", rng.random() < 0.5))
        # What it is replaced by is what `enters` expects.
        device.does(commands.PasswordChecked(order, "hash of secret"))
    if rng.random() < 0.02:
        harness.decide(Caller(device.key), commands.Housekeep())


def _operate(harness: TrackerHarness, rng: random.Random, user: UserId, group: str) -> None:
    """A command of the operator; a disabled user is enabled again, or could not enter."""
    orders: list[list[operator.Command]] = [
        [operator.SetDisabled(user, True), operator.SetDisabled(user, False)],
        [operator.DeleteUser(user)],
        [operator.DeleteGroup(group)],
        [operator.ReplacePassword(user, "hash of secret")],
        [operator.SetRegistration(Registration.INVITE), operator.SetRegistration(OPEN)],
    ]
    for order in rng.choice(orders):
        harness.decide(Caller(DeviceKey(b"")), order)


def proof(number: int) -> bytes:
    """Return the secret of one of a few invitations."""
    return b"%032d" % number


def _key(rng: random.Random) -> bytes:
    return key_of(proof(rng.randrange(4)))


def _content(harness: TrackerHarness, name: str) -> ContentId:
    if content_id(name) not in harness.state.manifests:
        harness.content(name)
    return content_id(name)
