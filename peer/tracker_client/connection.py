"""Connection to one tracker: two sockets, for commands and for published messages.

Owns: making and closing them, their connection events, and the choice among the addresses of the
tracker's name. Not here: when to connect, and the messages (see ``peer.tracker_client.link``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
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
from common.net.sockets import TO_TRACKER, Connect, make_socket

STAGGER_S = 0.25  # an address that has not answered by then has company (RFC 8305)
_NO_ANSWER = "no server answers there"


class TrackerConnection:
    """Sockets of one connection to ``endpoint``, one address of a tracker."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        on_reply: Callable[[Frames], None],
        on_published: Callable[[Frames], None],
        where: Tracker,
        endpoint: str,
    ) -> None:
        self.where = where
        self.endpoint = endpoint
        self._context = context
        self._role = Connect(pair, where.key)
        self._on_published = on_published
        self.ended = asyncio.Event()
        self.up = asyncio.Event()
        self.events_up = asyncio.Event()
        self.error: TransportError | None = None
        """The reason for the failure, once `ended` is set without `up`."""
        commands = make_socket(
            context,
            zmq.DEALER,
            self._role,
            message_bytes_max=limits.REPLY_BYTES_MAX,
            timing=TO_TRACKER,
        )
        self._monitor = monitored(commands, self._on_event)
        self.commands = Pump(commands, on_reply)
        self.events: Pump | None = None
        self._events_monitor: SocketMonitor | None = None
        try:
            commands.connect(endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def _on_event(self, event: ConnectionEvent) -> None:
        if event is ConnectionEvent.UP:
            self.up.set()
        elif event in (
            ConnectionEvent.DOWN,
            ConnectionEvent.FAILED,
            ConnectionEvent.SILENT,
            ConnectionEvent.UNREACHABLE,
        ):
            # The first event has the reason; later ones only confirm the end.
            self.error = self.error or _error_of(event)
            self.ended.set()

    def _on_events_event(self, event: ConnectionEvent) -> None:
        if event is ConnectionEvent.UP:
            self.events_up.set()
        elif event in (ConnectionEvent.DOWN, ConnectionEvent.FAILED, ConnectionEvent.SILENT):
            self.ended.set()

    def subscribe_at(self, endpoint: str, topics: Iterable[bytes]) -> None:
        """Connect to the tracker's publishing socket and subscribe to its beacon and ``topics``."""
        socket = make_socket(
            self._context,
            zmq.SUB,
            self._role,
            message_bytes_max=limits.EVENT_BYTES_MAX,
            receive_queue=10_000,
            timing=TO_TRACKER,
        )
        for topic in (events.BEAT_TOPIC, *topics):
            socket.setsockopt(zmq.SUBSCRIBE, topic)
        self._events_monitor = monitored(socket, self._on_events_event)
        self.events = Pump(socket, self._on_published)
        socket.connect(endpoint)

    async def wait_subscribed(self, timeout_s: float) -> None:
        """Wait for the connection to the publishing socket. Raises `TransportError`."""
        await _first_of(self.events_up, self.ended, timeout_s)
        if not self.events_up.is_set():
            raise TransportError("its events cannot be subscribed to")

    def close(self) -> None:
        """Close both sockets."""
        self._monitor.close()
        self.commands.close()
        if self._events_monitor is not None:
            self._events_monitor.close()
        if self.events is not None:
            self.events.close()


def _error_of(event: ConnectionEvent) -> TransportError:
    if event is ConnectionEvent.UNREACHABLE:
        return TransportError(_NO_ANSWER)
    if event is ConnectionEvent.SILENT:
        return TransportError("it does not answer: a connection is taken there, and nothing comes")
    return TransportError(
        "the server at that address is not this tracker (wrong key), or it dropped the connection"
    )


async def connected_to_any(
    make: Callable[[Tracker, str], TrackerConnection],
    trackers: Sequence[Tracker],
    timeout_s: float,
) -> TrackerConnection:
    """Return the first connection that is up, among those to ``trackers``, in their order.

    The next one is tried too when those before it have failed or have not answered in `STAGGER_S`.
    Raises `TransportError` or a ZMQError with the best reason when each had ``timeout_s``.
    """
    left = list(trackers)
    trying: set[asyncio.Task[TrackerConnection]] = set()
    errors: list[TransportError | zmq.ZMQError] = []
    try:
        while left or trying:
            if left:
                where = left.pop(0)
                trying.add(asyncio.create_task(connected(partial(make, where), where, timeout_s)))
            done, trying = await asyncio.wait(
                trying,
                timeout=STAGGER_S if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            up = []
            for task in done:
                try:
                    up.append(task.result())
                except (TransportError, zmq.ZMQError) as error:
                    errors.append(error)
            for connection in up[1:]:
                connection.close()
            if up:
                return up[0]
    finally:
        for task in trying:
            task.add_done_callback(_close_result)
            task.cancel()
    raise max(errors, key=lambda error: str(error) != _NO_ANSWER)


def _close_result(task: asyncio.Task[TrackerConnection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


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
                wait = _first_of(connection.up, connection.ended, timeout_s)
                trying[asyncio.create_task(wait)] = connection
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
                    errors.append(connection.error or _error_of(ConnectionEvent.UNREACHABLE))
                    connection.close()
            if winner is not None:
                return winner
    finally:
        for task, connection in trying.items():
            task.cancel()
            connection.close()
    # Why: most addresses of a name have no server at all; any other reason is worth more.
    raise max(errors, key=lambda error: error.message != _NO_ANSWER)


async def _first_of(one: asyncio.Event, other: asyncio.Event, timeout_s: float) -> None:
    """Wait until one of two events is set, or the time is over."""
    waits = [asyncio.ensure_future(event.wait()) for event in (one, other)]
    try:
        await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
