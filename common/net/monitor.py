"""Socket monitor: connection events of a socket, from libzmq's monitor."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from enum import Enum
from typing import Any, Protocol

import zmq

from common.net.pump import Frames, Pump


class ConnectionEvent(Enum):
    """Event of a connection."""

    UP = "up"
    """A handshake succeeded: keys on both sides are as they must be."""
    DOWN = "down"
    """An established connection ended."""
    FAILED = "failed"
    """Connected, but the handshake failed: a wrong key, or not admitted."""
    SILENT = "silent"
    """Connected, but no handshake came in time: the other side did not answer."""
    UNREACHABLE = "unreachable"
    """No connection could be made; libzmq tries again."""
    ACCEPT_FAILED = "accept failed"
    """A connection could not be accepted: out of file descriptors."""


class ConnectionObserver(Protocol):
    """Observer of begin and end of connections, by descriptor: `common.net.connection_limits`."""

    def opened(self, fd: int) -> None:
        """Record a new connection; its handshake is still to come."""

    def ended(self, fd: int) -> None:
        """Record the end of a connection, established or not."""


_EVENTS: dict[int, ConnectionEvent] = {
    zmq.EVENT_HANDSHAKE_SUCCEEDED: ConnectionEvent.UP,
    zmq.EVENT_DISCONNECTED: ConnectionEvent.DOWN,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: ConnectionEvent.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: ConnectionEvent.FAILED,
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: ConnectionEvent.FAILED,
    zmq.EVENT_CONNECT_RETRIED: ConnectionEvent.UNREACHABLE,
    zmq.EVENT_ACCEPT_FAILED: ConnectionEvent.ACCEPT_FAILED,
}
_WATCHED = 0
for _event in _EVENTS:
    _WATCHED |= int(_event)
_OPENED = (zmq.EVENT_ACCEPTED, zmq.EVENT_CONNECTED)


class SocketMonitor:
    """Monitor of one socket: reports events to ``on_event``, descriptors to ``observer``."""

    def __init__(
        self,
        socket: zmq.Socket[Any],
        on_event: Callable[[ConnectionEvent], None],
        observer: ConnectionObserver | None = None,
    ) -> None:
        from zmq.utils.monitor import parse_monitor_message  # imports asyncio: see `Pump`

        self._parse = parse_monitor_message
        self._watched = socket
        self._on_event = on_event
        self._observer = observer
        opened = 0 if observer is None else int(_OPENED[0] | _OPENED[1])
        monitor = socket.get_monitor_socket(_WATCHED | opened)
        self._pump = Pump(monitor, self._on_frames)

    def _on_frames(self, frames: Frames) -> None:
        message = self._parse([frame.bytes for frame in frames])
        event = message["event"]
        if self._observer is not None:
            if event in _OPENED:
                self._observer.opened(int(message["value"]))
            elif event == zmq.EVENT_DISCONNECTED:
                self._observer.ended(int(message["value"]))
        reported = _EVENTS.get(event)
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and message["value"] == errno.EAGAIN:
            # The last read found no data; a read of a closed connection would fail otherwise.
            reported = ConnectionEvent.SILENT
        if reported is not None:
            self._on_event(reported)

    def close(self) -> None:
        """Stop monitoring. Call it before the monitored socket is closed."""
        with contextlib.suppress(zmq.ZMQError):
            self._watched.monitor(None, 0)
        # pyzmq remembers the monitor on the socket, and would close it a second time.
        self._watched._monitor_socket = None
        self._pump.close()


def monitored(
    socket: zmq.Socket[Any],
    on_event: Callable[[ConnectionEvent], None],
    observer: ConnectionObserver | None = None,
) -> SocketMonitor:
    """Return a `SocketMonitor` of a new socket.

    Closes the socket and raises `zmq.ZMQError` on failure.
    """
    try:
        return SocketMonitor(socket, on_event, observer)
    except zmq.ZMQError:
        socket.close(linger=0)
        raise
