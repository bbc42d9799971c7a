"""Connection to one tracker: two sockets, for commands and for published messages.

Owns: making and closing them, their connection events, and the choice among the addresses of the
tracker's name. Not here: when to connect, and the messages (see ``peer.tracker_client.link``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from common import limits
from common.crypto.keys import KeyPair
from common.errors import TransportError
from common.link import Tracker
from common.messages import events
from common.net.monitor import ConnectionEvent, SocketMonitor, monitored
from common.net.pump import Frames, Pump
from common.net.resolving import endpoints_of
from common.net.sockets import Connect, make_socket

STAGGER_S = 0.25  # an address that has not answered by then has company (RFC 8305)
_NO_ANSWER = "no server answers there"


class TrackerConnection:
    """Sockets of one connection to ``endpoint``, one address of a tracker."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        where: Tracker,
        endpoint: str,
        on_reply: Callable[[Frames], None],
        on_published: Callable[[Frames], None],
    ) -> None:
        self.where = where
        self.endpoint = endpoint
        self._context = context
        self._role = Connect(pair, where.key)
        self._on_published = on_published
        self.ended = asyncio.Event()
        self.up = asyncio.Event()
        self.events_up = asyncio.Event()
        self.trouble: TransportError | None = None
        """The reason for the failure, once `ended` is set without `up`."""
        commands = make_socket(
            context, zmq.DEALER, self._role, message_bytes_max=limits.REPLY_BYTES_MAX
        )
        self._watch = monitored(commands, self._on_link)
        self.commands = Pump(commands, on_reply)
        self.events: Pump | None = None
        self._events_watch: SocketMonitor | None = None
        try:
            commands.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def _on_link(self, link: ConnectionEvent) -> None:
        if link is ConnectionEvent.UP:
            self.up.set()
        elif link in (
            ConnectionEvent.DOWN,
            ConnectionEvent.FAILED,
            ConnectionEvent.SILENT,
            ConnectionEvent.UNREACHABLE,
        ):
            # The first event has the reason; later ones only confirm the end.
            self.trouble = self.trouble or _trouble(link)
            self.ended.set()

    def _on_events_link(self, link: ConnectionEvent) -> None:
        if link is ConnectionEvent.UP:
            self.events_up.set()
        elif link in (ConnectionEvent.DOWN, ConnectionEvent.FAILED, ConnectionEvent.SILENT):
            self.ended.set()

    def subscribe_at(self, endpoint: str) -> None:
        """Connect to the tracker's publishing socket."""
        socket = make_socket(
            self._context,
            zmq.SUB,
            self._role,
            message_bytes_max=limits.EVENT_BYTES_MAX,
            receive_queue=10_000,
        )
        socket.setsockopt(zmq.SUBSCRIBE, events.BEAT_TOPIC)
        self._events_watch = monitored(socket, self._on_events_link)
        self.events = Pump(socket, self._on_published)
        socket.connect(endpoint)

    def close(self) -> None:
        self._watch.close()
        self.commands.close()
        if self._events_watch is not None:
            self._events_watch.close()
        if self.events is not None:
            self.events.close()


def _trouble(link: ConnectionEvent) -> TransportError:
    if link is ConnectionEvent.UNREACHABLE:
        return TransportError(_NO_ANSWER)
    if link is ConnectionEvent.SILENT:
        return TransportError("it does not answer: a connection is taken there, and nothing comes")
    return TransportError(
        "the server at that address is not this tracker (wrong key), or it dropped the connection"
    )


async def connected(
    make: Callable[[str], TrackerConnection], where: Tracker, timeout_s: float
) -> TrackerConnection:
    """Return the first connection that is up, among those to all addresses of the tracker's name.

    Addresses are tried in the system's order, the next one when the one before it has failed or
    has not answered in `STAGGER_S`. Raises `TransportError` with the best reason when each had
    ``timeout_s``.
    """
    return await _first_up(make, await endpoints_of(where.endpoint), timeout_s)


async def _first_up(
    make: Callable[[str], TrackerConnection], endpoints: Sequence[str], timeout_s: float
) -> TrackerConnection:
    left = list(endpoints)
    trying: dict[asyncio.Task[None], TrackerConnection] = {}
    errors: list[TransportError] = []
    winner: TrackerConnection | None = None
    try:
        while left or trying:
            if left:
                connection = make(left.pop(0))
                trying[asyncio.create_task(_settled(connection, timeout_s))] = connection
            done, _ = await asyncio.wait(
                trying,
                timeout=STAGGER_S if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                connection = trying.pop(task)
                if connection.up.is_set() and winner is None:
                    winner = connection
                else:
                    errors.append(connection.trouble or _trouble(ConnectionEvent.UNREACHABLE))
                    connection.close()
            if winner is not None:
                return winner
    finally:
        for task, connection in trying.items():
            task.cancel()
            connection.close()
    # Why: most addresses of a name have no server at all; any other reason is worth more.
    raise max(errors, key=lambda error: error.message != _NO_ANSWER)


async def _settled(connection: TrackerConnection, timeout_s: float) -> None:
    """Wait until the connection is up, or failed, or its time is over."""
    up = asyncio.ensure_future(connection.up.wait())
    ended = asyncio.ensure_future(connection.ended.wait())
    try:
        await asyncio.wait((up, ended), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        up.cancel()
        ended.cancel()
