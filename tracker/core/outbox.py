"""Outbox: publications of the tracker, gathered until they are due.

Owns: the queue between decisions and the PUB socket, and the key that seals each publication. Not
here: sealing and sending (see tracker.service.publisher and tracker.service.sockets).

Log entries are due at once. Changes of a swarm are gathered for ``limits.COALESCE_S``, longer for a
large swarm. Heads of active groups and the beat are due every ``limits.BEACON_S``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from common import limits
from common.crypto.event_seal import inbox_of, share_topic
from common.ids import DeviceKey, GroupId
from common.messages import events
from common.messages.base import Source
from tracker.core.changes.base import Change
from tracker.core.changes.groups import GroupDissolved, GroupKeyHanded, Logged
from tracker.core.context import Now, Nudge, Rng, TrackerIdentity
from tracker.core.presence import Presence, SwarmChange, SwarmKey
from tracker.core.spread import by_user, spread
from tracker.core.state import State

LARGE_SWARM = 100  # from this size on changes are gathered longer, in proportion …
GATHER_MAX_S = 5.0  # … up to this: each update goes to every member of the swarm
FLUSHED_AT_ONCE = 1_000  # swarms; some milliseconds of the event loop
DOWN_MAX = 1_000  # departures in one update; peers find the others gone when they ask next


@dataclass(frozen=True, slots=True)
class Outgoing:
    """Publication of ``body`` on ``topic``, sealed with ``key`` of ``epoch``; not sealed without a
    key."""

    topic: bytes
    body: events.Published
    key: bytes | None = field(default=None, repr=False)
    epoch: int = 0


@dataclass(slots=True)
class _Gathering:
    due_at: float
    devices: dict[DeviceKey, Source | None] = field(default_factory=dict)


class Outbox:
    """Gathers changes of swarms and heads of groups until they are due."""

    def __init__(self) -> None:
        self._swarms: dict[SwarmKey, _Gathering] = {}
        self._flush_at: float | None = None  # when the first of them is due
        self._active: dict[GroupId, float] = {}  # -> when it last had an entry

    def log_entries(self, changes: Iterable[Change], now: float) -> list[Outgoing]:
        """Return the log entries and new keys among committed ``changes``, in their order."""
        outgoing = []
        for change in changes:
            match change:
                case Logged(entry, topic, key, key_epoch):
                    self.activate(change.group, now)
                    outgoing.append(Outgoing(topic, entry, key, key_epoch))
                case GroupKeyHanded(group, epoch, key, topic, old_key):
                    body = events.NewKey(group, epoch, key)
                    outgoing.append(Outgoing(topic, body, old_key, epoch - 1))
                case GroupDissolved(group):
                    self._active.pop(group, None)
                case _:
                    pass
        return outgoing

    def activate(self, group: GroupId, now: float) -> None:
        """Publish the head of ``group`` for a while."""
        self._active.pop(group, None)
        self._active[group] = now  # the one silent longest stays first

    def gather(self, changes: Iterable[SwarmChange], presence: Presence, now: float) -> None:
        """Add changes of swarms; of several about one device the last one counts."""
        for change in changes:
            gathering = self._swarms.get(change.key)
            if gathering is None:
                size = presence.swarm(change.key).size
                wait_s = limits.COALESCE_S * max(1.0, size / LARGE_SWARM)
                gathering = _Gathering(now + min(wait_s, GATHER_MAX_S))
                self._swarms[change.key] = gathering
                if self._flush_at is None or gathering.due_at < self._flush_at:
                    self._flush_at = gathering.due_at
            gathering.devices[change.device] = change.source

    @property
    def flush_at(self) -> float | None:
        """Time at which `flush` is due; None while nothing is gathered."""
        return self._flush_at

    def flush(self, state: State, rng: Rng, now: float) -> list[Outgoing]:
        """Return an update for each swarm that is due, at most ``FLUSHED_AT_ONCE``.

        Of many new sources it names a random choice, seeders first and spread over users: no peer
        uses more.
        """
        due = [key for key, gathering in self._swarms.items() if gathering.due_at <= now]
        gathered = {key: self._swarms.pop(key).devices for key in due[:FLUSHED_AT_ONCE]}
        left = (gathering.due_at for gathering in self._swarms.values())
        self._flush_at = min(left, default=None)
        outgoing = []
        for (group_id, content), devices in gathered.items():
            group = state.groups.get(group_id)
            if group is None:
                continue
            seeders = [source for source in devices.values() if source and source.complete]
            leechers = [source for source in devices.values() if source and not source.complete]
            down: list[bytes] = [device for device, source in devices.items() if source is None]
            up = _some(seeders, limits.SOURCES_MAX, rng)
            up += _some(leechers, limits.SOURCES_MAX - len(up), rng)
            update = events.PeerUpdate(group.id, content, up, down[:DOWN_MAX])
            topic = share_topic(group.topic, content)
            outgoing.append(Outgoing(topic, update, group.key, group.epoch))
        return outgoing

    def beat(self, identity: TrackerIdentity, now: Now, cut_off: bool) -> Outgoing:
        """Return the tracker's sign of life."""
        return Outgoing(events.BEAT_TOPIC, events.Beat(identity.tracker_id, now.wall_ms, cut_off))

    def heads(self, state: State, now: float) -> list[Outgoing]:
        """Return the head of every group that had an entry within ``limits.BEACON_TAIL_S``."""
        for group_id in [
            group_id
            for group_id, at in self._active.items()
            if now - at > limits.BEACON_TAIL_S or group_id not in state.groups
        ]:
            del self._active[group_id]
        outgoing = []
        for group_id in self._active:
            group = state.groups[group_id]
            head = events.GroupHead(group.id, group.seq, group.epoch)
            outgoing.append(Outgoing(group.topic, head, group.key, group.epoch))
        return outgoing


def nudge(identity: TrackerIdentity, effect: Nudge) -> Outgoing:
    """Return a nudge for the inbox of one device."""
    topic, key = inbox_of(identity.inbox_secret, effect.device)
    return Outgoing(topic, events.Nudge(), key)


def _some(sources: list[Source], count: int, rng: Rng) -> list[Source]:
    return sources if len(sources) <= count else spread(by_user(sources), count, rng)
