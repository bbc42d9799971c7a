"""Announcements of devices: where one is online, what it fetches, and whether it is reachable.

Owns: the decisions on `Announce`, `Depart` and `ProbeMe`. Not here: leases (see
tracker.core.presence) and the connection of a probe (see tracker.service.probing).
"""

from __future__ import annotations

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
    ReleaseLease,
    RenewLease,
    TrackerIdentity,
)


def announce(
    context: Context, user: UserId, caller: Caller, command: tracker.Announce, now: Now
) -> Decision:
    """Renew the lease of a device. Leeching in groups that the caller is not in is ignored."""
    check_alone(context, caller.device, command.instance, now)
    endpoint = reachable(context.identity, command.endpoint, caller.address)
    mine = set(context.state.groups_of.get(user, ()))
    leeching = tuple(
        (group, ContentId(row.content), row.held)
        for row in command.leeching
        if (group := GroupId(fold_id(row.group))) in mine
        and row.content in context.state.groups[group].names_of
    )
    heads = [
        tracker.Head(group.id, group.seq, group.epoch) for group in context.state.groups_with(user)
    ]
    elsewhere = context.fellows.wants_fewer()
    rates = (command.received_bytes_per_s, command.sent_bytes_per_s)
    renewed = RenewLease(
        caller.device, user, endpoint, leeching, command.instance, rates, elsewhere
    )
    return Decision(
        tracker.Announced(limits.LEASE_S, now.wall_ms, heads, elsewhere), effects=(renewed,)
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
