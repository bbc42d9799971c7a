"""Presence: leases of online devices, and the swarms that follow from them; in memory only.

Owns: the leases, and for each content in a group its seeders and leechers. A device with a lease is
a seeder of what it offers and a leecher of what it announced. Not here: the publication of changes
(see tracker.core.outbox). All times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from common import limits
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.base import Source
from tracker.core.changes.accounts import DeviceSeen, DeviceUnbound
from tracker.core.changes.base import Change
from tracker.core.changes.groups import GroupDissolved, MemberGone
from tracker.core.changes.shares import OfferAdded, OfferDropped, VersionsWithdrawn
from tracker.core.spread import Sampler, spread
from tracker.core.state import State

SwarmKey: TypeAlias = tuple[GroupId, ContentId]
"""Key of a swarm: a content in a group."""

Users: TypeAlias = dict[UserId, dict[DeviceKey, Source]]

SWEEP_S = 1.0  # interval of `Presence.sweep`


@dataclass(slots=True)
class Lease:
    """Lease of an online device. ``swarms``: the swarms that it is in, and its source in each.

    ``began``: when each content of ``leeching`` was first announced. ``rates``: bytes a second that
    the device receives and sends, as it announced them. ``since_ms``: its beginning, on the wall
    clock. ``at``: the other tracker that it is renewed at; empty for this one.
    """

    user: UserId
    endpoint: str
    ends_at: float
    leeching: dict[SwarmKey, int]
    instance: bytes = b""
    rates: tuple[int, int] = (0, 0)
    swarms: dict[SwarmKey, Source] = field(default_factory=dict)
    began: dict[SwarmKey, float] = field(default_factory=dict)
    since_ms: int = 0
    at: bytes = b""


@dataclass(slots=True)
class Swarm:
    """Sources of one content in a group. ``users``: seeders by user, then leechers by user."""

    seeders: dict[DeviceKey, Source] = field(default_factory=dict)
    leechers: dict[DeviceKey, Source] = field(default_factory=dict)
    users: tuple[Users, Users] = field(default_factory=lambda: ({}, {}))

    def put(self, device: DeviceKey, source: Source) -> None:
        """Add ``device``, which was no source."""
        (self.seeders if source.complete else self.leechers)[device] = source
        self.users[not source.complete].setdefault(UserId(source.user), {})[device] = source

    def take(self, device: DeviceKey) -> None:
        """Remove ``device``, if it is a source."""
        for some, users in zip((self.seeders, self.leechers), self.users, strict=True):
            source = some.pop(device, None)
            if source is not None:
                user = UserId(source.user)
                del users[user][device]
                if not users[user]:
                    del users[user]

    @property
    def size(self) -> int:
        return len(self.seeders) + len(self.leechers)


@dataclass(frozen=True, slots=True)
class SwarmChange:
    """Change of ``device`` as a source of swarm ``key``; None: it is no longer one."""

    key: SwarmKey
    device: DeviceKey
    source: Source | None


_EMPTY = Swarm()


def rates_of(leases: Iterable[Lease]) -> tuple[int, int]:
    """Return the sums of the rates that devices announced, received and sent.

    Limits: devices may announce anything, and no message takes a sum beyond 64 bits.
    """
    received = sent = 0
    for lease in leases:
        received += lease.rates[0]
        sent += lease.rates[1]
    return min(received, limits.COUNT_MAX), min(sent, limits.COUNT_MAX)


class Presence:
    """Leases by device and swarms by key."""

    def __init__(self) -> None:
        self.leases: dict[DeviceKey, Lease] = {}
        # When each device last announced itself, until that is durable.
        self.heard_at: dict[DeviceKey, float] = {}
        self.touched: dict[DeviceKey, None] | None = None
        """Devices of this tracker with a change that other trackers need; None without others."""
        self._swarms: dict[SwarmKey, Swarm] = {}
        self._swept_at: float | None = None

    # -- queries --------------------------------------------------------------------------------

    def swarm(self, key: SwarmKey) -> Swarm:
        """Return the swarm of ``key``, empty if there is none. Callers must not change it."""
        return self._swarms.get(key, _EMPTY)

    def swarms(self) -> Iterable[Swarm]:
        """Return all swarms with a device online."""
        return self._swarms.values()

    def swarm_count(self, device: DeviceKey) -> int:
        """Return the number of swarms in which ``device`` is a source."""
        lease = self.leases.get(device)
        return len(lease.swarms) if lease else 0

    def expected_changes(self, state: State, device: DeviceKey, user: UserId, endpoint: str) -> int:
        """Estimate the number of swarms that change when ``device`` announces itself."""
        lease = self.leases.get(device)
        if lease is not None and (lease.user, lease.endpoint) == (user, endpoint):
            return 0
        return len(state.offers_of.get((user, device), ()))

    def online(self, state: State, user: UserId) -> int:
        """Return the number of devices of ``user`` that are online."""
        return sum(device in self.leases for device in state.devices_of.get(user, ()))

    def sources(self, key: SwarmKey, caller: DeviceKey, rng: Sampler) -> list[Source]:
        """Choose at most ``limits.SOURCES_MAX`` other sources, seeders first, spread over users."""
        chosen: list[Source] = []
        for users in self.swarm(key).users:
            # One more, since the caller may be among them.
            some = spread(
                {user: devices.values() for user, devices in users.items()},
                limits.SOURCES_MAX + 1 - len(chosen),
                rng,
            )
            others = [source for source in some if source.device != caller]
            chosen += others[: limits.SOURCES_MAX - len(chosen)]
        return chosen

    # -- leases ---------------------------------------------------------------------------------

    def announce(
        self,
        state: State,
        device: DeviceKey,
        user: UserId,
        endpoint: str,
        leeching: Iterable[tuple[GroupId, ContentId, int]],
        now: float,
        instance: bytes = b"",
        rates: tuple[int, int] = (0, 0),
        now_ms: int = 0,
    ) -> list[SwarmChange]:
        """Renew the lease of ``device``; ``leeching`` replaces that of its last announcement."""
        fetched = {(group, content): held for group, content, held in leeching}
        lease = self.leases.get(device)
        if self.touched is not None and _differs(lease, user, endpoint, fetched, instance):
            self.touched[device] = None
        if lease is None or lease.user != user:
            changes = self.depart(device)
            lease = Lease(user, endpoint, 0.0, fetched, since_ms=now_ms)
            self.leases[device] = lease
            touched: Iterable[SwarmKey] = [*_offered(state, user, device), *fetched]
        else:
            changes = []
            if lease.endpoint != endpoint:
                touched = [*lease.swarms, *_offered(state, user, device), *fetched]
            else:
                touched = [*lease.leeching, *fetched]
            if lease.at:  # it has come here from another tracker
                lease.at, lease.since_ms = b"", max(now_ms, lease.since_ms + 1)
            lease.endpoint, lease.leeching = endpoint, fetched
        lease.began = {key: lease.began.get(key, now) for key in fetched}
        lease.ends_at = now + limits.LEASE_S
        lease.instance, lease.rates = instance, rates
        self.heard_at[device] = now
        return changes + self._update(state, device, touched)

    def take_over(
        self, state: State, device: DeviceKey, foreign: Lease, now: float
    ) -> list[SwarmChange]:
        """Replace the lease of ``device`` by one at another tracker."""
        lease = self.leases.get(device)
        changes: list[SwarmChange] = []
        if lease is not None and lease.user != foreign.user:
            changes, lease = self.depart(device), None
        if lease is not None and not lease.at:
            self._touch(device)
            self.heard_at.pop(device, None)
        touched = [*_offered(state, foreign.user, device), *foreign.leeching]
        if lease is not None:
            touched += lease.swarms
            foreign.swarms = lease.swarms
        began = lease.began if lease is not None else {}
        foreign.began = {key: began.get(key, now) for key in foreign.leeching}
        self.leases[device] = foreign
        return changes + self._update(state, device, touched)

    def _touch(self, device: DeviceKey) -> None:
        if self.touched is not None:
            self.touched[device] = None

    def depart(self, device: DeviceKey) -> list[SwarmChange]:
        """End the lease of ``device``."""
        lease = self.leases.pop(device, None)
        if lease is None:
            return []
        if not lease.at:
            self._touch(device)
        for key in lease.swarms:
            self._take_out(key, device)
        return [SwarmChange(key, device, None) for key in lease.swarms]

    def sweep(self, now: float) -> list[SwarmChange]:
        """End the expired leases. Call it every ``SWEEP_S``.

        Why: if a call is late, this process was stopped or blocked and could not receive
        announcements. All leases are then extended by that time.
        """
        missed = 0.0 if self._swept_at is None else now - self._swept_at - SWEEP_S
        self._swept_at = now
        if missed > SWEEP_S:
            for lease in self.leases.values():
                lease.ends_at += missed
        ended = [device for device, lease in self.leases.items() if lease.ends_at <= now]
        return [change for device in ended for change in self.depart(device)]

    # -- swarms ---------------------------------------------------------------------------------

    def follow(self, state: State, changes: Iterable[Change]) -> list[SwarmChange]:
        """Update the swarms after durable changes, which ``state`` already includes."""
        found: list[SwarmChange] = []
        for change in changes:
            match change:
                case OfferAdded(group, _, content, _, device) | OfferDropped(
                    group, _, content, _, device
                ):
                    found += self._update(state, device, [(group, content)])
                case VersionsWithdrawn(group, contents=contents):
                    for key in ((group, content) for content in contents):
                        swarm = self.swarm(key)
                        for device in (*swarm.seeders, *swarm.leechers):
                            found += self._update(state, device, [key])
                case DeviceUnbound(device):
                    found += self.depart(device)
                    self.heard_at.pop(device, None)
                case DeviceSeen(device) if device not in self.leases:
                    self.heard_at.pop(device, None)
                case MemberGone(group, user) | GroupDissolved(group, user):
                    for device in state.devices_of.get(user, ()):
                        lease = self.leases.get(device)
                        swarms = lease.swarms if lease else ()
                        here = [key for key in swarms if key[0] == group]
                        found += self._update(state, device, here)
                case _:
                    pass
        return found

    def rebuild(self, state: State) -> list[SwarmChange]:
        """Update all swarms: the state was loaded anew, and its changes are not known."""
        changes: list[SwarmChange] = []
        for device, lease in list(self.leases.items()):
            if state.devices.get(device) != lease.user:
                changes += self.depart(device)
                continue
            touched = [*lease.swarms, *_offered(state, lease.user, device), *lease.leeching]
            changes += self._update(state, device, touched)
        return changes

    def _update(
        self, state: State, device: DeviceKey, swarms: Iterable[SwarmKey]
    ) -> list[SwarmChange]:
        lease = self.leases.get(device)
        if lease is None:
            return []
        changes = []
        for key in dict.fromkeys(swarms):
            had, has = lease.swarms.get(key), _source(state, device, lease, key)
            if had == has:
                continue
            self._take_out(key, device)
            if has is None:
                lease.swarms.pop(key, None)
            else:
                lease.swarms[key] = has
                self._put_in(key, device, has)
            if _worth_publishing(had, has):
                changes.append(SwarmChange(key, device, has))
        return changes

    def _put_in(self, key: SwarmKey, device: DeviceKey, source: Source) -> None:
        self._swarms.setdefault(key, Swarm()).put(device, source)

    def _take_out(self, key: SwarmKey, device: DeviceKey) -> None:
        swarm = self._swarms.get(key)
        if swarm is None:
            return
        swarm.take(device)
        if not swarm.seeders and not swarm.leechers:
            del self._swarms[key]


def _differs(
    lease: Lease | None,
    user: UserId,
    endpoint: str,
    fetched: dict[SwarmKey, int],
    instance: bytes,
) -> bool:
    """Whether an announcement changes what other trackers know of the device."""
    if lease is None or lease.at:
        return True
    if (lease.user, lease.endpoint, lease.instance) != (user, endpoint, instance):
        return True
    if lease.leeching.keys() != fetched.keys():
        return True
    return any((held > 0) != (lease.leeching[key] > 0) for key, held in fetched.items())


def _offered(state: State, user: UserId, device: DeviceKey) -> list[SwarmKey]:
    return [(share.group, share.content) for share in state.offers_of.get((user, device), ())]


def _source(state: State, device: DeviceKey, lease: Lease, key: SwarmKey) -> Source | None:
    """Return ``device`` as a source in swarm ``key``; None if it is not one."""
    group_id, content = key
    group = state.groups.get(group_id)
    if group is None or lease.user not in group.members or content not in group.names_of:
        return None
    if state.offers(group, content, lease.user, device):
        return Source(device, lease.user, lease.endpoint, True, 0)
    if key in lease.leeching:
        return Source(device, lease.user, lease.endpoint, False, lease.leeching[key])
    return None


def _worth_publishing(had: Source | None, has: Source | None) -> bool:
    # The number of pieces that a leecher holds changes all the time, and it reports that to the
    # peers that it is connected to. Other peers need its appearance, and its first piece.
    if had is None or has is None:
        return True
    if had.endpoint != has.endpoint or had.complete != has.complete:
        return True
    return had.held == 0 and has.held > 0
