"""Requesters and users that this peer serves: their queues and accounts.

Owns: the queue of each requester, and the accounts that `uplink` keeps. Not here: the choice of the
next requester (see schedule).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import NamedTuple

from common.ids import ContentId, UserId
from common.limits import MIB, ON_ITS_WAY_MAX
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.rates import Throughput
from peer.swarm.serving.events import RequesterId

_UNACKED_MIN = 1 * MIB
_UNACKED_MAX = 16 * MIB
_UNACKED_FAR_MAX = ON_ITS_WAY_MAX
_UNACKED_S = 0.1
"""A requester may have unacknowledged the bytes that it takes in this time, or in twice its minimum
RTT if that is longer. So its socket never runs dry, and few bytes are sent that other requesters
could use better.

Why twice `ServingSettings.in_flight_s`: up to `in_flight_s` of other users' data may be queued
ahead on our uplink. With a smaller bound a requester's window would close before its own data is
sent, and it would never reach its fair share."""


@dataclass(slots=True, eq=False)
class Content:
    """One content that this peer offers."""

    id: ContentId
    layout: PieceLayout
    have: Bitfield | None
    """None: every piece."""
    sent: dict[int, int] = field(default_factory=dict)
    """Number of sends of each piece that was sent at all."""

    def holds(self, index: int) -> bool:
        return self.have is None or index in self.have


@dataclass(slots=True, eq=False)
class User:
    """The account of one user, over all its connections.

    Why the bound on unacknowledged bytes is the user's, not the connection's: with a bound for
    each, four connections would get further ahead than an epoch whenever the only connection of
    another user has no headroom.
    """

    id: UserId
    served: int = 0
    """Bytes sent to it; raised after a pause, so that idleness saves nothing."""
    requesters: int = 0
    unacked_bytes: int = 0
    """Bytes sent to it and not acknowledged."""
    in_flight: int = 0
    """Those of them that were sent to requesters that are not stalled."""
    deprioritised: bool = False
    """An acknowledgement is overdue, and none has come since: other users come first."""
    throughput: Throughput = field(default_factory=Throughput)
    key: tuple[bool, int, int, int, int] | None = None
    """Its current sort key in the schedule; None if it is not in it."""
    queue: list[tuple[tuple[int, int, int], Requester]] = field(default_factory=list)
    """Heap of its requesters that could be served; corrected lazily."""

    def has_headroom(self, requester: Requester, request: QueuedRequest) -> bool:
        """Return whether the piece may be sent to this requester of the user."""
        if not self.in_flight:
            return True
        layout = request.content.layout
        needed = self.in_flight + layout.size_of(request.index)
        if needed <= _UNACKED_MIN:
            return True
        # With several connections, the wait in our own queue would look like a longer RTT.
        alone = self.in_flight == requester.unacked_bytes
        far_max = _UNACKED_FAR_MAX if alone else _UNACKED_MAX
        rate, min_rtt_s = self.throughput.rate, requester.min_rtt_s
        bound = _unacked_bound(rate, min_rtt_s, layout.piece_length, far_max)
        return needed <= bound


@dataclass(slots=True, eq=False)
class QueuedRequest:
    """One request in a requester's queue."""

    content: Content
    index: int
    order: int
    """Sequence number of the request at its requester: earlier requests come first."""


class UnackedSend(NamedTuple):
    """One piece that was sent and is not acknowledged."""

    content: ContentId
    piece: int
    end: int
    """`Requester.sent_bytes` after it."""
    size: int
    at: float


@dataclass(slots=True, eq=False)
class Requester:
    """One connection that fetches from this peer."""

    id: RequesterId
    user: User
    waiting: dict[tuple[ContentId, int], QueuedRequest] = field(default_factory=dict)
    served: int = 0
    sent_bytes: int = 0
    """Bytes sent on the connection so far."""
    acked_bytes: int = 0
    """Those of them that the requester reports as received."""
    sends: deque[UnackedSend] = field(default_factory=deque)
    """Sends that are not acknowledged, oldest first."""
    min_rtt_s: float = 0.0
    """Minimum time from send to acknowledgement; 0 before the first acknowledgement."""
    throughput: Throughput = field(default_factory=Throughput)
    unacked_since: float = 0.0
    """Time of its last acknowledgement or, if later, of the first send after all was acked."""
    stalled: bool = False
    """Its acknowledgement is overdue: its bytes do not count against others, and it is sent nothing
    until it acknowledges."""
    key: tuple[int, int, int] | None = None
    """Its current sort key in its user's queue; None if it is not in it."""
    _heap: list[tuple[int, int, QueuedRequest]] = field(default_factory=list)
    """`waiting` by the piece's number of sends; corrected lazily, since that only grows."""
    _orders: int = 0

    @property
    def unacked_bytes(self) -> int:
        return self.sent_bytes - self.acked_bytes

    def has_headroom(self, request: QueuedRequest) -> bool:
        """Return whether the piece may be sent as well; a first one always may."""
        unacked_bytes = self.sent_bytes - self.acked_bytes
        if not unacked_bytes:
            return True
        if self.stalled:
            return False
        layout = request.content.layout
        needed = unacked_bytes + layout.size_of(request.index)
        if needed <= _UNACKED_MIN:
            return True
        return needed <= _unacked_bound(self.throughput.rate, self.min_rtt_s, layout.piece_length)

    def enqueue(self, content: Content, index: int) -> bool:
        """Add a request; return False if it is waiting already."""
        key = (content.id, index)
        if key in self.waiting:
            return False
        self._orders += 1
        request = QueuedRequest(content, index, self._orders)
        self.waiting[key] = request
        heappush(self._heap, (content.sent.get(index, 0), request.order, request))
        return True

    def dequeue(self, content: ContentId, index: int) -> bool:
        """Remove a request; return False if it is not waiting."""
        if self.waiting.pop((content, index), None) is None:
            return False
        if len(self._heap) > 2 * len(self.waiting) + 64:
            self._heap = [e for e in self._heap if self._current(e[2])]
            self._heap.sort()
        return True

    def best(self) -> tuple[int, QueuedRequest] | None:
        """Return the request for the least-sent piece, with its number of sends; or None."""
        heap = self._heap
        while heap:
            sent, order, request = heap[0]
            if not self._current(request):
                heappop(heap)
                continue
            actual = request.content.sent.get(request.index, 0)
            if actual <= sent:
                return actual, request
            heappop(heap)
            heappush(heap, (actual, order, request))
        return None

    def _current(self, request: QueuedRequest) -> bool:
        return self.waiting.get((request.content.id, request.index)) is request


def _unacked_bound(
    rate: float, min_rtt_s: float, piece_length: int, far_max: int = _UNACKED_FAR_MAX
) -> int:
    """Return the bytes that may be unacknowledged at a receiver of `rate` bytes a second."""
    steady = min(int(rate * _UNACKED_S), _UNACKED_MAX)
    far = min(int(rate * 2.0 * min_rtt_s), far_max)
    return max(_UNACKED_MIN, 2 * piece_length, steady, far)
