"""Accounts: users, their passwords, and the devices that log in for them.

Owns: the decisions on `Hello`, `CreateUser`, `Login` and `ChangePassword`. Not here: hashing and
checking of passwords (see tracker.service.passwords); a decision defers that, and a second decision
follows its result.
"""

from __future__ import annotations

from common import limits
from common.crypto.event_seal import inbox_of
from common.errors import Refused
from common.hints import hint
from common.ids import UserId
from common.messages import tracker
from common.messages.refusals import Code
from common.names import BadName, new_user_id, quoted, user_id
from common.shared_refusals import check_new_password
from tracker.core import devices, feed
from tracker.core.budgets import Budget
from tracker.core.changes import AccountCreated, Change, DeviceBound, PasswordReplaced
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

WRONG_OLD_PASSWORD = Refused(Code.WRONG_CREDENTIALS, "the old password is wrong")


def hello(context: Context, caller: Caller, command: tracker.Hello, now: Now) -> Decision:
    """Reply with all that a device needs to know of this tracker."""
    feed.check_alone(context, caller.device, command.instance, now)
    identity = context.identity
    topic, key = inbox_of(identity.inbox_secret, caller.device)
    return Decision(
        tracker.Welcome(
            tracker_id=identity.tracker_id,
            verify_keys=list(identity.verify_keys),
            events=identity.events,
            time_ms=now.wall_ms,
            user=context.state.devices.get(caller.device),
            inbox=topic,
            inbox_key=key,
            seen_at=caller.address[:64],
            networked=identity.networked,
        )
    )


def create_user(command: tracker.CreateUser) -> Decision:
    """First half: check the form of name and password.

    Invariant: the reply does not depend on which accounts exist. The name is looked up after the
    password is hashed, which costs the caller budget.
    """
    user = new_user_id(command.user)
    check_new_password(command.password)
    return Decision(deferred=HashPassword(user, command.password))


def password_hashed(context: Context, user: UserId, password_hash: str, now: Now) -> Decision:
    """Second half: create the account unless the name is taken."""
    _check_free(context.state, user)
    if len(context.state.accounts) >= limits.ACCOUNTS_MAX:
        raise Refused(
            Code.LIMIT, f"this tracker has {limits.ACCOUNTS_MAX:,} accounts, the most allowed"
        )
    return Decision(tracker.Done(), (AccountCreated(user, password_hash, now.wall_ms),))


def _check_free(state: State, user: UserId) -> None:
    if user in state.accounts:
        raise Refused(
            Code.TAKEN,
            f"the name {quoted(user)} is taken",
            hint("choose another name, or log in if it is yours", "login", user),
        )


def login(context: Context, caller: Caller, command: tracker.Login) -> Decision:
    """First half: find the hash to check the password against."""
    try:
        user = user_id(command.user)
    except BadName:
        user = UserId(command.user)  # costs the same time as any other unknown user
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
