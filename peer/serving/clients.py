"""Who is connected to us to fetch, and what they have opened.

Owns a `Visitor` for each connection: its device, its tickets, its channels. Pure bookkeeping, with
a bound on everything that a visitor can make us remember.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from common.crypto.tickets import Ticket
from common.ids import ContentId, DeviceKey, GroupId
from peer.swarm.serving.events import RequesterId

CHANNELS_MAX = 64  # contents that one connection may have open
VISITORS_MAX = 4_096  # connections that are remembered
VISITORS_PER_DEVICE_MAX = 8  # a device needs one, and may have left some others without a word


@dataclass(slots=True)
class ClientChannel:
    """A content that a visitor has opened, and by right of which group."""

    number: int
    group: GroupId
    content: ContentId


@dataclass(slots=True)
class Client:
    """One connection of a device that fetches from us."""

    id: RequesterId
    device: DeviceKey
    tickets: dict[GroupId, Ticket] = field(default_factory=dict)
    channels: dict[int, ClientChannel] = field(default_factory=dict)
    numbers: dict[ContentId, int] = field(default_factory=dict)
    received_before: int | None = None
    """What it said to have received on this connection when we began to count, in bytes."""

    def channel_of(self, content: ContentId) -> ClientChannel | None:
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


class ClientTable:
    """All connections by id, and who has which content open."""

    def __init__(self) -> None:
        self._clients: dict[RequesterId, Client] = {}  # in the order of their coming
        self._by_device: dict[DeviceKey, dict[RequesterId, Client]] = {}
        self._by_content: dict[ContentId, dict[RequesterId, Client]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(list(self._clients.values()))

    def get(self, requester: RequesterId) -> Client | None:
        """The visitor on that connection."""
        return self._clients.get(requester)

    def enter(self, requester: RequesterId, device: DeviceKey) -> list[Client]:
        """A visitor for a connection not seen before, and after it those who were forgotten to
        make room: a ROUTER does not say when a connection ends, so the oldest have to go."""
        forgotten = []
        same = self._by_device.get(device, {})
        if len(same) >= VISITORS_PER_DEVICE_MAX:
            forgotten.append(self._forget(next(iter(same))))
        elif len(self._clients) >= VISITORS_MAX:
            forgotten.append(self._forget(self._oldest()))
        client = Client(requester, device)
        self._clients[requester] = client
        self._by_device.setdefault(device, {})[requester] = client
        return [client, *forgotten]

    def _oldest(self) -> RequesterId:
        """Whom to forget: the oldest that has nothing open, or else the oldest."""
        idle = (requester for requester, who in self._clients.items() if not who.channels)
        return next(idle, next(iter(self._clients)))

    def _forget(self, requester: RequesterId) -> Client:
        client = self.leave(requester)
        assert client is not None
        return client

    def leave(self, requester: RequesterId) -> Client | None:
        """Forget a connection, and all that it had open."""
        client = self._clients.pop(requester, None)
        if client is not None:
            same = self._by_device[client.device]
            del same[requester]
            if not same:
                del self._by_device[client.device]
            for channel in list(client.channels.values()):
                self.close(client, channel.number)
        return client

    def conflicting(self, client: Client, number: int, content: ContentId) -> list[ClientChannel]:
        """What ends when ``content`` is opened under ``number``: a content is open once at most."""
        found = (client.channels.get(number), client.channel_of(content))
        return list({channel.number: channel for channel in found if channel}.values())

    def open(self, client: Client, number: int, group: GroupId, content: ContentId) -> bool:
        """Open a channel; False when the visitor has too many. A content is open once at most."""
        for stale in self.conflicting(client, number, content):
            self.close(client, stale.number)
        if len(client.channels) >= CHANNELS_MAX:
            return False
        client.channels[number] = ClientChannel(number, group, content)
        client.numbers[content] = number
        self._by_content.setdefault(content, {})[client.id] = client
        return True

    def close(self, client: Client, number: int) -> ClientChannel | None:
        """Close a channel; returns what was open."""
        channel = client.channels.pop(number, None)
        if channel is not None:
            client.numbers.pop(channel.content, None)
            others = self._by_content.get(channel.content, {})
            others.pop(client.id, None)
            if not others:
                self._by_content.pop(channel.content, None)
        return channel

    def of_content(self, content: ContentId) -> list[tuple[Client, ClientChannel]]:
        """Everybody who has ``content`` open."""
        return [
            (client, client.channels[client.numbers[content]])
            for client in self._by_content.get(content, {}).values()
        ]
