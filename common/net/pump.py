"""Pump: a socket joined to the running event loop.

asyncio only reports that the socket's descriptor is readable; the pump then reads all messages by
itself. Why: this costs a fraction of a future for each message.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from functools import partial
from typing import Any

import zmq

from common import limits

log = logging.getLogger(__name__)


class Sent(Enum):
    """Outcome of a send."""

    YES = "yes"
    FULL = "full"
    """The connection's queue is full: try again later."""
    GONE = "gone"
    """Its destination is not connected."""


Frames = list[zmq.Frame]
_DONTWAIT = int(zmq.DONTWAIT)
_DONTWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


class Pump:
    """Reader and writer of one socket in the running event loop.

    ``on_message`` is called with the frames of each message, in order. It must not block. Its
    exceptions are logged, and the pump goes on. Why: a bad message must not stop a process from
    receiving.
    """

    BATCH = 64  # messages read in a row before other callbacks of the loop run
    # One more than any valid message has, and a routing id; further frames are discarded.
    FRAMES_KEPT = limits.HEAD_FRAMES + limits.DATA_FRAMES_MAX + 2

    def __init__(self, socket: zmq.Socket[Any], on_message: Callable[[Frames], None]) -> None:
        # The command line makes sockets but pumps none; without asyncio it starts a third faster.
        from asyncio import get_running_loop

        self.socket = socket
        self._on_message = on_message
        self._loop = get_running_loop()
        self._fd: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self._scheduled = False
        self._draining = False
        self._closed = False
        # The backend's own methods: the option's number needs no look-up in an enumeration.
        self._send_part = partial(zmq.backend.Socket.send, socket)
        self._events: Callable[[], Any] = partial(zmq.backend.Socket.get, socket, _EVENTS)
        self._loop.add_reader(self._fd, self._drain)
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._resume)

    def _resume(self) -> None:
        self._scheduled = False
        self._drain()

    def _drain(self) -> None:
        # The descriptor is edge-triggered: it reports only the change from empty to readable. So
        # the socket is read until it is empty; after a full batch the rest is read in a later
        # callback. Asking for its state costs a quarter of the exception of an empty socket.
        self._draining = True
        try:
            for _ in range(self.BATCH):
                if self._closed or not self._events() & _POLLIN:
                    return
                frames = self._receive()
                try:
                    self._on_message(frames)
                except Exception:
                    log.exception("a message could not be handled")
        except zmq.Again:
            return
        except zmq.ZMQError as error:
            if self._closed or error.errno in (zmq.ETERM, zmq.ENOTSOCK):
                return
            raise
        finally:
            self._draining = False
        self._schedule()

    def _receive(self) -> Frames:
        # The same as recv_multipart, which asks the socket after each frame whether there is more
        # where the frame itself knows: a third of the cost of a small message.
        receive = self.socket.recv
        frame: Any = receive(_DONTWAIT, False)
        frames = [frame]
        while frame.more:
            frame = receive(_DONTWAIT, False)
            if len(frames) < self.FRAMES_KEPT:
                frames.append(frame)
        return frames

    def send(self, frames: Sequence[Any], *, copy: bool = True) -> Sent:
        """Send a message without waiting.

        With ``copy=False`` the last frame's buffer belongs to ZeroMQ until it is sent and must
        never be changed again.
        """
        if self._closed:
            return Sent.GONE
        try:
            # Only the first frame can be refused: the others follow it or none is sent.
            send = self._send_part
            for part in frames[:-1]:
                send(part, _DONTWAIT_MORE)
            send(frames[-1], _DONTWAIT, copy)
            outcome = Sent.YES
        except zmq.Again:
            outcome = Sent.FULL
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM):
                raise
            outcome = Sent.GONE
        self.after_send()
        return outcome

    def after_send(self) -> None:
        """Read soon if messages wait: sending may have consumed the wake-up of the reader."""
        if not (self._draining or self._scheduled) and self._events() & _POLLIN:
            self._schedule()

    def close(self) -> None:
        """Leave the loop and close the socket. May be called twice."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self.socket.close(linger=0)
