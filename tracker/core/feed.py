"""Feed of a peer: presence, tickets, event keys, devices of its groups, and their logs.

Owns: the decisions on `Announce`, `Depart`, `GetTickets`, `Follow`, `GetDevices`, `EventsSince` and
`ProbeMe`. Not here: leases (see tracker.core.presence) and the signing of tickets (see
tracker.service.ticket_signer).
"""

from __future__ import annotations

import bisect
import ipaddress

from common import limits
from common.errors import ConfigError, Refused
from common.hints import hint
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.link import check_source, host_of
from common.messages import tracker
from common.messages.refusals import Code
from common.names import fold_id, quoted
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    Now,
    ProbeDevice,
    ReadLog,
    ReleaseLease,
    RenewLease,
    SignTickets,
    TrackerIdentity,
    find_group,
    group_of,
    refuse_group,
)
from tracker.core.records import Group
from tracker.core.state import State

# -- presence -----------------------------------------------------------------------------------


def announce(
    context: Context, user: UserId, caller: Caller, command: tracker.Announce, now: Now
) -> Decision:
    """Renew the lease of a device. Leeching in groups that the caller is not in is ignored."""
    check_alone(context, caller.device, command.instance, now)
    endpoint = reachable(context.identity, command.endpoint, caller.address)
    mine = context.state.groups_of.get(user, {})
    leeching = tuple(
        (group, ContentId(row.content), row.held)
        for row in command.leeching
        if (group := GroupId(fold_id(row.group))) in mine
        and row.content in context.state.groups[group].names_of
    )
    heads = [
        tracker.Head(group.id, group.seq, group.epoch) for group in context.state.groups_with(user)
    ]
    return Decision(
        tracker.Announced(limits.LEASE_S, now.wall_ms, heads),
        effects=(RenewLease(caller.device, user, endpoint, leeching, command.instance),),
    )


def check_alone(context: Context, device: DeviceKey, instance: bytes, now: Now) -> None:
    """Raise `Refused` while another machine with the same device key is online."""
    lease = context.presence.leases.get(device)
    if lease is None or lease.ends_at <= now.mono_s:
        return
    if instance and lease.instance and instance != lease.instance:
        raise Refused(
            Code.KEY_IN_USE,
            f"a peer with this device key is online at {lease.endpoint}",
            hint(
                "if this machine is a copy of that one, give it its own key",
                "up",
                options=("--new-device-key",),
            ),
        )


def reachable(identity: TrackerIdentity, endpoint: str, address: str) -> str:
    """Return ``endpoint`` as other peers can connect to it. Raise `Refused` if they cannot."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if endpoint.startswith("tcp://") and host == "*":
        endpoint = f"tcp://{_host(address)}:{port}"
    try:
        check_source(endpoint)
    except ConfigError as error:
        raise Refused(Code.USAGE, error.message, error.hint) from error
    if endpoint.startswith("ipc://") and not identity.ipc:
        raise Refused(
            Code.USAGE,
            f"others cannot reach {quoted(endpoint)}: this tracker's peers are on many machines",
            "let the peer listen at tcp://HOST:PORT",
        )
    return endpoint


def probe_me(context: Context, user: UserId, caller: Caller) -> Decision:
    """Test whether the caller's device can be reached. Raise `Refused` if it is offline.

    Invariant: the tracker connects only to the endpoint that the device announced. It connects to
    its own machine, or on its own link, only for a device that is there.
    """
    lease = context.presence.leases.get(caller.device)
    if lease is None or lease.user != user:
        raise Refused(Code.USAGE, "this device has announced no address yet", "try again in 10 s")
    if not _may_probe(lease.endpoint, caller.address):
        return Decision(tracker.Probed(lease.endpoint, False))
    return Decision(deferred=ProbeDevice(user, caller.device, lease.endpoint))


def _may_probe(endpoint: str, seen_at: str) -> bool:
    if endpoint.startswith("ipc://"):
        return True  # all peers of this tracker are on this machine
    address = ipaddress.ip_address(host_of(endpoint).strip("[]"))
    plain = getattr(address, "ipv4_mapped", None) or address
    if not (plain.is_loopback or plain.is_link_local):
        return True
    return str(plain) == seen_at.partition("%")[0] or (plain.is_loopback and _is_local(seen_at))


def _is_local(address: str) -> bool:
    """Whether ``address`` is on the tracker's own machine; an empty one is, by ipc."""
    return not address or ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _host(address: str) -> str:
    """Return ``address`` as it is written in an endpoint; an empty one is this machine, by ipc."""
    if not address:
        return "127.0.0.1"
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip.version == 6:
        return str(ip.ipv4_mapped) if ip.ipv4_mapped else f"[{ip}]"
    return str(ip)


def depart(caller: Caller) -> Decision:
    """Release the lease of a device."""
    return Decision(tracker.Done(), effects=(ReleaseLease(caller.device),))


# -- tickets and logs ---------------------------------------------------------------------------


def get_tickets(state: State, user: UserId, command: tracker.GetTickets) -> Decision:
    """Issue tickets for some or all of the caller's groups.

    Groups that the caller is not in are ignored unless none remains: the caller may have left one a
    moment ago.
    """
    if command.groups:
        asked = [find_group(state, text) for text in command.groups]
        groups = {g.id: g for g in asked if g is not None and user in g.members}
        if not groups:
            refuse_group(command.groups[0])
    else:
        groups = {group.id: group for group in state.groups_with(user)}
    return Decision(deferred=SignTickets(user, tuple((g.id, g.epoch) for g in groups.values())))


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
