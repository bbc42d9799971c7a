"""Invitations: who makes and revokes them, and what redeeming one does.

Owns: the decisions on `Invite`, `ListInvitations`, `RevokeInvitation` and `Redeem`, and the check
of an invitation before a login by `Enter`. Not here: that login (see tracker.core.accounts), the
form of secrets (see common.invitation).

Invariant: an invitation counts while its maker owns the group and is not disabled. Each user whom
it makes a member takes one of its uses in the same decision, so a race has one winner. A repetition
by a member takes none and succeeds.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from common import limits
from common.errors import Refused
from common.hints import hint
from common.ids import UserId
from common.invitation import id_of, key_of
from common.messages import events, tracker
from common.messages.base import Refusal
from common.messages.refusals import Code
from common.names import quoted
from tracker.core.budgets import Budget
from tracker.core.changes.base import Change
from tracker.core.changes.invitations import InvitationDropped, InvitationMade, InvitationUsed
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    Now,
    SoftEffect,
    nudges,
    owned_group,
    page,
)
from tracker.core.groups import MEMBERSHIP_ENTRIES, admit
from tracker.core.records import Group, Invitation
from tracker.core.state import State
from tracker.core.throttle import network_of

UNKNOWN = Refused(
    Code.NO_INVITATION,
    "no such invitation: it has expired or was revoked, or the link is damaged",
    hint(
        "ask the owner of the group for a new one; if you joined before, you are in it still",
        "list-groups",
    ),
)
"""One text for all reasons: a stranger learns nothing of the group."""


@dataclass(frozen=True, slots=True)
class Found:
    """An invitation that counts, or counted until it was used up, and its group."""

    key: bytes
    group: Group
    invitation: Invitation

    @property
    def is_used_up(self) -> bool:
        return self.invitation.used >= self.invitation.uses


# -- for owners ---------------------------------------------------------------------------------


def invite(context: Context, user: UserId, command: tracker.Invite, now: Now) -> Decision:
    """Make an invitation. A repetition with the same hash finds the first one."""
    state = context.state
    group = owned_group(state, user, command.group)
    known = group.invitations.get(command.key)
    if known is not None:
        return Decision(tracker.Invited(_row(command.key, known), context.identity.endpoint))
    if command.key in state.invited_by:
        raise Refused(Code.TAKEN, "this invitation exists already", "make another one")
    made = InvitationMade(
        group.id,
        command.key,
        user,
        now.wall_ms,
        now.wall_ms + command.life_s * 1000,
        command.uses,
    )
    changes = (*_place(group, now), made)
    row = _row(command.key, Invitation(user, made.at_ms, made.expires_ms, made.uses))
    return Decision(tracker.Invited(row, context.identity.endpoint), changes)


def _place(group: Group, now: Now) -> list[Change]:
    """Return the changes that make place for one more. Raise `Refused` if too many are open."""
    closed = [key for key, each in group.invitations.items() if not _is_open(each, now)]
    count = len(group.invitations) - len(closed)
    if count >= limits.INVITATIONS_OPEN_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(group.id)} has {count} open invitations, the most allowed",
            hint("revoke one that is not needed", "revoke-invite", group.id, "ID"),
        )
    many = len(group.invitations) + 1 - limits.INVITATIONS_KEPT_MAX
    return [InvitationDropped(group.id, key) for key in closed[: max(0, many)]]


def _is_open(invitation: Invitation, now: Now) -> bool:
    return invitation.used < invitation.uses and invitation.expires_ms > now.wall_ms


def list_invitations(
    context: Context, user: UserId, command: tracker.ListInvitations, now: Now
) -> Decision:
    """List the open invitations of a group, and those that are used up; for the owner."""
    group = owned_group(context.state, user, command.group)
    rows = {
        id_of(key): _row(key, each)
        for key, each in group.invitations.items()
        if each.expires_ms > now.wall_ms
    }
    names, more = page(sorted(rows), command.after)
    return Decision(tracker.InvitationRows([rows[name] for name in names], more))


def _row(key: bytes, each: Invitation) -> tracker.InvitationRow:
    return tracker.InvitationRow(
        id_of(key), each.user, each.at_ms, each.expires_ms, each.uses, each.used
    )


def revoke_invitation(
    context: Context, user: UserId, command: tracker.RevokeInvitation
) -> Decision:
    """End an invitation; for the owner."""
    group = owned_group(context.state, user, command.group)
    typed = command.id.lower()
    key = next((key for key in group.invitations if id_of(key) == typed), None)
    if key is None:
        raise Refused(
            Code.NO_INVITATION,
            f"{quoted(group.id)} has no invitation {quoted(command.id)}",
            hint("see the invitations", "list-invites", group.id),
        )
    return Decision(tracker.Done(), (InvitationDropped(group.id, key),))


# -- for those who have one ---------------------------------------------------------------------


def find(state: State, proof: bytes, now: Now) -> Found:
    """Return the invitation of ``proof``. Raise `Refused` unless it counts.

    Why no look-up by the proof: the hash of a guess lies anywhere, so the time that the look-up
    takes tells nothing of a kept hash; the comparison takes the same time for all.
    """
    return known(state, key_of(proof), now)


def known(state: State, key: bytes, now: Now) -> Found:
    """Return the invitation with that hash. Raise `Refused` unless it counts."""
    group_id = state.invited_by.get(key)
    if group_id is None:
        raise UNKNOWN
    group = state.groups[group_id]
    kept = next(each for each in group.invitations if hmac.compare_digest(each, key))
    invitation = group.invitations[kept]
    is_owner = group.owner == invitation.user and not state.is_disabled(group.owner)
    if invitation.expires_ms <= now.wall_ms or not is_owner:
        raise UNKNOWN
    return Found(kept, group, invitation)


def tried_in_vain(context: Context, caller: Caller, refused: Refused, now: Now) -> Decision:
    """Refuse, and charge the attempt to the budgets of the device and its network."""
    spent = context.state.budgets.try_invitation(
        caller.device, network_of(caller.address), now.wall_ms
    )
    return Decision(Refusal(refused.code, refused.message, refused.hint), spent)


def check_budget(context: Context, caller: Caller, now: Now) -> None:
    """Raise `Refused` while the device or its network may not try an invitation."""
    context.state.budgets.try_invitation(caller.device, network_of(caller.address), now.wall_ms)


def redeem(
    context: Context, user: UserId, caller: Caller, command: tracker.Redeem, now: Now
) -> Decision:
    """Make the caller a member."""
    check_budget(context, caller, now)
    try:
        found = find(context.state, command.proof, now)
        changes, effects = redeemed(context, found, user, now)
    except Refused as error:
        if error.code is not Code.NO_INVITATION:
            raise
        return tried_in_vain(context, caller, error, now)
    reply = tracker.Redeemed(found.group.id, user, found.invitation.user)
    return Decision(reply, changes, effects)


def redeemed(
    context: Context, found: Found, user: UserId, now: Now
) -> tuple[tuple[Change, ...], tuple[SoftEffect, ...]]:
    """Return what redeeming ``found`` as ``user`` does; nothing for a member.

    Raise `Refused` if it is used up, and at a limit.
    """
    state, group = context.state, found.group
    if user in group.members:
        return (), ()
    check_unused(found)
    spent = state.budgets.spend(Budget.ENTRIES, user, MEMBERSHIP_ENTRIES, now.wall_ms)
    admitted = admit(context, group, events.Joined(user, found.invitation.user), now)
    changes = (InvitationUsed(group.id, found.key), *admitted, spent)
    return changes, (*nudges(state, user), *nudges(state, group.owner))


def check_unused(found: Found) -> None:
    """Raise `Refused` if the invitation is used up."""
    if found.is_used_up:
        raise Refused(
            Code.NO_INVITATION,
            "the invitation is used up",
            "ask the owner of the group for a new one",
        )
