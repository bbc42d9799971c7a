"""Dispatch of commands to the modules that decide them.

Owns: which commands need a login, and receipts, by which a retry after a lost reply succeeds. Not
here: the decisions, in one module of tracker.core for each noun.

Invariant: `decide` changes nothing, and may be called again for the same command.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeAlias, assert_never

import msgspec

from common import limits
from common.errors import MiniTorrentError
from common.ids import UserId
from common.messages import tracker
from common.messages.base import Refusal
from tracker.core import (
    accounts,
    announcements,
    devices,
    follows,
    group_replication,
    groups,
    invitations,
    offers,
    operator,
    overview,
    shares,
    tickets,
    versions,
)
from tracker.core.changes.base import Change
from tracker.core.changes.groups import Logged, LogTrimmed, RevocationForgotten, TombstoneExpired
from tracker.core.changes.invitations import InvitationsExpired
from tracker.core.changes.receipts import ReceiptsExpired, ReceiptStored
from tracker.core.changes.shares import ManifestDropped
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    Now,
    ReplacePassword,
    fingerprint_of,
    user_of,
)
from tracker.core.records import Group, ManifestSummary
from tracker.core.state import State
from tracker.core.versions import names_to_forget

LOGS_TRIMMED_MAX = 20  # logs trimmed by one housekeeping: half a second of the disk


@dataclass(frozen=True, slots=True)
class PasswordHashed:
    """The password of a new account was hashed."""

    user: UserId
    password_hash: str = field(repr=False)
    invitation: bytes | None = None


@dataclass(frozen=True, slots=True)
class PasswordRight:
    """The password matches the account that had this hash. ``invitation``: as before the check."""

    user: UserId
    password_hash: str = field(repr=False)
    invitation: bytes | None = None


@dataclass(frozen=True, slots=True)
class PasswordChecked:
    """The old password matches, and the new one was hashed."""

    order: ReplacePassword
    new_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ManifestGathered:
    """A manifest from ``user`` is complete and valid."""

    user: UserId
    summary: ManifestSummary
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Housekeep:
    """Periodic housekeeping: drop what is out of date. ``ending``: this process ends next."""

    ending: bool = False


InternalCommand: TypeAlias = (
    PasswordHashed
    | PasswordRight
    | PasswordChecked
    | ManifestGathered
    | Housekeep
    | operator.Command
    | overview.Command
)
"""Commands of the tracker to itself, and of its operator; they never come off the wire."""

# A retry of one of these is recognised by its receipt. The other commands change nothing, or their
# own modules recognise that they were done.
_WITH_RECEIPT = (
    tracker.CreateUser,
    PasswordHashed,
    tracker.ChangePassword,
    PasswordChecked,
    tracker.Logout,
    tracker.ForgetDevice,
    tracker.CreateGroup,
    tracker.JoinGroup,
    tracker.LeaveGroup,
    tracker.AcceptRequest,
    tracker.RejectRequest,
    tracker.RemoveMember,
    tracker.RevokeInvitation,
    tracker.StopShare,
    tracker.Withdraw,
)

WRITING = (
    *(PasswordHashed, PasswordRight, PasswordChecked, ManifestGathered, Housekeep),
    *(tracker.Logout, tracker.ForgetDevice, tracker.CreateGroup, tracker.JoinGroup),
    *(tracker.LeaveGroup, tracker.AcceptRequest, tracker.RejectRequest, tracker.RemoveMember),
    *(tracker.Invite, tracker.RevokeInvitation, tracker.Redeem, tracker.Offer),
    *(tracker.StopShare, tracker.Withdraw, tracker.SetFollow),
    *(operator.SetDisabled, operator.DeleteUser, operator.ReplacePassword),
    *(operator.DeleteGroup, operator.SetRegistration),
)
"""Commands that write if they are not refused. The changes of others, if any, are rare."""


def decide(
    context: Context, caller: Caller, command: tracker.Command | InternalCommand, now: Now
) -> Decision:
    """Decide ``command``. A refusal becomes the reply."""
    fingerprint = _fingerprint(command)
    if fingerprint is not None and _has_receipt(context.state, caller, fingerprint, now):
        return Decision(tracker.Done())
    try:
        decision = _match(context, caller, command, now)
    except MiniTorrentError as error:
        return Decision(Refusal(error.code, error.message, error.hint))
    changes = (*decision.changes, *_log_trims(context.state, decision.changes))
    if fingerprint is not None and changes:
        changes = (
            *changes,
            ReceiptStored(caller.device, caller.request_id, fingerprint, now.wall_ms),
        )
    return replace(decision, changes=changes)


def _match(
    context: Context, caller: Caller, command: tracker.Command | InternalCommand, now: Now
) -> Decision:
    """Call the function that decides ``command``; those without a login come first."""
    state = context.state
    match command:
        case tracker.Hello():
            return accounts.hello(context, caller, command, now)
        case tracker.CreateUser():
            return accounts.create_user(context, command)
        case tracker.Enter():
            return accounts.enter(context, caller, command, now)
        case PasswordHashed(user, password_hash, key):
            if key is not None:
                return accounts.entered_new(context, caller, user, password_hash, key, now)
            return accounts.password_hashed(context, user, password_hash, now)
        case tracker.Login():
            return accounts.login(context, caller, command)
        case PasswordRight(user, password_hash, key):
            if key is not None:
                return accounts.entered(context, caller, user, password_hash, key, now)
            return accounts.password_right(context, caller, user, password_hash, now)
        case PasswordChecked(order, new_hash):
            return accounts.password_checked(context, caller, order, new_hash, now)
        case tracker.Logout():
            return devices.logout(context, caller, now)
        case tracker.Depart():
            return announcements.depart(caller)
        case ManifestGathered(user, summary, body):
            return shares.manifest_gathered(state, user, summary, body)
        case (
            operator.GetStatus()
            | operator.ListUsers()
            | operator.SetDisabled()
            | operator.DeleteUser()
            | operator.ReplacePassword()
            | operator.ListGroups()
            | operator.DeleteGroup()
            | operator.SetRegistration()
        ):
            return operator.decide(context, command, now)
        case overview.ListDevices() | overview.ListMembers() | overview.ListSwarms():
            return overview.decide(context, command, now)
        case Housekeep(ending):
            changes = (
                *devices.seen_marks(context, now, ending=ending),
                *devices.rekey_pending(context, now),
            )
            return Decision(tracker.Done(), (*changes, *_expired(state, now)))
    user = user_of(state, caller)
    match command:
        case tracker.ChangePassword():
            return accounts.change_password(context, user, command)
        case tracker.ListDevices():
            return devices.list_devices(context, user, caller, command, now)
        case tracker.ForgetDevice():
            return devices.forget_device(context, user, caller, command, now)
        case tracker.CreateGroup():
            return groups.create_group(context, user, command, now)
        case tracker.JoinGroup():
            return groups.join_group(context, user, command, now)
        case tracker.LeaveGroup():
            return groups.leave_group(context, user, command, now)
        case tracker.ListGroups():
            return groups.list_groups(context, user, command)
        case tracker.ListRequests():
            return groups.list_requests(context, user, command)
        case tracker.ListMembers():
            return groups.list_members(context, user, command)
        case tracker.AcceptRequest():
            return groups.accept_request(context, user, command, now)
        case tracker.RejectRequest():
            return groups.reject_request(context, user, command, now)
        case tracker.RemoveMember():
            return groups.remove_member(context, user, command, now)
        case tracker.Invite():
            return invitations.invite(context, user, command, now)
        case tracker.ListInvitations():
            return invitations.list_invitations(context, user, command, now)
        case tracker.RevokeInvitation():
            return invitations.revoke_invitation(context, user, command)
        case tracker.Redeem():
            return invitations.redeem(context, user, caller, command, now)
        case tracker.Offer():
            return offers.offer(context, user, caller, command, now)
        case tracker.PutManifest():
            return shares.put_manifest(state, user, command)
        case tracker.StopShare():
            return offers.stop_share(context, user, caller, command, now)
        case tracker.MyOffers():
            return offers.my_offers(context, user, caller, command)
        case tracker.ListFiles():
            return shares.list_files(context, user, command)
        case tracker.FindShare():
            return shares.find_share(context, user, caller, command)
        case tracker.GetSources():
            return shares.get_sources(context, user, caller, command)
        case tracker.GetManifest():
            return shares.get_manifest(context, user, command)
        case tracker.Announce():
            return announcements.announce(context, user, caller, command, now)
        case tracker.GetTickets():
            return tickets.get_tickets(state, user, command)
        case tracker.Follow():
            return group_replication.follow(state, user, caller, now)
        case tracker.GetDevices():
            return group_replication.get_devices(state, user, command)
        case tracker.EventsSince():
            return group_replication.events_since(state, user, command, now)
        case tracker.Withdraw():
            return versions.withdraw(context, user, command, now)
        case tracker.ProbeMe():
            return announcements.probe_me(context, user, caller)
        case tracker.SetFollow():
            return follows.set_follow(context, user, caller, command, now)
        case tracker.WhoHas():
            return follows.who_has(context, user, command, now)
        case _:
            assert_never(command)


# -- receipts ----------------------------------------------------------------------------------


def _fingerprint(command: tracker.Command | InternalCommand) -> bytes | None:
    """Hash that tells this command from others under the same id. It covers no password."""
    if not isinstance(command, _WITH_RECEIPT):
        return None
    if isinstance(command, PasswordHashed) and command.invitation is not None:
        return None  # a repeated `Enter` finds the account, and has another reply
    if isinstance(command, tracker.CreateUser | PasswordHashed):
        return fingerprint_of(b"CreateUser", command.user.lower().encode())
    if isinstance(command, tracker.ChangePassword | PasswordChecked):
        return fingerprint_of(b"ChangePassword")
    return fingerprint_of(msgspec.msgpack.encode(command))


def _has_receipt(state: State, caller: Caller, fingerprint: bytes, now: Now) -> bool:
    receipt = state.receipts.get((caller.device, caller.request_id))
    if receipt is None:
        return False
    known, at_ms = receipt
    return known == fingerprint and now.wall_ms - at_ms < limits.RECEIPT_LIFE_S * 1000


# -- expiry -------------------------------------------------------------------------------------


def _log_trims(state: State, changes: Iterable[Change]) -> list[LogTrimmed]:
    """Trim the logs that ``changes`` make too long."""
    added = Counter(change.group for change in changes if isinstance(change, Logged))
    known = ((state.groups.get(group), count) for group, count in added.items())
    return [trim for group, count in known if group is not None for trim in _trim(group, count)]


def _trim(group: Group, added: int = 0) -> list[LogTrimmed]:
    entries = group.entries + added
    if entries <= limits.LOG_ENTRIES_MAX:
        return []
    return [LogTrimmed(group.id, min(entries - limits.LOG_ENTRIES_KEPT, limits.LOG_TRIM_MAX))]


def _expired(state: State, now: Now) -> list[Change]:
    """Expire receipts, revocations, invitations, tombstones and manifests; trim long logs."""
    changes: list[Change] = []
    oldest_ms = now.wall_ms - limits.RECEIPT_LIFE_S * 1000
    if any(at_ms < oldest_ms for _, at_ms in state.receipts.values()):
        changes.append(ReceiptsExpired(oldest_ms))
    # Far longer than a ticket lives: a wall clock that jumps ahead and back must not make a revoked
    # ticket valid again.
    day_ms = limits.TOMBSTONE_LIFE_S * 1000
    changes += [
        RevocationForgotten(group.id, user)
        for group in state.groups.values()
        for user, revocation in group.revoked.items()
        if now.wall_ms - revocation.at_ms > day_ms
    ]
    changes += [
        TombstoneExpired(group)
        for group, former in state.tombstones.items()
        if now.wall_ms - former.at_ms > day_ms
    ]
    if any(
        state.groups[group].invitations[key].expires_ms <= now.wall_ms
        for key, group in state.invited_by.items()
    ):
        changes.append(InvitationsExpired(now.wall_ms))
    oldest_manifest_ms = now.wall_ms - limits.UNSHARED_MANIFEST_LIFE_S * 1000
    changes += [
        ManifestDropped(content) for content in state.unshared_manifests.before(oldest_manifest_ms)
    ]
    for group in state.groups.values():
        changes += names_to_forget(group)
    # New entries trim their log; an earlier release left these longer.
    long = (trim for group in state.groups.values() for trim in _trim(group))
    changes += itertools.islice(long, LOGS_TRIMMED_MAX)
    return changes
