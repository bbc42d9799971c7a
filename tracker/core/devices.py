"""Devices of a user: listing, logout, and what is kept of when each was last seen.

Owns: the decisions on `Logout`, `ListDevices` and `ForgetDevice`; log entries about devices; rekeys
after a device was unbound. Not here: login (see tracker.core.accounts).
"""

from __future__ import annotations

import bisect

from common import limits
from common.errors import Refused
from common.hints import hint
from common.ids import DeviceKey, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from tracker.core.changes.accounts import DeviceSeen, DeviceUnbound
from tracker.core.changes.base import Change
from tracker.core.changes.groups import GroupRekeyed, RekeyPending
from tracker.core.context import (
    Caller,
    Context,
    Decision,
    LogAppender,
    Now,
    Nudge,
    ReleaseLease,
    SoftEffect,
    user_of,
)
from tracker.core.offers import end_offers
from tracker.core.records import Binding, Group
from tracker.core.state import State


def logout(context: Context, caller: Caller, now: Now) -> Decision:
    """Unbind the device. Its offers stay on record and count again after its next login."""
    user = user_of(context.state, caller)
    changes = unbind(context, user, [caller.device], now, {})
    return Decision(tracker.Done(), tuple(changes), (ReleaseLease(caller.device),))


def forget_device(
    context: Context, user: UserId, caller: Caller, command: tracker.ForgetDevice, now: Now
) -> Decision:
    """Unbind another device of the same user and end its offers: it may never come back.

    Another user's device and one that does not exist are refused with the same text.
    """
    device = DeviceKey(command.device)
    if device == caller.device:
        return logout(context, caller, now)
    if context.state.devices.get(device) != user:
        raise Refused(
            Code.UNKNOWN_DEVICE,
            "you are not logged in on any such device",
            hint("see where you are logged in", "list-devices"),
        )
    appenders: dict[str, LogAppender] = {}
    changes, effects = unbind_others(context, user, [device], now, appenders)
    left: list[Change] = []
    offered = context.state.offers_of.get((user, device), ())
    for group in dict.fromkeys(share.group for share in offered):
        left += end_offers(context.state.groups[group], user, appenders[group], now, device)
    return Decision(tracker.Done(), (*changes, *left), effects)


def unbind_others(
    context: Context,
    user: UserId,
    devices: list[DeviceKey],
    now: Now,
    appenders: dict[str, LogAppender],
) -> tuple[tuple[Change, ...], tuple[SoftEffect, ...]]:
    """Unbind other ``devices`` of ``user``. ``appenders`` as for `log_device`."""
    changes = unbind(context, user, devices, now, appenders)
    # A nudge makes each of them refresh its groups, and find that it has none.
    effects = [effect for device in devices for effect in (ReleaseLease(device), Nudge(device))]
    return tuple(changes), tuple(effects)


def list_devices(
    context: Context, user: UserId, caller: Caller, command: tracker.ListDevices, now: Now
) -> Decision:
    """List the devices of the caller."""
    try:
        after = bytes.fromhex(command.after)
    except ValueError:
        raise Refused(Code.USAGE, "invalid page cursor") from None
    devices, bindings = sorted(context.state.devices_of.get(user, ())), context.state.bindings
    start = bisect.bisect_right(devices, after) if after else 0
    end = start + tracker.PAGE_ROWS
    rows = [_row(context, device, bindings[device], caller, now) for device in devices[start:end]]
    return Decision(tracker.OwnDevices(rows, end < len(devices)))


def _row(
    context: Context, device: DeviceKey, binding: Binding, caller: Caller, now: Now
) -> tracker.OwnDevice:
    lease = context.presence.leases.get(device)
    seen_ms = now.wall_ms if device == caller.device else _seen_ms(context, device, now)
    return tracker.OwnDevice(
        device=device,
        bound_ms=binding.at_ms,
        seen_ms=binding.seen_ms if seen_ms is None else max(seen_ms, binding.at_ms),
        online=lease is not None,
        endpoint=lease.endpoint if lease else None,
    )


def _seen_ms(context: Context, device: DeviceKey, now: Now) -> int | None:
    """Return when ``device`` was last heard of: now if it is online at another tracker."""
    lease = context.presence.leases.get(device)
    if lease is not None and lease.at:
        return now.wall_ms
    heard_at = context.presence.heard_at.get(device)
    return None if heard_at is None else now.wall_ms - round((now.mono_s - heard_at) * 1000)


def last_seen_ms(context: Context, user: UserId, device: DeviceKey, now: Now) -> int | None:
    """Return when ``device`` was last seen; None if ``user`` is not logged in on it."""
    if context.state.devices.get(device) != user:
        return None
    binding = context.state.bindings[device]
    heard_ms = _seen_ms(context, device, now)
    return binding.seen_ms if heard_ms is None else max(heard_ms, binding.at_ms)


def seen_marks(context: Context, now: Now, *, ending: bool = False) -> list[Change]:
    """Return the times at which devices were last seen, where they should become durable.

    These are the end of each presence, and during a long one a mark every ``limits.SEEN_MARK_S``,
    in case this process is killed. ``ending``: it ends in order, which is a mark for each.
    """
    every_ms = 0 if ending else limits.SEEN_MARK_S * 1000
    changes: list[Change] = []
    for device in context.presence.heard_at:
        user = context.state.devices.get(device)
        seen_ms = _seen_ms(context, device, now)
        if user is None or seen_ms is None:
            continue
        known_ms = context.state.bindings[device].seen_ms
        online = device in context.presence.leases
        if not online or seen_ms - known_ms > every_ms:
            changes.append(DeviceSeen(device, max(0, seen_ms)))
    return changes


# -- log entries and rekeys ---------------------------------------------------------------------


def unbind(
    context: Context,
    user: UserId,
    devices: list[DeviceKey],
    now: Now,
    appenders: dict[str, LogAppender],
) -> list[Change]:
    """Unbind ``devices`` of ``user`` and rekey their groups. ``appenders`` as for `log_device`.

    Why rekey: these devices, and any copy of their keys, can open the groups' events.
    Limits: every member has to ask for a fresh key, so a group is rekeyed at most
    ``limits.REKEYS_MAX`` times in ``limits.REKEYS_S``. Later rekeys wait for `rekey_pending`.
    """
    unbound: list[Change] = [DeviceUnbound(device) for device in devices]
    return unbound + shut_out(context, user, devices, now, appenders)


def shut_out(
    context: Context,
    user: UserId,
    devices: list[DeviceKey],
    now: Now,
    appenders: dict[str, LogAppender],
) -> list[Change]:
    """Log that ``devices`` left the groups of ``user``, and rekey these; as in `unbind`."""
    changes: list[Change] = []
    for group in context.state.groups_with(user) if devices else ():
        entries = appenders.setdefault(group.id, LogAppender(group, now))
        fresh = _rekey(context, group, now) if _may_rekey(group, now) else None
        for device in devices:
            # Sealed with the old key: the last of them tells members to ask for the new one.
            begun = fresh.epoch if fresh and device == devices[-1] else None
            changes.append(entries.add(events.Device(user, device, False), epoch=begun))
        if fresh is not None:
            changes.append(fresh)
            entries.rekey(fresh.epoch, fresh.key)
        elif not group.rekey_pending:
            changes.append(RekeyPending(group.id))
    return changes


def rekey_pending(context: Context, now: Now) -> list[Change]:
    """Rekey the groups whose rekey had to wait.

    Members learn the epoch from the next entry, or from the heads in `Announced`.
    """
    return [
        _rekey(context, group, now)
        for group in context.state.groups.values()
        if group.rekey_pending and _may_rekey(group, now)
    ]


def _may_rekey(group: Group, now: Now) -> bool:
    if len(group.rekeyed_ms) < limits.REKEYS_MAX:
        return True
    # A wall clock that was set back does not delay rekeys until it has caught up.
    return not 0 <= now.wall_ms - group.rekeyed_ms[0] < limits.REKEYS_S * 1000


def _rekey(context: Context, group: Group, now: Now) -> GroupRekeyed:
    key = context.rng.randbytes(limits.EVENT_KEY_BYTES)
    return GroupRekeyed(group.id, group.epoch + 1, key, now.wall_ms)


def log_device(
    state: State,
    user: UserId,
    device: DeviceKey,
    bound: bool,
    now: Now,
    appenders: dict[str, LogAppender],
) -> list[Change]:
    """Return an entry for each group of ``user``.

    ``appenders`` numbers the entries of a group that two users of one decision share.
    """
    changes: list[Change] = []
    for group in state.groups_with(user):
        entries = appenders.setdefault(group.id, LogAppender(group, now))
        changes.append(entries.add(events.Device(user, device, bound)))
    return changes
