"""Connections of the HTTP listeners, bounded in number and in the time that each may take.

Why: every user of this machine can open the loopback port, and uvicorn lets a connection that sends
nothing, or takes nothing, stay for ever. Each one takes a descriptor that a download may need.

Owns: these bounds. A connection *waits* until a request of it has come whole. It is closed when it
has waited for `limits.HTTP_REQUEST_S`, and when it has taken nothing of its response for
`limits.NOT_READING_S`. Beyond `limits.HTTP_CONNECTIONS_MAX` a new one takes the place of the one
that has waited longest. So the page, which sends its requests at once, gets its place.
"""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from common import limits


class BoundedConnection(H11Protocol):
    """A connection with these bounds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting_since = self.loop.time()
        self._check_timer: asyncio.TimerHandle | None = None
        self._not_reading: asyncio.TimerHandle | None = None

    @property
    def _waits(self) -> bool:
        return self.conn.their_state in (h11.IDLE, h11.SEND_BODY)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > limits.HTTP_CONNECTIONS_MAX:
            self._make_room()
        self._check_later(limits.HTTP_REQUEST_S)

    def _make_room(self) -> None:
        others = (one for one in self.connections if isinstance(one, BoundedConnection))
        waiting = [one for one in others if one is not self and one._waits]
        leaving = min(waiting, key=lambda one: one._waiting_since, default=self)
        self.connections.discard(leaving)  # its end is told later than that of others that come now
        leaving.transport.abort()

    def _check_later(self, seconds: float) -> None:
        self._check_timer = self.loop.call_later(seconds, self._on_check)

    def _on_check(self) -> None:
        left = self._waiting_since + limits.HTTP_REQUEST_S - self.loop.time()
        if self._waits and left <= 0:
            self.transport.abort()
        else:
            self._check_later(left if left > 0 else limits.HTTP_REQUEST_S)

    def on_response_complete(self) -> None:
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._not_reading is None:
            abort = self.transport.abort
            self._not_reading = self.loop.call_later(limits.NOT_READING_S, abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._not_reading is not None:
            self._not_reading.cancel()
            self._not_reading = None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for timer in (self._check_timer, self._not_reading):
            if timer is not None:
                timer.cancel()
