"""Who is connected to us to fetch, and what they have opened.

Owns a `Visitor` for each connection: its device, its tickets, its channels. Pure bookkeeping, with
a bound on everything that a visitor can make us remember.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from common.ids import ContentId, DeviceKey, GroupId
from common.tickets import Ticket
from peer.swarm.events import RequesterId

CHANNELS_MAX = 64  # contents that one connection may have open
VISITORS_MAX = 4_096  # connections that are remembered
VISITORS_PER_DEVICE_MAX = 8  # a device needs one, and may have left some others without a word


@dataclass(slots=True)
class Channel:
    """A content that a visitor has opened, and by right of which group."""

    number: int
    group: GroupId
    content: ContentId


@dataclass(slots=True)
class Visitor:
    """One connection of a device that fetches from us."""

    id: RequesterId
    device: DeviceKey
    tickets: dict[GroupId, Ticket] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    numbers: dict[ContentId, int] = field(default_factory=dict)
    received_before: int | None = None
    """What it said to have received on this connection when we began to count, in bytes."""

    def channel_of(self, content: ContentId) -> Channel | None:
        """The channel on which it has ``content`` open."""
        number = self.numbers.get(content)
        return None if number is None else self.channels[number]

    def received(self, said_bytes: int) -> int:
        """Of what it says to have received in all, how much came since we began to count.

        That is not the connection's beginning when it was dropped here and then asked again.
        """
        if self.received_before is None:
            self.received_before = said_bytes
        return max(0, said_bytes - self.received_before)


class Visitors:
    """All connections by id, and who has which content open."""

    def __init__(self) -> None:
        self._visitors: dict[RequesterId, Visitor] = {}  # in the order of their coming
        self._by_device: dict[DeviceKey, dict[RequesterId, Visitor]] = {}
        self._by_content: dict[ContentId, dict[RequesterId, Visitor]] = {}

    def __len__(self) -> int:
        return len(self._visitors)

    def __iter__(self) -> Iterator[Visitor]:
        return iter(list(self._visitors.values()))

    def get(self, requester: RequesterId) -> Visitor | None:
        """The visitor on that connection."""
        return self._visitors.get(requester)

    def enter(self, requester: RequesterId, device: DeviceKey) -> list[Visitor]:
        """A visitor for a connection not seen before, and after it those who were forgotten to
        make room: a ROUTER does not say when a connection ends, so the oldest have to go."""
        forgotten = []
        same = self._by_device.get(device, {})
        if len(same) >= VISITORS_PER_DEVICE_MAX:
            forgotten.append(self._forget(next(iter(same))))
        elif len(self._visitors) >= VISITORS_MAX:
            forgotten.append(self._forget(self._oldest()))
        visitor = Visitor(requester, device)
        self._visitors[requester] = visitor
        self._by_device.setdefault(device, {})[requester] = visitor
        return [visitor, *forgotten]

    def _oldest(self) -> RequesterId:
        """Whom to forget: the oldest that has nothing open, or else the oldest."""
        idle = (requester for requester, who in self._visitors.items() if not who.channels)
        return next(idle, next(iter(self._visitors)))

    def _forget(self, requester: RequesterId) -> Visitor:
        visitor = self.leave(requester)
        assert visitor is not None
        return visitor

    def leave(self, requester: RequesterId) -> Visitor | None:
        """Forget a connection, and all that it had open."""
        visitor = self._visitors.pop(requester, None)
        if visitor is not None:
            same = self._by_device[visitor.device]
            del same[requester]
            if not same:
                del self._by_device[visitor.device]
            for channel in list(visitor.channels.values()):
                self.close(visitor, channel.number)
        return visitor

    def in_the_way(self, visitor: Visitor, number: int, content: ContentId) -> list[Channel]:
        """What ends when ``content`` is opened under ``number``: a content is open once at most."""
        found = (visitor.channels.get(number), visitor.channel_of(content))
        return list({channel.number: channel for channel in found if channel}.values())

    def open(self, visitor: Visitor, number: int, group: GroupId, content: ContentId) -> bool:
        """Open a channel; False when the visitor has too many. A content is open once at most."""
        for stale in self.in_the_way(visitor, number, content):
            self.close(visitor, stale.number)
        if len(visitor.channels) >= CHANNELS_MAX:
            return False
        visitor.channels[number] = Channel(number, group, content)
        visitor.numbers[content] = number
        self._by_content.setdefault(content, {})[visitor.id] = visitor
        return True

    def close(self, visitor: Visitor, number: int) -> Channel | None:
        """Close a channel; returns what was open."""
        channel = visitor.channels.pop(number, None)
        if channel is not None:
            visitor.numbers.pop(channel.content, None)
            others = self._by_content.get(channel.content, {})
            others.pop(visitor.id, None)
            if not others:
                self._by_content.pop(channel.content, None)
        return channel

    def of_content(self, content: ContentId) -> list[tuple[Visitor, Channel]]:
        """Everybody who has ``content`` open."""
        return [
            (visitor, visitor.channels[visitor.numbers[content]])
            for visitor in self._by_content.get(content, {}).values()
        ]
