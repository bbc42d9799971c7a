"""Meter of serving: bytes sent since the start, rates, and the devices that fetch now.

Owns: the count by group and content. Not here: the rates by which the serving machine decides (see
peer.swarm.serving.uplink). Counted is what the socket took, acknowledged or not.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from common.ids import ContentId, DeviceKey, GroupId, UserId
from peer.serving.clients import ClientChannel
from peer.swarm.rates import RateMeter

NOW_S = 10.0  # a device that was sent nothing in this time does not fetch now
FLOWS_MAX = 4_096  # as many as there can be clients; the one unused longest is forgotten first


@dataclass(slots=True)
class Flow:
    """Pieces of one content to one device, by the right of one group."""

    user: UserId
    device: DeviceKey
    meter: RateMeter = field(default_factory=RateMeter)
    last: float = 0.0


class ServingMeter:
    """Counts sent pieces. Callers pass the time."""

    def __init__(self) -> None:
        self.served_bytes = 0
        self.by_group: Counter[GroupId] = Counter()
        """Bytes sent by the right of each group."""
        self._all = RateMeter()
        self._served: dict[ContentId, dict[GroupId, int]] = {}
        self._flows: OrderedDict[tuple[GroupId, ContentId, DeviceKey], Flow] = OrderedDict()

    def sent(self, channel: ClientChannel, size: int, now: float) -> None:
        """Count ``size`` bytes of pieces."""
        group, content, device = channel.group, channel.content, channel.client.device
        user = UserId(channel.ticket.user)
        self.served_bytes += size
        self.by_group[group] += size
        self._all.add(size, now)
        groups = self._served.setdefault(content, {})
        groups[group] = groups.get(group, 0) + size
        key = (group, content, device)
        flow = self._flows.get(key)
        if flow is None or flow.user != user:
            flow = self._flows[key] = Flow(user, device)
        self._flows.move_to_end(key)
        flow.meter.add(size, now)
        flow.last = now
        while len(self._flows) > FLOWS_MAX:
            self._flows.popitem(last=False)

    def forget(self, content: ContentId) -> None:
        """Forget a content that is no longer served."""
        for group in self._served.pop(content, {}):
            for key in [key for key in self._flows if key[:2] == (group, content)]:
                del self._flows[key]

    def served(self, group: GroupId, content: ContentId) -> int:
        """Return the bytes sent of a content in a group since it is served."""
        return self._served.get(content, {}).get(group, 0)

    def rate(self, now: float) -> float:
        """Return the bytes a second of all sends."""
        return self._all.rate(now)

    def fetching(
        self, now: float, group: GroupId | None = None, content: ContentId | None = None
    ) -> list[tuple[UserId, DeviceKey, float]]:
        """Return the devices that fetch now, of one content or of all, with their rates."""
        rates: dict[tuple[UserId, DeviceKey], float] = {}
        for flow in self._current(now, group, content):
            key = (flow.user, flow.device)
            rates[key] = rates.get(key, 0.0) + flow.meter.rate(now)
        return [(user, device, rate) for (user, device), rate in sorted(rates.items())]

    def _current(
        self, now: float, group: GroupId | None, content: ContentId | None
    ) -> Iterator[Flow]:
        flows: Iterable[tuple[tuple[GroupId, ContentId, DeviceKey], Flow]] = self._flows.items()
        for (its_group, its_content, _), flow in reversed(list(flows)):
            if now - flow.last >= NOW_S:
                return
            if group in (None, its_group) and content in (None, its_content):
                yield flow
