"""What is to be published, and when.

Owns the queue between decisions and the PUB socket: log entries at once, changes of peer sets
gathered for ``limits.COALESCE_S`` a share (longer for a large swarm), heads of active groups and
the beat every ``limits.BEACON_S``. Says with which key each is to be sealed; sealing and sending is
the shell's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from common import limits
from common.crypto.event_seal import inbox_of, share_topic
from common.ids import DeviceKey, GroupId
from common.messages import events
from common.messages.base import Source
from tracker.core.changes import Change, GroupDissolved, GroupKeyHanded, Logged
from tracker.core.context import Now, Nudge, Rng, TrackerIdentity
from tracker.core.presence import Presence, SwarmChange, SwarmKey
from tracker.core.spread import by_user, spread
from tracker.core.state import State

LARGE_SWARM = 100  # from here on changes are gathered longer, in proportion …
GATHER_MAX_S = 5.0  # … up to that: each update goes to everybody in the swarm
FLUSHED_AT_ONCE = 1_000  # swarms; some milliseconds of the event loop
DOWN_MAX = 1_000  # departures in one update; who is missed is found gone when next asked


@dataclass(frozen=True, slots=True)
class Outgoing:
    """``body`` for ``topic``, to be sealed with ``key`` of ``epoch``; without a key it is open."""

    topic: bytes
    body: events.Published
    key: bytes | None = field(default=None, repr=False)
    epoch: int = 0


@dataclass(slots=True)
class _Gathering:
    due_at: float
    devices: dict[DeviceKey, Source | None] = field(default_factory=dict)


class Outbox:
    """Gathers what has to be told about swarms and groups until it is due."""

    def __init__(self) -> None:
        self._swarms: dict[SwarmKey, _Gathering] = {}
        self._flush_at: float | None = None  # when the first of them is due
        self._active: dict[GroupId, float] = {}  # -> when it last had an entry

    def told(self, changes: Iterable[Change], now: float) -> list[Outgoing]:
        """The log entries among committed ``changes``, in their order."""
        outgoing = []
        for change in changes:
            match change:
                case Logged(entry, topic, key, key_epoch):
                    self._active.pop(change.group, None)
                    self._active[change.group] = now  # the longest silent one stays first
                    outgoing.append(Outgoing(topic, entry, key, key_epoch))
                case GroupKeyHanded(group, epoch, key, topic, old_key):
                    body = events.NewKey(group, epoch, key)
                    outgoing.append(Outgoing(topic, body, old_key, epoch - 1))
                case GroupDissolved(group):
                    self._active.pop(group, None)
                case _:
                    pass
        return outgoing

    def gather(self, changes: Iterable[SwarmChange], presence: Presence, now: float) -> None:
        """Remember changes of swarms; of several about one device the last one counts."""
        for change in changes:
            gathering = self._swarms.get(change.place)
            if gathering is None:
                size = presence.swarm(change.place).size
                wait_s = limits.COALESCE_S * max(1.0, size / LARGE_SWARM)
                gathering = _Gathering(now + min(wait_s, GATHER_MAX_S))
                self._swarms[change.place] = gathering
                if self._flush_at is None or gathering.due_at < self._flush_at:
                    self._flush_at = gathering.due_at
            gathering.devices[change.device] = change.source

    @property
    def flush_at(self) -> float | None:
        """When `flush` is due; None while nothing was gathered."""
        return self._flush_at

    def flush(self, state: State, rng: Rng, now: float) -> list[Outgoing]:
        """One update for each share that is due, as long as those are not very many. Of very many
        new sources a random choice is told, seeders first and by user: nobody uses more."""
        due = [place for place, gathering in self._swarms.items() if gathering.due_at <= now]
        gathered = {place: self._swarms.pop(place).devices for place in due[:FLUSHED_AT_ONCE]}
        left = (gathering.due_at for gathering in self._swarms.values())
        self._flush_at = min(left, default=None)
        outgoing = []
        for place, devices in gathered.items():
            group = state.groups.get(place[0])
            if group is None:
                continue
            seeders = [source for source in devices.values() if source and source.complete]
            leechers = [source for source in devices.values() if source and not source.complete]
            down: list[bytes] = [device for device, source in devices.items() if source is None]
            up = _some(seeders, limits.SOURCES_MAX, rng)
            up += _some(leechers, limits.SOURCES_MAX - len(up), rng)
            update = events.PeerUpdate(group.id, place[1], up, down[:DOWN_MAX])
            topic = share_topic(group.topic, place[1])
            outgoing.append(Outgoing(topic, update, group.key, group.epoch))
        return outgoing

    def beat(self, facts: TrackerIdentity, now: Now) -> Outgoing:
        """The sign of life."""
        return Outgoing(events.BEAT_TOPIC, events.Beat(facts.tracker_id, now.wall_ms))

    def heads(self, state: State, now: float) -> list[Outgoing]:
        """The head of every group that had an entry lately."""
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


def nudge(facts: TrackerIdentity, notice: Nudge) -> Outgoing:
    """A nudge in the inbox of one device."""
    topic, key = inbox_of(facts.inbox_secret, notice.device)
    return Outgoing(topic, events.Nudge(), key)


def _some(sources: list[Source], count: int, rng: Rng) -> list[Source]:
    return sources if len(sources) <= count else spread(by_user(sources), count, rng)
