"""Clients of the piece server: fetching connections, their tickets and their open channels.

Owns: a `Client` for each connection, and bounds on everything that a client can make this peer
store. Not here: sending and receiving (see ``peer.serving.server``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from common.crypto.tickets import Ticket
from common.errors import Refused
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.base import Refusal
from peer.swarm.serving.events import RequesterId

CHANNELS_MAX = 64  # contents that one connection may have open
CLIENTS_MAX = 4_096
CLIENTS_PER_DEVICE_MAX = 8  # a device needs one; others may be left from connections that ended


@dataclass(slots=True, eq=False)
class ClientChannel:
    """One content that a client has opened, by the right of one group."""

    client: Client
    number: int
    group: GroupId
    content: ContentId
    notices: bool = False
    """The client wants to know which pieces are on their way."""
    is_open: bool = True

    @property
    def ticket(self) -> Ticket:
        """The newest ticket that the client showed for the group."""
        return self.client.tickets[self.group]


@dataclass(slots=True, eq=False)
class Client:
    """One connection of a device that fetches from this peer."""

    id: RequesterId
    device: DeviceKey
    tickets: dict[GroupId, Ticket] = field(default_factory=dict)
    channels: dict[int, ClientChannel] = field(default_factory=dict)
    by_content: dict[ContentId, ClientChannel] = field(default_factory=dict)
    received_before: int | None = None
    """Bytes that the client had acknowledged on this connection when counting started."""

    def received(self, acknowledged_bytes: int) -> int:
        """Convert a total that the client acknowledged into bytes since counting started.

        Why: counting starts later than the connection if this peer dropped the client meanwhile.
        """
        if self.received_before is None:
            self.received_before = acknowledged_bytes
        return max(0, acknowledged_bytes - self.received_before)


class ClientTable:
    """All clients by connection, and the open channels by content."""

    def __init__(self) -> None:
        self._clients: dict[RequesterId, Client] = {}  # oldest first
        self._by_device: dict[DeviceKey, dict[RequesterId, Client]] = {}
        self._by_content: dict[ContentId, dict[RequesterId, ClientChannel]] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients.values())

    def get(self, requester: RequesterId) -> Client | None:
        """Return the client on that connection."""
        return self._clients.get(requester)

    def channel(self, requester: RequesterId, content: ContentId) -> ClientChannel | None:
        """Return the channel on which that client has ``content`` open."""
        client = self._clients.get(requester)
        return None if client is None else client.by_content.get(content)

    def add(self, requester: RequesterId, device: DeviceKey) -> list[Client]:
        """Add a client; return it, and after it the clients that were evicted to make room.

        Why: a ROUTER does not report the end of a connection, so the oldest clients must go.
        """
        evicted = []
        same = self._by_device.get(device, {})
        if len(same) >= CLIENTS_PER_DEVICE_MAX:
            evicted.append(self._evict(next(iter(same))))
        elif len(self._clients) >= CLIENTS_MAX:
            evicted.append(self._evict(self._oldest()))
        client = Client(requester, device)
        self._clients[requester] = client
        self._by_device.setdefault(device, {})[requester] = client
        return [client, *evicted]

    def _oldest(self) -> RequesterId:
        """Return the oldest client without open channels, or else the oldest."""
        idle = (requester for requester, client in self._clients.items() if not client.channels)
        return next(idle, next(iter(self._clients)))

    def _evict(self, requester: RequesterId) -> Client:
        client = self.remove(requester)
        assert client is not None
        return client

    def remove(self, requester: RequesterId) -> Client | None:
        """Remove a client with all its channels; return it."""
        client = self._clients.pop(requester, None)
        if client is not None:
            same = self._by_device[client.device]
            del same[requester]
            if not same:
                del self._by_device[client.device]
            for channel in list(client.channels.values()):
                self.close(channel)
        return client

    def conflicting(self, client: Client, number: int, content: ContentId) -> list[ClientChannel]:
        """Return the channels that end when ``content`` is opened under ``number``.

        Invariant: a client has a content open once at most.
        """
        found = (client.channels.get(number), client.by_content.get(content))
        return list({channel.number: channel for channel in found if channel}.values())

    def open(
        self,
        client: Client,
        number: int,
        group: GroupId,
        content: ContentId,
        notices: bool = False,
    ) -> ClientChannel | None:
        """Open a channel in place of conflicting ones; None if the client has too many."""
        for former in self.conflicting(client, number, content):
            self.close(former)
        if len(client.channels) >= CHANNELS_MAX:
            return None
        channel = ClientChannel(client, number, group, content, notices)
        client.channels[number] = client.by_content[content] = channel
        self._by_content.setdefault(content, {})[client.id] = channel
        return channel

    def close(self, channel: ClientChannel) -> None:
        """Close an open channel."""
        client, content = channel.client, channel.content
        channel.is_open = False
        del client.channels[channel.number]
        del client.by_content[content]
        del self._by_content[content][client.id]
        if not self._by_content[content]:
            del self._by_content[content]

    def of_content(self, content: ContentId) -> list[ClientChannel]:
        """Return all channels on which ``content`` is open."""
        return list(self._by_content.get(content, {}).values())

    def of_user(self, group: GroupId, user: UserId) -> list[ClientChannel]:
        """Return all channels that are open by a ticket of ``user`` for ``group``."""
        return [
            channel
            for client in self._clients.values()
            if (ticket := client.tickets.get(group)) is not None and ticket.user == user
            for channel in client.channels.values()
            if channel.group == group
        ]


def refusal_of(error: Refused) -> Refusal:
    """Convert an error to what its client is sent."""
    return Refusal(error.code, error.message, error.hint)
