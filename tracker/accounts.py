"""Accounts, and which device acts for which user.

Decides `Hello`, `CreateUser`, `Login` and `Logout`. Hashing and checking of passwords is asked of
the shell (``tracker.passwords``), and decided upon once that is done.
"""

from __future__ import annotations

from common import limits
from common.errors import Refused
from common.ids import DeviceKey, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import BadName, quoted, user_id
from common.seal import inbox_of
from tracker.changes import AccountCreated, Change, DeviceBound, DeviceUnbound
from tracker.decision import (
    Actor,
    CheckPassword,
    Decision,
    Entries,
    HashPassword,
    Notice,
    Now,
    Offline,
    World,
    nudges,
    user_of,
)
from tracker.state import State

WRONG_CREDENTIALS = Refused(
    Code.WRONG_CREDENTIALS,
    "there is no such user, or the password is wrong",
    "check the spelling; make an account with: create-user USER",
)
"""One text for both, so that nobody learns which users there are."""


def hello(world: World, actor: Actor, now: Now) -> Decision:
    """Tell a device all that it needs to know of this tracker."""
    facts = world.facts
    topic, key = inbox_of(facts.inbox_secret, actor.device)
    return Decision(
        tracker.Welcome(
            tracker_id=facts.tracker_id,
            verify_keys=list(facts.verify_keys),
            events=facts.events,
            time_ms=now.wall_ms,
            user=world.state.devices.get(actor.device),
            inbox=topic,
            inbox_key=key,
        )
    )


def create_user(world: World, command: tracker.CreateUser) -> Decision:
    """First half: is the name free and the password one at all?"""
    user = user_id(command.user)
    _check_free(world.state, user)
    if not command.password:
        raise Refused(Code.USAGE, "the password is empty", "choose one that nobody guesses")
    return Decision(HashPassword(user, command.password))


def password_hashed(world: World, user: UserId, password_hash: str, now: Now) -> Decision:
    """Second half: make the account, unless somebody else was faster."""
    _check_free(world.state, user)
    return Decision(tracker.Done(), (AccountCreated(user, password_hash, now.wall_ms),))


def _check_free(state: State, user: UserId) -> None:
    if user in state.accounts:
        raise Refused(
            Code.TAKEN, f"the name {quoted(user)} is taken", "choose another one, or log in"
        )


def login(world: World, actor: Actor, command: tracker.Login) -> Decision:
    """First half: against which hash is the password to be checked?"""
    try:
        user = user_id(command.user)
    except BadName:
        user = UserId(command.user)  # costs the same time as any other unknown user
    account = world.state.accounts.get(user)
    trusted = account is not None and world.state.devices.get(actor.device) == user
    return Decision(
        CheckPassword(user, command.password, account.password_hash if account else None, trusted)
    )


def password_right(
    world: World, actor: Actor, user: UserId, password_hash: str, now: Now
) -> Decision:
    """Second half: bind the device. Who was logged in on it before is logged out first."""
    state = world.state
    account = state.accounts.get(user)
    if account is None or account.password_hash != password_hash:
        raise WRONG_CREDENTIALS
    reply = tracker.LoggedIn(user)
    before = state.devices.get(actor.device)
    if before == user:
        return Decision(reply)
    if len(state.devices_of.get(user, ())) >= limits.DEVICES_PER_USER_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(user)} is logged in on {limits.DEVICES_PER_USER_MAX} devices",
            "log out on one that is not needed any more",
        )
    changes: list[Change] = []
    seen: dict[str, Entries] = {}
    notices: list[Notice] = []
    if before is not None:
        changes += [*_unbind(state, before, actor.device, now, seen)]
        notices.append(Offline(actor.device))
    changes.append(DeviceBound(actor.device, user, now.wall_ms))
    changes += _tell(state, user, actor.device, True, now, seen)
    return Decision(reply, tuple(changes), (*notices, *nudges(state, user)))


def logout(world: World, actor: Actor, now: Now) -> Decision:
    """Unbind the device. What it offers stays on record and counts again after the next login."""
    user = user_of(world.state, actor)
    changes = _unbind(world.state, user, actor.device, now, {})
    return Decision(tracker.Done(), tuple(changes), (Offline(actor.device),))


def _unbind(
    state: State, user: UserId, device: DeviceKey, now: Now, seen: dict[str, Entries]
) -> list[Change]:
    return [DeviceUnbound(device), *_tell(state, user, device, False, now, seen)]


def _tell(
    state: State,
    user: UserId,
    device: DeviceKey,
    bound: bool,
    now: Now,
    seen: dict[str, Entries],
) -> list[Change]:
    """An entry for each group of ``user``. ``seen`` goes on counting where two users share one."""
    changes: list[Change] = []
    for group in state.groups_with(user):
        entries = seen.setdefault(group.id, Entries(group, now))
        changes.append(entries.add(events.Device(user, device, bound)))
    return changes
