"""The two sockets of one connection to one tracker: for commands, and for what it publishes.

Owns making and closing them, and what their connections tell. When there is one, and what is said
on it, is ``peer.tracker_link``'s business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import zmq

from common import limits
from common.keys import KeyPair
from common.link import Tracker
from common.messages import events
from common.sockets import Connect, Frames, Link, Pump, Watch, make_socket, watched


class TrackerConnection:
    """The sockets of one connection to one tracker, from connecting to closing."""

    def __init__(
        self,
        context: zmq.Context[Any],
        pair: KeyPair,
        where: Tracker,
        on_reply: Callable[[Frames], None],
        on_published: Callable[[Frames], None],
    ) -> None:
        self.where = where
        self._context = context
        self._role = Connect(pair, where.key)
        self._on_published = on_published
        self.ended = asyncio.Event()
        self.up = asyncio.Event()
        self.events_up = asyncio.Event()
        self.refused = False
        commands = make_socket(
            context, zmq.DEALER, self._role, message_bytes_max=limits.REPLY_BYTES_MAX
        )
        self._watch = watched(commands, self._on_link)
        self.commands = Pump(commands, on_reply)
        self.events: Pump | None = None
        self._events_watch: Watch | None = None
        try:
            commands.connect(where.endpoint)
        except zmq.ZMQError:
            self.close()
            raise

    def _on_link(self, link: Link) -> None:
        if link is Link.UP:
            self.up.set()
        elif link in (Link.DOWN, Link.FAILED, Link.UNREACHABLE):
            self.refused = self.refused or link is not Link.UNREACHABLE
            self.ended.set()

    def _on_events_link(self, link: Link) -> None:
        if link is Link.UP:
            self.events_up.set()
        elif link in (Link.DOWN, Link.FAILED):
            self.ended.set()

    def subscribe_at(self, endpoint: str) -> None:
        """Connect to where the tracker publishes."""
        socket = make_socket(
            self._context,
            zmq.SUB,
            self._role,
            message_bytes_max=limits.EVENT_BYTES_MAX,
            receive_queue=10_000,
        )
        socket.setsockopt(zmq.SUBSCRIBE, events.BEAT_TOPIC)
        self._events_watch = watched(socket, self._on_events_link)
        self.events = Pump(socket, self._on_published)
        socket.connect(endpoint)

    def close(self) -> None:
        self._watch.close()
        self.commands.close()
        if self._events_watch is not None:
            self._events_watch.close()
        if self.events is not None:
            self.events.close()
