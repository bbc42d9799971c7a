"""Event feed: the events of the user's groups, kept for streams that were interrupted.

Owns: the last `limits.EVENTS_KEPT` events with their ids, and the open streams. An id is
``RUN-NUMBER``: ``RUN`` differs at each start of the peer, so that an id of an earlier run is never
taken for one of this run. Not here: where events come from (see peer.control.handlers).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from common import limits
from common.messages import control
from peer.control.server import Notify

Listen: TypeAlias = Callable[[Notify], Callable[[], None]]
"""Begins to report all events, and returns the function that ends it."""


def message(event: str, data: Any, event_id: str = "") -> bytes:
    """One message of a ``text/event-stream``. JSON has no line break, so one data line holds it."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}event: {event}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


BEAT = b": alive\n\n"


@dataclass(slots=True, eq=False)
class _Stream:
    group: str | None
    waiting: deque[bytes] = field(default_factory=deque)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    overrun: bool = False

    def add(self, text: bytes) -> None:
        if len(self.waiting) >= limits.EVENT_BACKLOG_MAX:
            self.overrun = True
            self.waiting.clear()
        else:
            self.waiting.append(text)
        self.woken.set()


class EventFeed:
    """Feed of one peer. All methods run in its event loop."""

    def __init__(self, listen: Listen) -> None:
        self._run = secrets.token_hex(4)
        self._count = 0
        self._kept: deque[tuple[int, str, bytes]] = deque(maxlen=limits.EVENTS_KEPT)
        self._streams: set[_Stream] = set()
        self._closed = False
        self._stop = listen(self._on_message)

    @property
    def streams(self) -> int:
        """Number of open streams."""
        return len(self._streams)

    def close(self) -> None:
        """End all streams at once."""
        self._closed = True
        self._stop()
        for stream in self._streams:
            stream.woken.set()

    def _on_message(self, told: control.Progress | control.Happened) -> None:
        if isinstance(told, control.Progress):
            return
        self._count += 1
        document = msgspec.to_builtins(told)
        document = {**document.pop("details"), **document}
        document.pop("type", None)
        text = message(told.event, document, f"{self._run}-{self._count}")
        self._kept.append((self._count, told.group, text))
        for stream in self._streams:
            if stream.group in (None, told.group):
                stream.add(text)

    async def stream(self, group: str | None, last_id: str) -> AsyncIterator[bytes]:
        """Messages after ``last_id``, and then as they happen, until `close`.

        A ``gap`` message comes first if events after ``last_id`` are no longer kept. A reader that
        does not keep up is let go, and can connect again.
        """
        stream = _Stream(group)
        self._streams.add(stream)
        try:
            yield BEAT  # the headers go out now
            for text in self._after(group, last_id):
                yield text
            while not self._closed:
                while stream.waiting:
                    yield stream.waiting.popleft()
                if stream.overrun:
                    return
                stream.woken.clear()
                try:
                    await asyncio.wait_for(stream.woken.wait(), limits.EVENT_BEAT_S)
                except TimeoutError:
                    yield BEAT
        finally:
            self._streams.discard(stream)

    def _after(self, group: str | None, last_id: str) -> list[bytes]:
        if not last_id:
            return []
        run, _, number = last_id.partition("-")
        oldest = self._kept[0][0] if self._kept else self._count + 1
        known = run == self._run and number.isascii() and number.isdecimal()
        after = int(number[:20]) if known else 0
        found = [text for count, of, text in self._kept if count > after and group in (None, of)]
        if not known or after + 1 < oldest:
            return [message("gap", {"kept": len(found)}), *found]
        return found
