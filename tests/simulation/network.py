"""Network in virtual time: links with rates, delays, loss and one-way partitions.

Owns: the event queue and the links. Not here: the messages (see tests.simulation.peer).

Data travels in chunks. The flows with data to send share an uplink chunk by chunk in rotation, and
a downlink takes chunks as they arrive. Each flow has a window of chunks that were sent and not yet
acknowledged, as a TCP connection has. So flows that meet at a downlink share it evenly, each waits
there with its window at most, and a sender gives what one flow cannot use to its other flows. The
window covers the path's bandwidth-delay product and a few chunks; slow start is not modelled.

Small messages cost delay and no rate, but wait behind the pieces that were sent before them on the
same connection.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

Action = Callable[..., None]


class Clock:
    """Virtual clock with its event queue. Events at equal times run in the order of scheduling."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._queue: list[tuple[float, int, Action, tuple[Any, ...]]] = []
        self._order = 0

    def at(self, when: float, action: Action, *args: Any) -> None:
        self._order += 1
        heappush(self._queue, (max(when, self.now), self._order, action, args))

    def run(self, until: float, done: Callable[[], bool]) -> None:
        """Run events until the time is over, the queue is empty, or `done` returns True."""
        queue = self._queue
        while queue and queue[0][0] <= until and not done():
            self.now, _, action, args = heappop(queue)
            self.events += 1
            action(*args)


class Flow:
    """One direction of one connection: an ordered queue of (bytes, action on arrival)."""

    __slots__ = (
        "bytes_left",
        "dst",
        "last_at",
        "messages",
        "moved_at",
        "queued",
        "src",
        "unacked",
        "window",
    )

    def __init__(self, src: Link, dst: Link) -> None:
        self.src, self.dst = src, dst
        self.messages: deque[tuple[int, Action, tuple[Any, ...]]] = deque()
        self.bytes_left = 0
        """Of the first message."""
        self.queued = False
        """It is in the rotation of its uplink, or waits for an acknowledgement."""
        self.unacked: deque[float] = deque()
        """Chunks in its window, by the time of their acknowledgement."""
        self.window = 0
        """Maximum of chunks that are not acknowledged; 0 before the first chunk."""
        self.last_at = 0.0
        self.moved_at = float("-inf")
        """Time at which a part of a message last arrived."""


class Link:
    """Access link of one node: rates in bytes a second, delay in seconds to the core."""

    __slots__ = ("active", "busy", "delay_s", "down", "down_free_at", "name", "up")

    def __init__(self, name: int, up: float, down: float, delay_s: float) -> None:
        self.name = name
        self.up, self.down, self.delay_s = up, down, delay_s
        self.down_free_at = 0.0
        self.active: deque[Flow] = deque()
        self.busy = False


_WINDOW_CHUNKS = 3
"""Chunks in a window beside the bandwidth-delay product: one on the uplink, one on the downlink,
and one that waits there."""


class Network:
    """All links, with the faults of a network."""

    def __init__(self, clock: Clock, rng: Random, *, chunk: int, loss: float, rto_s: float) -> None:
        self.clock = clock
        self._rng = rng
        self._chunk = chunk
        self._loss = loss
        self._rto_s = rto_s
        self._cut: set[tuple[int, int]] = set()
        self._parked: list[Flow] = []
        self.messages = 0
        self.data_bytes = 0

    def cut(self, src: int, dst: int) -> None:
        """Drop everything from `src` to `dst` from now on; the other direction is not affected."""
        self._cut.add((src, dst))

    def heal(self, src: int, dst: int) -> None:
        """End a partition, and send the waiting messages."""
        self._cut.discard((src, dst))
        parked, self._parked = self._parked, []
        for flow in parked:
            self._wake(flow)

    def send(self, flow: Flow, size: int, action: Action, *args: Any) -> None:
        """Send a message; `action(*args)` runs when all of it has arrived."""
        if size == 0:
            self.messages += 1
            if not flow.messages and (flow.src.name, flow.dst.name) not in self._cut:
                self._deliver(flow, self.clock.now, action, args)
                return
        else:
            self.data_bytes += size
        if not flow.messages:
            flow.bytes_left = size
        flow.messages.append((size, action, args))
        self._wake(flow)

    def _wake(self, flow: Flow) -> None:
        if not flow.queued:
            flow.queued = True
            flow.src.active.append(flow)
            if not flow.src.busy:
                self._next_chunk(flow.src)

    def _next_chunk(self, link: Link) -> None:
        now, active = self.clock.now, link.active
        while active:
            flow = active.popleft()
            if not flow.messages:
                flow.queued = False
                continue
            if self._cut and (flow.src.name, flow.dst.name) in self._cut:
                flow.queued = False
                self._parked.append(flow)
                continue
            unacked = flow.unacked
            while unacked and unacked[0] <= now:
                unacked.popleft()
            if len(unacked) >= (flow.window or self._window(flow)):
                self.clock.at(unacked[0], self._acknowledged, flow)
                continue
            link.busy = True
            size = min(self._chunk, flow.bytes_left)
            self.clock.at(now + size / link.up, self._chunk_sent, flow, size)
            return
        link.busy = False

    def _window(self, flow: Flow) -> int:
        """Set and return the window of a flow, in chunks."""
        src, dst = flow.src, flow.dst
        bdp = min(src.up, dst.down) * 2.0 * (src.delay_s + dst.delay_s)
        flow.window = _WINDOW_CHUNKS + int(bdp / self._chunk)
        return flow.window

    def _acknowledged(self, flow: Flow) -> None:
        """Put a flow back into the rotation that waited for an acknowledgement."""
        link = flow.src
        link.active.append(flow)
        if not link.busy:
            self._next_chunk(link)

    def _chunk_sent(self, flow: Flow, size: int) -> None:
        now, src, dst = self.clock.now, flow.src, flow.dst
        delay_s = src.delay_s + dst.delay_s
        arrival = max(now + delay_s, dst.down_free_at) + size / dst.down
        dst.down_free_at = arrival
        flow.unacked.append(arrival + delay_s)
        flow.moved_at = now
        messages = flow.messages
        if messages:
            flow.bytes_left -= size
            while messages and flow.bytes_left <= 0:
                _, action, args = messages.popleft()
                self._deliver(flow, arrival - delay_s, action, args)
                if messages:
                    flow.bytes_left = messages[0][0]
        if messages:
            src.active.append(flow)
        else:
            flow.queued = False
        self._next_chunk(src)

    def _deliver(self, flow: Flow, ready_at: float, action: Action, args: tuple[Any, ...]) -> None:
        arrival = ready_at + flow.src.delay_s + flow.dst.delay_s
        if self._loss and self._rng.random() < self._loss:
            arrival += self._rto_s
        arrival = flow.last_at = max(arrival, flow.last_at)
        self.clock.at(arrival, action, *args)
