"""Replication of groups to their members: event keys, logs, and the devices of the members.

Owns: the decisions on `Follow`, `GetDevices` and `EventsSince`, by which a peer keeps its replica
(see peer.tracker_client.group_replica). Not here: the publication of new entries (see
tracker.core.outbox).
"""

from __future__ import annotations

import bisect

from common import limits
from common.errors import Refused
from common.ids import UserId
from common.messages import tracker
from common.messages.refusals import Code
from tracker.core.context import Caller, Decision, Now, ReadLog, group_of
from tracker.core.records import Group
from tracker.core.state import State


def follow(state: State, user: UserId, caller: Caller, now: Now) -> Decision:
    """Return all groups of the caller, with the keys of their events."""
    groups = list(state.groups_with(user))
    states = [_group_state(group, now) for group in groups]
    pending = sorted(state.requests_of.get(user, ()))
    owned = [group for group in groups if group.owner == user and group.requests]
    requests: list[tuple[str, int]] = [(group.id, len(group.requests)) for group in owned]
    followed: list[str] = [group.id for group in groups if caller.device in group.follows]
    return Decision(tracker.Following(states, now.wall_ms, list(pending), requests, followed))


def _group_state(group: Group, now: Now) -> tracker.GroupState:
    return tracker.GroupState(
        group=group.id,
        owner=group.owner,
        epoch=group.epoch,
        topic=group.topic,
        key=group.key,
        seq=group.seq,
        revoked=[
            (user, revocation.epoch)
            for user, revocation in group.revoked.items()
            if may_matter(revocation.at_ms, now)
        ],
    )


def may_matter(revoked_ms: int, now: Now) -> bool:
    """Whether a ticket from before a revocation may not have expired yet."""
    return now.wall_ms - revoked_ms <= (limits.TICKET_LIFE_S + limits.CLOCK_SKEW_S) * 1000


def get_devices(state: State, user: UserId, command: tracker.GetDevices) -> Decision:
    """List the devices that a serving peer of the group lets in."""
    group = group_of(state, user, command.group)
    rows = state.device_rows(group)
    try:
        after = bytes.fromhex(command.after)
    except ValueError:
        raise Refused(Code.USAGE, "invalid page cursor") from None
    start = bisect.bisect_right(rows, after, key=lambda row: row.device) if after else 0
    end = start + tracker.PAGE_ROWS
    return Decision(tracker.DeviceRows(rows[start:end], group.seq, end < len(rows)))


def events_since(state: State, user: UserId, command: tracker.EventsSince, now: Now) -> Decision:
    """Return the log after ``seq``, without entries from before the caller joined."""
    group = group_of(state, user, command.group)
    after = max(command.seq, group.members[user].seq - 1)
    if after >= group.seq:
        return Decision(tracker.Events([], group.seq))
    return Decision(deferred=ReadLog(group.id, after, group.seq, _group_state(group, now)))
