"""Overview for the operator: devices, members of a group, and the swarms of all shares, in pages.

Owns: what the rows say, and the bounds of a page. Not here: changes (see tracker.core.operator).

Limits: each page takes some milliseconds, because commands of devices wait for it. A reader that
wants all rows asks for one page after the other.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias, assert_never

from common.errors import Refused
from common.hints import tracker_hint
from common.ids import DeviceKey, GroupId, UserId
from common.messages.operator import (
    ROWS_MAX,
    DeviceRow,
    Devices,
    FetchRow,
    MemberRow,
    Members,
    SwarmCursor,
    SwarmRow,
    Swarms,
)
from common.messages.refusals import Code
from common.names import quoted
from common.units import rfc3339
from tracker.core.context import Context, Decision, Now, find_group, page
from tracker.core.devices import last_seen_ms
from tracker.core.records import Group
from tracker.core.share_names import NameId, ShareId

SWARM_ROWS = 500  # in one answer, …
GROUPS_PASSED = 1_000  # … and groups, most of which may have no share
FETCHING_ROWS = 20  # devices that fetch one share


@dataclass(frozen=True, slots=True)
class ListDevices:
    """List devices. ``after``: None for the first page; the rest as in the message."""

    after: DeviceKey | None
    text: str = ""
    online: bool = False


@dataclass(frozen=True, slots=True)
class ListMembers:
    group: str


@dataclass(frozen=True, slots=True)
class ListSwarms:
    """List swarms. ``group``, ``share``: the last one looked at; an empty group begins."""

    group: GroupId
    share: ShareId


Command: TypeAlias = ListDevices | ListMembers | ListSwarms


def decide(context: Context, command: Command, now: Now) -> Decision:
    """Answer a question of the operator. Raise `Refused`."""
    match command:
        case ListDevices():
            return _list_devices(context, command, now)
        case ListMembers(group):
            return _list_members(context, group)
        case ListSwarms(group, share):
            return _list_swarms(context, group, share)
        case _:
            assert_never(command)


# -- devices ------------------------------------------------------------------------------------


def _list_devices(context: Context, command: ListDevices, now: Now) -> Decision:
    # One pass and no sort of all devices: other commands wait for this one.
    devices, leases = context.state.devices, context.presence.leases
    after, text = command.after or DeviceKey(b""), command.text.lower()

    def matches(key: DeviceKey) -> bool:
        if text in devices[key] or text in key.hex():
            return True
        lease = leases.get(key)
        return lease is not None and text in lease.endpoint.lower()

    following = (key for key in devices if key > after)
    if command.online:
        following = (key for key in following if key in leases)
    if text:
        following = (key for key in following if matches(key))
    found = heapq.nsmallest(ROWS_MAX + 1, following)
    rows = [_device_row(context, device, now) for device in found[:ROWS_MAX]]
    return Decision(Devices(rows, len(found) > ROWS_MAX))


def _device_row(context: Context, device: DeviceKey, now: Now) -> DeviceRow:
    state = context.state
    user = state.devices[device]
    lease = context.presence.leases.get(device)
    seen_ms = None if lease is not None else last_seen_ms(context, user, device, now)
    holding = 0 if lease is None else sum(source.complete for source in lease.swarms.values())
    received, sent = (0, 0) if lease is None else lease.rates
    return DeviceRow(
        key=device.hex(),
        user=user,
        disabled=state.is_disabled(user),
        online=lease is not None,
        address=None if lease is None else lease.endpoint,
        since=rfc3339(state.bindings[device].at_ms),
        seen=None if seen_ms is None else rfc3339(seen_ms),
        fetching=0 if lease is None else len(lease.swarms) - holding,
        holding=holding,
        received_bytes_per_s=received,
        sent_bytes_per_s=sent,
    )


# -- groups -------------------------------------------------------------------------------------


def _list_members(context: Context, text: str) -> Decision:
    state = context.state
    group = find_group(state, text)
    if group is None:
        raise Refused(
            Code.UNKNOWN_GROUP,
            f"there is no group {quoted(text)}",
            tracker_hint("see the groups", "list-groups"),
        )

    def row(user: UserId, role: str, at_ms: int) -> MemberRow:
        devices = state.devices_of.get(user, ())
        return MemberRow(
            user=user,
            role=role,
            since=rfc3339(at_ms),
            devices=len(devices),
            online=context.presence.online(state, user),
            follows=sum(device in group.follows for device in devices),
        )

    asking = [row(user, "pending", at_ms) for user, at_ms in group.requests.items()]
    members = [
        row(user, "owner" if user == group.owner else "member", member.at_ms)
        for user, member in group.members.items()
    ]
    return Decision(Members([*asking, *members]))


# -- swarms -------------------------------------------------------------------------------------


def _list_swarms(context: Context, after: GroupId, share: ShareId) -> Decision:
    """List the next shares, in the order of groups, names and versions."""
    state, rows = context.state, list[SwarmRow]()
    group = state.groups.get(after)
    if group is not None:
        ids, more = page(group.share_ids, share, SWARM_ROWS)
        rows += [_swarm_row(context, group, each) for each in ids]
        if more:
            return Decision(Swarms(rows, _cursor(group, ids[-1])))
    names, more_groups = page(state.group_ids, after, GROUPS_PASSED)
    for name in names:
        group = state.groups[name]
        ids, more = page(group.share_ids, _BEGIN, SWARM_ROWS - len(rows))
        rows += [_swarm_row(context, group, each) for each in ids]
        if more:
            return Decision(Swarms(rows, _cursor(group, ids[-1] if ids else _BEGIN)))
    return Decision(Swarms(rows, _cursor(state.groups[names[-1]], _END) if more_groups else None))


_BEGIN = ShareId(NameId(""), 0)
_END = ShareId(NameId("\U0010ffff"), 0)  # no name has that character


def _cursor(group: Group, share: ShareId) -> SwarmCursor:
    return SwarmCursor(group.id, share.name, share.version)


def _swarm_row(context: Context, group: Group, share_id: ShareId) -> SwarmRow:
    share = group.shares[share_id]
    summary = context.state.manifests[share.content]
    swarm = context.presence.swarm((group.id, share.content))
    return SwarmRow(
        group=group.id,
        name=share.name,
        version=share_id.version,
        since=rfc3339(share.at_ms),
        size_bytes=summary.size,
        pieces=summary.pieces,
        holders=len(share.offers),
        seeders=len(swarm.seeders),
        leechers=len(swarm.leechers),
        fetching=[
            FetchRow(source.user, device.hex(), source.held)
            for device, source in islice(swarm.leechers.items(), FETCHING_ROWS)
        ],
    )
