"""Followers of a group, and the devices that hold, fetch or follow a version of a share.

Owns: the decisions on `SetFollow` and `WhoHas`. Not here: which devices are online (see
tracker.core.presence), and which shares a follower fetches (its peer decides that).

A device *holds* a version while it offers it: a peer offers nothing that it has not verified. The
offer of an offline device counts on: its copy is on its disk.
"""

from __future__ import annotations

import msgspec

from common.errors import Refused
from common.globs import check_globs
from common.ids import DeviceKey, UserId
from common.messages import tracker
from common.messages.refusals import Code
from common.messages.tracker import HolderRow, HolderState
from common.names import BadName
from tracker.core.changes.follows import FollowEnded, FollowSet
from tracker.core.context import Caller, Context, Decision, Now, group_of
from tracker.core.devices import last_seen_ms
from tracker.core.records import FollowRecord, Group, Share
from tracker.core.shares import row_of
from tracker.core.versions import find_version


def set_follow(
    context: Context, user: UserId, caller: Caller, command: tracker.SetFollow, now: Now
) -> Decision:
    """Begin or end the follow of the caller's device. A repetition changes nothing."""
    group = group_of(context.state, user, command.group)
    known = group.follows.get(caller.device)
    if not command.on:
        ended = () if known is None else (FollowEnded(group.id, caller.device),)
        return Decision(tracker.Done(), ended)
    try:
        globs = check_globs(command.globs)
    except BadName as error:
        raise Refused(Code.USAGE, error.message) from error
    if known is not None and known.globs == globs:
        return Decision(tracker.Done())
    since_ms = now.wall_ms if known is None else known.at_ms
    return Decision(tracker.Done(), (FollowSet(group.id, user, caller.device, globs, since_ms),))


def who_has(context: Context, user: UserId, command: tracker.WhoHas, now: Now) -> Decision:
    """List the holders, leechers and followers of a version, sorted by device.

    Followers are listed for the current version alone: they fetch no other one.
    Limits: a page takes one pass over the devices, some 8 ms for 10,000.
    """
    group = group_of(context.state, user, command.group)
    share_id, share = find_version(group, command.name, command.version)
    after = _cursor(command.after)
    leechers = context.presence.swarm((group.id, share.content)).leechers
    devices = {device for _, device in share.offers}
    # Presence is behind a logout that is not committed yet.
    users = context.state.devices
    devices |= {device for device, found in leechers.items() if users.get(device) == found.user}
    if share_id.version == group.names.by_id[share_id.name].current:
        devices |= group.follows.keys()
    listed = sorted(device for device in devices if device > after)
    more = len(listed) > tracker.PAGE_ROWS
    lister = _Lister(context, group, share, now)
    rows = [lister.row(device) for device in listed[: tracker.PAGE_ROWS]]
    return Decision(tracker.Holders(row_of(context, group, share_id, share), rows, more))


def _cursor(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Refused(Code.USAGE, "invalid page cursor") from None


class _Lister:
    """Rows of one answer. A device has one row: that of its user, or else of a former user."""

    def __init__(self, context: Context, group: Group, share: Share, now: Now) -> None:
        self._context = context
        self._group = group
        self._share = share
        self._now = now
        self._pieces = context.state.manifests[share.content].pieces
        self._former: dict[DeviceKey, UserId] | None = None

    def row(self, device: DeviceKey) -> HolderRow:
        """Return the row of a device that holds, fetches or follows."""
        user = self._context.state.devices.get(device)
        lease = self._context.presence.leases.get(device)
        offered_ms = None if user is None else self._share.offers.get((user, device))
        key, follow = (self._group.id, self._share.content), self._group.follows.get(device)
        if user is None or lease is None or lease.user != user:
            return self._away(device, user, offered_ms, follow)
        if offered_ms is not None:
            return self._built(device, user, HolderState.HOLDS, offered_ms, True, follow)
        if key in lease.leeching:
            began_ms = self._now.wall_ms - round((self._now.mono_s - lease.began[key]) * 1000)
            held = min(lease.leeching[key], self._pieces)
            row = self._built(device, user, HolderState.FETCHING, began_ms, False, follow)
            return msgspec.structs.replace(row, held=held)
        if follow is not None:
            return self._built(device, user, HolderState.FOLLOWS, follow.at_ms, False, follow)
        return self._away(device, None, None, None)  # a former user of it left an offer

    def _away(
        self,
        device: DeviceKey,
        user: UserId | None,
        offered_ms: int | None,
        follow: FollowRecord | None,
    ) -> HolderRow:
        if user is None or (offered_ms is None and follow is None):
            user = self._offered_by(device)
            offered_ms = self._share.offers.get((user, device))
        seen_ms = last_seen_ms(self._context, user, device, self._now)
        since_ms = (offered_ms or 0) if seen_ms is None else seen_ms
        copy = offered_ms is not None
        return self._built(device, user, HolderState.AWAY, since_ms, copy, follow)

    def _built(
        self,
        device: DeviceKey,
        user: UserId,
        state: HolderState,
        since_ms: int,
        copy: bool,
        follow: FollowRecord | None,
    ) -> HolderRow:
        held, globs = self._pieces if copy else 0, [] if follow is None else [*follow.globs]
        since_ms = max(0, since_ms)
        return HolderRow(device, user, state, held, since_ms, copy, follow is not None, globs)

    def _offered_by(self, device: DeviceKey) -> UserId:
        if self._former is None:
            self._former = {device: user for user, device in self._share.offers}
        return self._former[device]
