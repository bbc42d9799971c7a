"""Groups: owners, members and join requests.

Owns: the decisions on groups and membership. Not here: shares, and the end of a member's offers
(see tracker.core.offers).
"""

from __future__ import annotations

from common import limits
from common.crypto.event_seal import TOPIC_BYTES
from common.errors import Refused
from common.hints import hint
from common.ids import GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import BadName, new_group_id, quoted, user_id
from tracker.core import offers
from tracker.core.budgets import Budget
from tracker.core.changes.base import Change
from tracker.core.changes.groups import (
    GroupCreated,
    GroupDissolved,
    GroupKeyHanded,
    MemberGone,
    MemberJoined,
    OwnerChanged,
    RequestDropped,
    RequestMade,
)
from tracker.core.context import (
    Context,
    Decision,
    LogAppender,
    Now,
    find_group,
    group_of,
    nudges,
    owned_group,
    page,
)
from tracker.core.records import Group
from tracker.core.state import State

MEMBERSHIP_ENTRIES = 4  # requested, joined, left, new owner: paid for in advance

# -- create, join, leave -------------------------------------------------------------------


def create_group(
    context: Context, user: UserId, command: tracker.CreateGroup, now: Now
) -> Decision:
    """Create a group with ``user`` as its owner and only member."""
    state, group = context.state, new_group_id(command.group)
    check_groups_of(state, user)
    spent = [
        state.budgets.spend(Budget.GROUPS, user, 1, now.wall_ms),
        state.budgets.spend(Budget.ENTRIES, user, MEMBERSHIP_ENTRIES, now.wall_ms),
    ]
    if group in state.groups:
        raise Refused(
            Code.TAKEN,
            f"there is a group {quoted(group)} already",
            hint("choose another name, or ask to join", "join-group", group),
        )
    former = state.tombstones.get(group)
    made = GroupCreated(
        group=group,
        owner=user,
        topic=context.rng.randbytes(TOPIC_BYTES),
        key=context.rng.randbytes(limits.EVENT_KEY_BYTES),
        seq=former.seq if former else 0,
        epoch=former.epoch + 1 if former else 1,
        at_ms=now.wall_ms,
    )
    entries = LogAppender(
        Group(group, user, made.topic, made.key, made.seq, made.epoch, made.at_ms), now
    )
    created = entries.add(events.Created(user))
    joined = MemberJoined(group, user, entries.seq, now.wall_ms)
    return Decision(tracker.Done(), (made, created, joined, *spent), nudges(state, user))


def join_group(context: Context, user: UserId, command: tracker.JoinGroup, now: Now) -> Decision:
    """Send a join request to the owner."""
    state = context.state
    group = find_group(state, command.group)
    if group is None:
        raise Refused(
            Code.UNKNOWN_GROUP,
            f"there is no group {quoted(command.group)}",
            hint("see the groups", "list-groups"),
        )
    if user in group.members:
        raise Refused(Code.ALREADY_MEMBER, f"you are a member of {quoted(group.id)} already")
    if user in group.requests:
        return Decision(tracker.Done())
    check_groups_of(state, user)
    if len(group.requests) >= limits.REQUESTS_PER_GROUP_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(group.id)} has {len(group.requests)} open join requests, the most allowed",
            f"try again when the owner, {quoted(group.owner)}, has answered some",
        )
    if len(state.requests_of.get(user, ())) >= limits.REQUESTS_PER_USER_MAX:
        raise Refused(
            Code.LIMIT,
            f"you have {limits.REQUESTS_PER_USER_MAX} open join requests, the most allowed",
            "wait until some of them are answered",
        )
    wait_s = group.request_buckets.wait_s(user, now.wall_ms / 1000)
    if wait_s > 0:
        # Each request that is withdrawn costs two entries in the log of the group.
        raise Refused(
            Code.SLOW_DOWN,
            f"you have asked to join {quoted(group.id)} too often",
            f"try again in {max(1, round(wait_s))} s",
        )
    spent = state.budgets.spend(Budget.ENTRIES, user, MEMBERSHIP_ENTRIES, now.wall_ms)
    asked = LogAppender(group, now).add(events.Requested(user))
    return Decision(
        tracker.Done(),
        (RequestMade(group.id, user, now.wall_ms), asked, spent),
        nudges(state, group.owner),
    )


def check_groups_of(state: State, user: UserId) -> None:
    """Raise `Refused` if ``user`` is in as many groups as are allowed."""
    if len(state.groups_of.get(user, ())) >= limits.GROUPS_PER_USER_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(user)} is in {limits.GROUPS_PER_USER_MAX} groups, the most allowed",
            "leave one first",
        )


def leave_group(context: Context, user: UserId, command: tracker.LeaveGroup, now: Now) -> Decision:
    """Leave a group; the owner passes it on, the last member dissolves it.

    A user with a join request only withdraws the request.
    """
    state = context.state
    asked = find_group(state, command.group)
    if asked is not None and user in asked.requests:
        entry = LogAppender(asked, now).add(events.Rejected(user))
        changes = (RequestDropped(asked.id, user), entry)
        return Decision(tracker.Done(), changes, nudges(state, asked.owner))
    group = group_of(state, user, command.group)
    if len(group.members) == 1:
        return dissolve(state, group, user, now)
    return remove(context, group, user, events.Left(user, group.epoch + 1), now)


def remove_member(
    context: Context, user: UserId, command: tracker.RemoveMember, now: Now
) -> Decision:
    """Remove another member; for the owner."""
    group = owned_group(context.state, user, command.group)
    other = _user_named(command.user)
    if other == user:
        raise Refused(
            Code.USAGE,
            "the owner cannot be removed",
            hint("leave the group", "leave-group", group.id),
        )
    if other not in group.members:
        raise Refused(
            Code.UNKNOWN_USER,
            f"{quoted(command.user)} is not a member of {quoted(group.id)}",
            hint("see the members", "list-members", group.id),
        )
    return remove(context, group, other, events.Removed(other, group.epoch + 1), now)


def remove(
    context: Context, group: Group, user: UserId, ending: events.Left | events.Removed, now: Now
) -> Decision:
    """Remove one of several members: fresh epoch, end of their offers, a new owner if needed."""
    entries = LogAppender(group, now)
    epoch, key = ending.epoch, context.rng.randbytes(limits.EVENT_KEY_BYTES)
    changes: list[Change] = [
        entries.add(
            ending, epoch=epoch
        ),  # sealed with the old key; members then ask for the new one
        MemberGone(group.id, user, epoch, key, now.wall_ms),
    ]
    entries.rekey(epoch, key)
    hints = nudges(context.state, user)
    if group.owner == user:
        heir = min(
            (m for m in group.members if m != user), key=lambda m: _succession(context, group, m)
        )
        changes += [OwnerChanged(group.id, heir), entries.add(events.Owner(heir))]
        hints += nudges(context.state, heir)  # the requests are the heir's to answer now
    changes += offers.end_offers(group, user, entries, now)
    return Decision(tracker.Done(), tuple(changes), hints)


def _succession(context: Context, group: Group, user: UserId) -> tuple[bool, int]:
    """Return the order in which members follow an owner: the longest first, disabled ones last."""
    return context.state.is_disabled(user), group.members[user].seq


def dissolve(state: State, group: Group, user: UserId, now: Now) -> Decision:
    """Dissolve the group with the members that it has, and delete its log."""
    dissolved = GroupDissolved(group.id, user, group.epoch + 1, now.wall_ms)
    asked = [nudge for other in group.requests for nudge in nudges(state, other)]
    members = [nudge for other in group.members for nudge in nudges(state, other)]
    return Decision(tracker.Done(), (dissolved,), (*members, *asked))


# -- requests ----------------------------------------------------------------------------------


def accept_request(
    context: Context, user: UserId, command: tracker.AcceptRequest, now: Now
) -> Decision:
    """Accept a join request; for the owner."""
    state = context.state
    group = owned_group(state, user, command.group)
    other = _user_named(command.user)
    if other in group.members:
        return Decision(tracker.Done())
    _check_asked(group, other, command.user)
    return Decision(
        tracker.Done(),
        admit(context, group, events.Joined(other), now),
        (*nudges(state, other), *nudges(state, user)),
    )


def admit(context: Context, group: Group, joined: events.Joined, now: Now) -> tuple[Change, ...]:
    """Return the changes that make ``joined.user`` a member, and close the request, if any.

    Raise `Refused` at a limit.
    """
    other = UserId(joined.user)
    if len(group.members) >= limits.MEMBERS_PER_GROUP_MAX:
        raise Refused(
            Code.LIMIT,
            f"{quoted(group.id)} has {limits.MEMBERS_PER_GROUP_MAX} members, the most allowed",
        )
    check_groups_of(context.state, other)
    # Why a fresh key: the current one opens events that were published, and maybe recorded, before.
    # All members get it in one message, so that none needs to ask for it.
    epoch, key = group.epoch + 1, context.rng.randbytes(limits.EVENT_KEY_BYTES)
    entries = LogAppender(group, now)
    changes: list[Change] = [
        GroupKeyHanded(group.id, epoch, key, group.topic, group.key),
        entries.add(joined, epoch=epoch),
        MemberJoined(group.id, other, entries.seq, now.wall_ms),
    ]
    if other in group.requests:
        changes.insert(0, RequestDropped(group.id, other))
    return tuple(changes)


def reject_request(
    context: Context, user: UserId, command: tracker.RejectRequest, now: Now
) -> Decision:
    """Reject a join request; for the owner."""
    group = owned_group(context.state, user, command.group)
    other = _user_named(command.user)
    _check_asked(group, other, command.user)
    entry = LogAppender(group, now).add(events.Rejected(other))
    return Decision(
        tracker.Done(),
        (RequestDropped(group.id, other), entry),
        (*nudges(context.state, other), *nudges(context.state, user)),
    )


def _user_named(text: str) -> UserId:
    try:
        return user_id(text)
    except BadName:
        return UserId(
            text
        )  # no user has this name; the reply is the same as for any other unknown one


def _check_asked(group: Group, other: UserId, typed: str) -> None:
    if other not in group.requests:
        raise Refused(
            Code.UNKNOWN_REQUEST,
            f"{quoted(typed)} has not asked to join {quoted(group.id)}",
            hint("see the requests", "list-requests", group.id),
        )


# -- listings -----------------------------------------------------------------------------------


def list_groups(context: Context, user: UserId, command: tracker.ListGroups) -> Decision:
    """List all groups: name, owner, number of members, and the caller's role."""
    names, more = page(context.state.group_ids, GroupId(command.after))
    rows = [_group_row(context.state.groups[name], user) for name in names]
    return Decision(tracker.GroupRows(rows, more))


def _group_row(group: Group, user: UserId) -> tracker.GroupRow:
    if user in group.members:
        role = "owner" if group.owner == user else "member"
    else:
        role = "pending" if user in group.requests else "none"
    return tracker.GroupRow(group.id, group.owner, len(group.members), role)


def list_requests(context: Context, user: UserId, command: tracker.ListRequests) -> Decision:
    """List the join requests of a group; for the owner."""
    group = owned_group(context.state, user, command.group)
    names, more = page(sorted(group.requests), command.after)
    rows = [
        tracker.UserRow(
            name,
            "pending",
            group.requests[UserId(name)],
            context.presence.online(context.state, UserId(name)),
        )
        for name in names
    ]
    return Decision(tracker.UserRows(rows, more))


def list_members(context: Context, user: UserId, command: tracker.ListMembers) -> Decision:
    """List the members of a group; for its members."""
    group = group_of(context.state, user, command.group)
    names, more = page(sorted(group.members), command.after)
    rows = [_member_row(context, group, UserId(name)) for name in names]
    return Decision(tracker.UserRows(rows, more))


def _member_row(context: Context, group: Group, user: UserId) -> tracker.UserRow:
    return tracker.UserRow(
        user,
        "owner" if group.owner == user else "member",
        group.members[user].at_ms,
        context.presence.online(context.state, user),
        sum(device in group.follows for device in context.state.devices_of.get(user, ())),
    )
