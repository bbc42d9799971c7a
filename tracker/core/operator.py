"""Operator: listings of users and groups, and changes that only the operator may make.

Owns: the decisions on the operator's commands. Not here: their socket (see
tracker.service.operator_socket), hashing of a new password, what a disabled account is refused (see
tracker.core.context).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TypeAlias, assert_never

from common import limits
from common.errors import Refused
from common.hints import tracker_hint
from common.ids import DeviceKey, UserId
from common.messages import events
from common.messages.operator import (
    ROWS_MAX,
    Changed,
    GroupRow,
    Groups,
    Registration,
    RegistrationIs,
    StatusIs,
    UserRow,
    Users,
)
from common.messages.refusals import Code
from common.names import BadName, quoted, user_id
from common.units import count_text, rfc3339
from tracker.core import devices, groups
from tracker.core.changes.accounts import (
    AccountDeleted,
    AccountDisabled,
    DeviceUnbound,
    PasswordReplaced,
    RegistrationSet,
)
from tracker.core.changes.base import Change
from tracker.core.changes.groups import RequestDropped
from tracker.core.context import (
    Context,
    Decision,
    LogAppender,
    Now,
    Nudge,
    ReleaseLease,
    SoftEffect,
    find_group,
    nudges,
)
from tracker.core.records import Account, Group

GROUP_ROWS = 100  # groups in one answer: each may have 20,000 shares to add up


@dataclass(frozen=True, slots=True)
class GetStatus:
    """Count users, devices, groups and shares."""


@dataclass(frozen=True, slots=True)
class ListUsers:
    """List users. The fields as in the message."""

    after: str
    text: str = ""
    online: bool = False
    rows: int = ROWS_MAX


@dataclass(frozen=True, slots=True)
class SetDisabled:
    user: str
    disabled: bool


@dataclass(frozen=True, slots=True)
class DeleteUser:
    user: str


@dataclass(frozen=True, slots=True)
class ReplacePassword:
    """The new password was hashed."""

    user: str
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListGroups:
    """List groups. The fields as in the message."""

    after: str
    text: str = ""
    rows: int = ROWS_MAX


@dataclass(frozen=True, slots=True)
class DeleteGroup:
    group: str


@dataclass(frozen=True, slots=True)
class SetRegistration:
    """Change the mode of registration. ``mode``: None asks for the present one."""

    mode: Registration | None


Command: TypeAlias = (
    GetStatus
    | ListUsers
    | SetDisabled
    | DeleteUser
    | ReplacePassword
    | ListGroups
    | DeleteGroup
    | SetRegistration
)


def decide(context: Context, command: Command, now: Now) -> Decision:
    """Decide a command of the operator. Raise `Refused`."""
    match command:
        case GetStatus():
            return Decision(_status(context))
        case ListUsers():
            return _list_users(context, command, now)
        case SetDisabled(text, disabled):
            account = _account(context, text)
            return _disable(context, account, now) if disabled else _enable(context, account, now)
        case DeleteUser(text):
            return _delete_user(context, _account(context, text).user, now)
        case ReplacePassword(text, password_hash):
            return _replace_password(context, _account(context, text).user, password_hash, now)
        case ListGroups():
            return _list_groups(context, command, now)
        case DeleteGroup(text):
            return _delete_group(context, text, now)
        case SetRegistration(mode):
            return _set_registration(context, mode)
        case _:
            assert_never(command)


# -- users --------------------------------------------------------------------------------------


def _account(context: Context, text: str) -> Account:
    try:
        account = context.state.accounts.get(user_id(text))
    except BadName:
        account = None
    if account is None:
        raise Refused(
            Code.UNKNOWN_USER,
            f"there is no user {quoted(text)}",
            tracker_hint("see the users", "list-users"),
        )
    return account


def _list_users(context: Context, command: ListUsers, now: Now) -> Decision:
    # One pass and no sort of all accounts: other commands wait for this one.
    state, after, text = context.state, command.after, command.text.lower()
    following = (user for user in state.accounts if user > after and text in user)
    if command.online:
        following = (user for user in following if context.presence.online(state, user))
    found = heapq.nsmallest(command.rows + 1, following)
    rows = [_user_row(context, user, now) for user in found[: command.rows]]
    return Decision(Users(rows, len(found) > command.rows))


def _user_row(context: Context, user: UserId, now: Now) -> UserRow:
    state, account = context.state, context.state.accounts[user]
    bindings = [state.bindings[device] for device in state.devices_of.get(user, ())]
    joined = list(state.groups_with(user))
    online = context.presence.online(state, user)
    seen_ms = max((binding.seen_ms for binding in bindings), default=None)
    seen_ms = now.wall_ms if online else seen_ms
    return UserRow(
        user=user,
        disabled=account.disabled,
        created=rfc3339(account.at_ms),
        seen=None if seen_ms is None else rfc3339(seen_ms),
        devices=len(bindings),
        online=online,
        groups=len(joined),
        owns=sum(group.owner == user for group in joined),
        shares=sum(state.holdings.shares[group.id, user] for group in joined),
    )


def _disable(context: Context, account: Account, now: Now) -> Decision:
    """Shut all devices of a user out; bindings, memberships and offers stay for `_enable`.

    Peers take the entries about the devices as for a logout, and refuse them at once.
    """
    user = account.user
    if account.disabled:
        return Decision(Changed(f"{user} is disabled already", user))
    bound = list(context.state.devices_of.get(user, ()))
    changes = devices.shut_out(context, user, bound, now, {})
    return Decision(
        Changed(f"{user} is disabled; {_devices(len(bound))} shut out", user, len(bound)),
        (AccountDisabled(user, True), *changes),
        _released(bound),
    )


def _enable(context: Context, account: Account, now: Now) -> Decision:
    """Admit the devices of a user again."""
    user = account.user
    if not account.disabled:
        return Decision(Changed(f"{user} is not disabled", user))
    bound = list(context.state.devices_of.get(user, ()))
    appenders: dict[str, LogAppender] = {}
    changes: list[Change] = [AccountDisabled(user, False)]
    for device in bound:
        changes += devices.log_device(context.state, user, device, True, now, appenders)
    text = f"{user} is enabled; {_devices(len(bound))} let in again"
    return Decision(Changed(text, user, len(bound)), tuple(changes), nudges(context.state, user))


def _devices(count: int) -> str:
    return count_text(count, "device is", "devices are")


def _released(bound: list[DeviceKey]) -> tuple[SoftEffect, ...]:
    """Return the effects that end the presence of devices, and make them ask why."""
    return tuple(effect for device in bound for effect in (ReleaseLease(device), Nudge(device)))


def _delete_user(context: Context, user: UserId, now: Now) -> Decision:
    """Delete an account. Each group goes on as if the user had been removed from it."""
    state = context.state
    changes: list[Change] = []
    bound = list(state.devices_of.get(user, ()))
    effects: list[SoftEffect] = list(_released(bound))
    joined = list(state.groups_with(user))
    for group in joined:
        if len(group.members) == 1:
            left = groups.dissolve(state, group, user, now)
        else:
            left = groups.remove(context, group, user, events.Removed(user, group.epoch + 1), now)
        changes += left.changes
        effects += left.effects
    for group in (state.groups[name] for name in state.requests_of.get(user, ())):
        entry = LogAppender(group, now).add(events.Rejected(user))
        changes += [RequestDropped(group.id, user), entry]
        effects += nudges(state, group.owner)
    changes += [DeviceUnbound(device) for device in bound]
    changes.append(AccountDeleted(user))
    count = count_text(len(joined), "group")
    return Decision(
        Changed(f"{user} is deleted; was in {count}", user, len(bound), len(joined)),
        tuple(changes),
        tuple(dict.fromkeys(effects)),
    )


def _replace_password(context: Context, user: UserId, password_hash: str, now: Now) -> Decision:
    """Replace a password without the old one, and log out all devices."""
    bound = list(context.state.devices_of.get(user, ()))
    changes, effects = devices.unbind_others(context, user, bound, now, {})
    text = f"{user} has a new password; {_devices(len(bound))} logged out"
    return Decision(
        Changed(text, user, len(bound)),
        (PasswordReplaced(user, password_hash), *changes),
        effects,
    )


# -- groups -------------------------------------------------------------------------------------


def _list_groups(context: Context, command: ListGroups, now: Now) -> Decision:
    state, after, text = context.state, command.after, command.text.lower()
    rows = min(command.rows, GROUP_ROWS)
    found = [name for name in state.group_ids if name > after and text in name]
    listed = [_group_row(context, state.groups[name], now) for name in found[:rows]]
    return Decision(Groups(listed, len(found) > rows))


def _group_row(context: Context, group: Group, now: Now) -> GroupRow:
    return GroupRow(
        group=group.id,
        owner=group.owner,
        created=rfc3339(group.at_ms),
        members=len(group.members),
        requests=len(group.requests),
        invitations=sum(
            each.used < each.uses and each.expires_ms > now.wall_ms
            for each in group.invitations.values()
        ),
        shares=len(group.shares),
        size_bytes=min(group.size_bytes, limits.COUNT_MAX),
        log_head=group.seq,
    )


def _delete_group(context: Context, text: str, now: Now) -> Decision:
    """Dissolve a group; all its members lose it at once."""
    group = find_group(context.state, text)
    if group is None:
        raise Refused(
            Code.UNKNOWN_GROUP,
            f"there is no group {quoted(text)}",
            tracker_hint("see the groups", "list-groups"),
        )
    dissolved = groups.dissolve(context.state, group, group.owner, now)
    members = len(group.members)
    count = count_text(members, "member")
    answer = Changed(f"the group {group.id} is deleted; it had {count}", group.id)
    return Decision(answer, dissolved.changes, dissolved.effects)


# -- the tracker --------------------------------------------------------------------------------


def _set_registration(context: Context, mode: Registration | None) -> Decision:
    present = context.state.registration
    if mode is None or mode is present:
        return Decision(RegistrationIs(present))
    return Decision(RegistrationIs(mode, True), (RegistrationSet(mode),))


def _status(context: Context) -> StatusIs:
    """Return the counts; the service fills in the facts about its process."""
    state, leases = context.state, context.presence.leases
    return StatusIs(
        running=True,
        link="",
        pid=0,
        version="",
        home="",
        uptime_s=0.0,
        users=len(state.accounts),
        users_online=len({lease.user for lease in leases.values()}),
        devices=len(state.devices),
        devices_online=len(leases),
        groups=len(state.groups),
        shares=sum(len(group.shares) for group in state.groups.values()),
        log_head=sum(group.seq for group in state.groups.values()),
        database_bytes=0,
        registration=state.registration,
        trackers=max(1, len(context.fellows.endpoints)),
    )
