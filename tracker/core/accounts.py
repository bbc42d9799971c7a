"""Accounts: users, their passwords, and the devices that log in for them.

Owns: the decisions on `Hello`, `CreateUser`, `Enter`, `Login` and `ChangePassword`. Not here:
hashing and checking of passwords (see tracker.service.passwords); a decision defers that, and a
second decision follows its result.
"""

from __future__ import annotations

from common import limits
from common.crypto.event_seal import inbox_of
from common.errors import Refused
from common.hints import hint
from common.ids import UserId
from common.messages import tracker
from common.messages.operator import Registration
from common.messages.refusals import Code
from common.names import BadName, new_user_id, quoted, user_id
from common.shared_refusals import check_new_password
from tracker.core import announcements, devices, invitations
from tracker.core.budgets import Budget
from tracker.core.changes.accounts import AccountCreated, DeviceBound, PasswordReplaced
from tracker.core.changes.base import Change
from tracker.core.context import (
    Caller,
    CheckPassword,
    Context,
    Decision,
    HashPassword,
    LogAppender,
    Now,
    ReleaseLease,
    ReplacePassword,
    SoftEffect,
    disabled,
    nudges,
    user_of,
)
from tracker.core.state import State

WRONG_CREDENTIALS = Refused(
    Code.WRONG_CREDENTIALS,
    "there is no such user, or the password is wrong",
    hint("check the spelling, or create an account", "create-user", "USER"),
)
"""One text for both reasons, so that it does not tell which users exist."""


def wrong_password(user: UserId) -> Refused:
    """Return the refusal to the holder of an invitation, who may know that the account exists."""
    return Refused(
        Code.WRONG_CREDENTIALS,
        f"there is an account {quoted(user)}, and this is not its password",
        "use its password if it is yours, or choose another name",
    )


WRONG_OLD_PASSWORD = Refused(Code.WRONG_CREDENTIALS, "the old password is wrong")


def hello(context: Context, caller: Caller, command: tracker.Hello, now: Now) -> Decision:
    """Reply with all that a device needs to know of this tracker."""
    announcements.check_alone(context, caller.device, command.instance, now)
    identity = context.identity
    topic, key = inbox_of(identity.inbox_secret, caller.device)
    return Decision(
        tracker.Welcome(
            tracker_id=identity.tracker_id,
            verify_keys=list(identity.verify_keys),
            events=identity.events,
            time_ms=now.wall_ms,
            user=context.state.user_on(caller.device),
            inbox=topic,
            inbox_key=key,
            seen_at=caller.address[:64],
            networked=identity.networked,
            trackers=list(context.fellows.endpoints[: limits.TRACKER_ADDRESSES_MAX]),
        )
    )


def create_user(context: Context, command: tracker.CreateUser) -> Decision:
    """First half: check the form of name and password.

    Invariant: the reply does not depend on which accounts exist. The name is looked up after the
    password is hashed, which costs the caller budget.
    """
    _check_registration(context.state, invited=False)
    user = new_user_id(command.user)
    check_new_password(command.password)
    return Decision(deferred=HashPassword(user, command.password))


def password_hashed(context: Context, user: UserId, password_hash: str, now: Now) -> Decision:
    """Second half: create the account unless the name is taken."""
    _check_registration(context.state, invited=False)
    _check_free(context.state, user)
    _check_accounts(context.state)
    return Decision(tracker.Done(), (AccountCreated(user, password_hash, now.wall_ms),))


def _check_accounts(state: State) -> None:
    if len(state.accounts) >= limits.ACCOUNTS_MAX:
        raise Refused(
            Code.LIMIT, f"this tracker has {limits.ACCOUNTS_MAX:,} accounts, the most allowed"
        )


def _check_registration(state: State, *, invited: bool) -> None:
    """Raise `Refused` unless accounts may be made, with or without an invitation."""
    if state.registration is Registration.CLOSED:
        raise Refused(
            Code.REGISTRATION,
            "this tracker makes no new accounts",
            hint("log in if you have one, or ask the operator of the tracker", "login", "USER"),
        )
    if state.registration is Registration.INVITE and not invited:
        raise Refused(
            Code.REGISTRATION,
            "this tracker makes accounts by invitation only",
            hint("ask the owner of a group for an invitation, and use it", "join", "LINK"),
        )


# -- login by an invitation ---------------------------------------------------------------------


def enter(context: Context, caller: Caller, command: tracker.Enter, now: Now) -> Decision:
    """First half of a login by an invitation: check it, and hash or check the password.

    Invariant: only the holder of an invitation that counts learns whether an account exists. With
    one that is used up, an account that is no member of the group looks like none.
    """
    state = context.state
    invitations.check_budget(context, caller, now)
    try:
        found = invitations.find(state, command.proof, now)
        user = _user_named(command.user)
        account = state.accounts.get(user)
        if account is None or user not in found.group.members:
            invitations.check_unused(found)
    except Refused as error:
        if error.code is not Code.NO_INVITATION:
            raise
        return invitations.tried_in_vain(context, caller, error, now)
    _check_device(state, caller, user)
    if account is not None:
        trusted = caller.device in state.devices
        check = CheckPassword(user, command.password, account.password_hash, trusted, found.key)
        return Decision(deferred=check)
    user = new_user_id(command.user)
    _check_registration(state, invited=True)
    if not command.create:
        # Charged as an attempt in vain: names cannot be tried out at the speed of the network.
        unknown = Refused(Code.UNKNOWN_USER, f"there is no user {quoted(user)} yet")
        return invitations.tried_in_vain(context, caller, unknown, now)
    check_new_password(command.password)
    return Decision(deferred=HashPassword(user, command.password, found.key))


def _check_device(state: State, caller: Caller, user: UserId) -> None:
    """Raise `Refused` if another user is logged in on the device."""
    bound = state.devices.get(caller.device)
    if bound not in (None, user):
        raise Refused(
            Code.TAKEN,
            f"{quoted(bound or '')} is logged in on this device",
            hint("log out first", "logout"),
        )


def entered_new(
    context: Context, caller: Caller, user: UserId, password_hash: str, key: bytes, now: Now
) -> Decision:
    """Second half for a new account: make it, log in and join, or nothing of that."""
    state = context.state
    found = invitations.known(state, key, now)
    invitations.check_unused(found)
    _check_registration(state, invited=True)
    if user in state.accounts:
        # Peers repeat what is busy, and find the account then.
        raise Refused(Code.BUSY, f"the account {quoted(user)} was made just now", "try again")
    _check_accounts(state)
    _check_device(state, caller, user)
    joined, effects = invitations.redeemed(context, found, user, now)
    changes = (
        AccountCreated(user, password_hash, now.wall_ms),
        DeviceBound(caller.device, user, now.wall_ms),
        *joined,
    )
    reply = tracker.Redeemed(found.group.id, user, found.invitation.user, True)
    return Decision(reply, changes, effects)


def entered(
    context: Context, caller: Caller, user: UserId, password_hash: str, key: bytes, now: Now
) -> Decision:
    """Second half for an account that exists: log in and join, or nothing of that."""
    found = invitations.known(context.state, key, now)
    _check_device(context.state, caller, user)
    login = password_right(context, caller, user, password_hash, now)
    # No group gets entries of both: a newcomer is in other groups only, and a member joins nothing.
    joined, effects = invitations.redeemed(context, found, user, now)
    reply = tracker.Redeemed(found.group.id, user, found.invitation.user)
    return Decision(reply, (*login.changes, *joined), (*login.effects, *effects))


# -- names, login, password ---------------------------------------------------------------------


def _user_named(text: str) -> UserId:
    try:
        return user_id(text)
    except BadName:
        return UserId(text)  # costs the same time as any other unknown user


def _check_free(state: State, user: UserId) -> None:
    if user in state.accounts:
        raise Refused(
            Code.TAKEN,
            f"the name {quoted(user)} is taken",
            hint("choose another name, or log in if it is yours", "login", user),
        )


def login(context: Context, caller: Caller, command: tracker.Login) -> Decision:
    """First half: find the hash to check the password against."""
    user = _user_named(command.user)
    account = context.state.accounts.get(user)
    trusted = account is not None and context.state.devices.get(caller.device) == user
    return Decision(
        deferred=CheckPassword(
            user, command.password, account.password_hash if account else None, trusted
        )
    )


def password_right(
    context: Context, caller: Caller, user: UserId, password_hash: str, now: Now
) -> Decision:
    """Second half: bind the device, after a logout of the user who was logged in on it.

    The account may have changed while the password was checked.
    """
    state = context.state
    account = state.accounts.get(user)
    if account is None or account.password_hash != password_hash:
        raise WRONG_CREDENTIALS
    if account.disabled:
        raise disabled(user)
    reply = tracker.LoggedIn(user)
    before = state.devices.get(caller.device)
    if before == user:
        return Decision(reply)
    if len(state.devices_of.get(user, ())) >= limits.DEVICES_PER_USER_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(user)} is logged in on {limits.DEVICES_PER_USER_MAX} devices",
            hint("on one of them, log out a device that is not needed", "forget-device", "ID"),
        )
    changes: list[Change] = []
    if groups := len(state.groups_of.get(user, ())):  # two entries: login, logout
        changes.append(state.budgets.spend(Budget.ENTRIES, user, 2 * groups, now.wall_ms))
    appenders: dict[str, LogAppender] = {}
    effects: list[SoftEffect] = []
    if before is not None:
        changes += devices.unbind(context, before, [caller.device], now, appenders)
        effects.append(ReleaseLease(caller.device))
    changes.append(DeviceBound(caller.device, user, now.wall_ms))
    changes += devices.log_device(state, user, caller.device, True, now, appenders)
    return Decision(reply, tuple(changes), (*effects, *nudges(state, user)))


def change_password(context: Context, user: UserId, command: tracker.ChangePassword) -> Decision:
    """First half: check the new password's form, and find the hash to check the old one against."""
    check_new_password(command.new)
    if command.new == command.old:
        raise Refused(
            Code.USAGE, "the new password is the same as the old one", "choose another one"
        )
    account = context.state.accounts[user]
    return Decision(
        deferred=ReplacePassword(
            user, command.old, account.password_hash, command.new, command.keep_devices
        )
    )


def password_checked(
    context: Context,
    caller: Caller,
    order: ReplacePassword,
    new_hash: str,
    now: Now,
) -> Decision:
    """Second half: replace the hash, and log out all other devices unless they are to stay."""
    user = user_of(context.state, caller)
    # Both may have changed while the passwords were hashed. A device that was logged out meanwhile
    # may no longer change the password, and of two changes at once the first one counts.
    if user != order.user or context.state.accounts[user].password_hash != order.password_hash:
        raise WRONG_OLD_PASSWORD
    others = [] if order.keep_devices else [*context.state.devices_of[user]]
    others = [device for device in others if device != caller.device]
    changes, effects = devices.unbind_others(context, user, others, now, {})
    return Decision(
        tracker.PasswordChanged(len(others)), (PasswordReplaced(user, new_hash), *changes), effects
    )
