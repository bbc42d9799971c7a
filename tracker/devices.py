"""Which devices act for a user, and how they cease to.

Decides `Logout`, `ListDevices` and `ForgetDevice`, what the groups are told of devices that come
and go, and which of what presence knows is kept. How a device comes to act for somebody is
``tracker.accounts``' business.
"""

from __future__ import annotations

import bisect

from common import limits
from common.errors import Refused
from common.hints import hint
from common.ids import DeviceKey, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from tracker.catalogue import withdraw
from tracker.changes import Change, DeviceSeen, DeviceUnbound, GroupRekeyed, KeyOwed
from tracker.decision import (
    Actor,
    Decision,
    Entries,
    Notice,
    Now,
    Nudge,
    Offline,
    World,
    user_of,
)
from tracker.records import Binding, Group
from tracker.state import State


def logout(world: World, actor: Actor, now: Now) -> Decision:
    """Unbind the device. What it offers stays on record and counts again after the next login."""
    user = user_of(world.state, actor)
    changes = unbind(world, user, [actor.device], now, {})
    return Decision(tracker.Done(), tuple(changes), (Offline(actor.device),))


def forget_device(
    world: World, user: UserId, actor: Actor, command: tracker.ForgetDevice, now: Now
) -> Decision:
    """Unbind a device of the same user from elsewhere, and end what it offers: it may never come
    back. One of somebody else's, and none at all, are refused in the same words."""
    device = DeviceKey(command.device)
    if device == actor.device:
        return logout(world, actor, now)
    if world.state.devices.get(device) != user:
        raise Refused(
            Code.UNKNOWN_DEVICE,
            "you are not logged in on any such device",
            hint("see where you are logged in", "list-devices"),
        )
    seen: dict[str, Entries] = {}
    changes, notices = shut_out(world, user, [device], now, seen)
    left: list[Change] = []
    for group in dict.fromkeys(at for at, _ in world.state.offers_of.get((user, device), ())):
        left += withdraw(world.state.groups[group], user, seen[group], now, device)
    return Decision(tracker.Done(), (*changes, *left), notices)


def shut_out(
    world: World, user: UserId, devices: list[DeviceKey], now: Now, seen: dict[str, Entries]
) -> tuple[tuple[Change, ...], tuple[Notice, ...]]:
    """Unbind ``devices`` of ``user`` from elsewhere. ``seen`` as for `tell`."""
    changes = unbind(world, user, devices, now, seen)
    # A nudge has each of them look at its groups, and find that it has none.
    notices = [notice for device in devices for notice in (Offline(device), Nudge(device))]
    return tuple(changes), tuple(notices)


def list_devices(
    world: World, user: UserId, actor: Actor, command: tracker.ListDevices, now: Now
) -> Decision:
    """Where ``user`` is logged in; for themself alone."""
    try:
        after = bytes.fromhex(command.after)
    except ValueError:
        raise Refused(Code.USAGE, "the page begins after something that is no key") from None
    bindings = world.state.devices_of.get(user, {})
    devices = sorted(bindings)
    start = bisect.bisect_right(devices, after) if after else 0
    end = start + tracker.PAGE_ROWS
    rows = [_row(world, device, bindings[device], actor, now) for device in devices[start:end]]
    return Decision(tracker.OwnDevices(rows, end < len(devices)))


def _row(
    world: World, device: DeviceKey, binding: Binding, actor: Actor, now: Now
) -> tracker.OwnDevice:
    lease = world.presence.leases.get(device)
    seen_ms = now.wall_ms if device == actor.device else _seen_ms(world, device, now)
    return tracker.OwnDevice(
        device=device,
        bound_ms=binding.at_ms,
        seen_ms=binding.seen_ms if seen_ms is None else max(seen_ms, binding.at_ms),
        online=lease is not None,
        endpoint=lease.endpoint if lease else None,
    )


def _seen_ms(world: World, device: DeviceKey, now: Now) -> int | None:
    """When this process last heard of ``device``, if it did."""
    heard_at = world.presence.heard_at.get(device)
    return None if heard_at is None else now.wall_ms - round((now.mono_s - heard_at) * 1000)


def marks(world: World, now: Now) -> list[Change]:
    """What is worth writing down of who was seen when: the end of each presence, and for a long
    one a mark once in a while, in case that this process ends before it does."""
    changes: list[Change] = []
    for device in world.presence.heard_at:
        user = world.state.devices.get(device)
        seen_ms = _seen_ms(world, device, now)
        if user is None or seen_ms is None:
            continue
        known_ms = world.state.devices_of[user][device].seen_ms
        online = device in world.presence.leases
        if not online or seen_ms - known_ms > limits.SEEN_MARK_S * 1000:
            changes.append(DeviceSeen(device, max(0, seen_ms)))
    return changes


# -- what the groups are told -------------------------------------------------------------------


def unbind(
    world: World, user: UserId, devices: list[DeviceKey], now: Now, seen: dict[str, Entries]
) -> list[Change]:
    """``devices`` act for ``user`` no more. ``seen`` as for `tell`.

    They know the keys to the groups' events, and so does who has a copy of a device's key: each
    group goes on in a fresh epoch. As every member has to ask for its key then, one group does so a
    few times a minute at the most, and what came too soon after that waits for `rekey_stale`.
    """
    changes: list[Change] = [DeviceUnbound(device) for device in devices]
    for group in world.state.groups_with(user) if devices else ():
        entries = seen.setdefault(group.id, Entries(group, now))
        fresh = _rekey(world, group, now) if _may_rekey(group, now) else None
        for device in devices:
            # Under the old key: by the last of them members learn to ask for the new one.
            begun = fresh.epoch if fresh and device == devices[-1] else None
            changes.append(entries.add(events.Device(user, device, False), epoch=begun))
        if fresh is not None:
            changes.append(fresh)
            entries.rekey(fresh.epoch, fresh.key)
        elif not group.stale:
            changes.append(KeyOwed(group.id))
    return changes


def rekey_stale(world: World, now: Now) -> list[Change]:
    """Fresh keys where they had to wait. Members hear of the epoch with what is said next, and with
    the heads that a renewal of their lease tells."""
    return [
        _rekey(world, group, now)
        for group in world.state.groups.values()
        if group.stale and _may_rekey(group, now)
    ]


def _may_rekey(group: Group, now: Now) -> bool:
    if len(group.rekeyed_ms) < limits.REKEYS_MAX:
        return True
    # A wall clock that was set back keeps nobody waiting until it is where it was.
    return not 0 <= now.wall_ms - group.rekeyed_ms[0] < limits.REKEYS_S * 1000


def _rekey(world: World, group: Group, now: Now) -> GroupRekeyed:
    key = world.rng.randbytes(limits.EVENT_KEY_BYTES)
    return GroupRekeyed(group.id, group.epoch + 1, key, now.wall_ms)


def tell(
    state: State,
    user: UserId,
    device: DeviceKey,
    bound: bool,
    now: Now,
    seen: dict[str, Entries],
) -> list[Change]:
    """An entry for each group of ``user``. ``seen`` goes on counting where two users share one."""
    changes: list[Change] = []
    for group in state.groups_with(user):
        entries = seen.setdefault(group.id, Entries(group, now))
        changes.append(entries.add(events.Device(user, device, bound)))
    return changes
