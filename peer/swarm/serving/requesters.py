"""Those who fetch from this peer, what they wait for, and what is on its way to them.

Owns the queue of each requester, and the accounts of requesters and users, which `uplink` keeps.
Who is served next is decided in `schedule`.
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

_UNCREDITED_MIN = 1 * MIB
_UNCREDITED_MAX = 8 * MIB
_UNCREDITED_FAR_MAX = ON_ITS_WAY_MAX
_UNCREDITED_S = 0.1
"""What a requester takes in this time, or in twice the least time from send to credit, may be on
its way to it: the socket never runs dry, and little is committed that could go better elsewhere.
It is twice `ServingSettings.in_flight_s`: with as much as that on our uplink before what is its own
a requester would be given no more than it happens to get, and never come to its share."""


@dataclass(slots=True, eq=False)
class Content:
    """One content that is offered."""

    id: ContentId
    layout: PieceLayout
    have: Bitfield | None
    """None: all of it."""
    sent: dict[int, int] = field(default_factory=dict)
    """How often each piece was sent, where it was at all."""

    def holds(self, index: int) -> bool:
        return self.have is None or index in self.have


@dataclass(slots=True, eq=False)
class User:
    """The account of one user, over all its connections.

    What may be on its way is the user's, not the connection's: with room for each of them, four
    would get further ahead than an epoch whenever the only one of another user has none.
    """

    id: UserId
    served: int = 0
    """Bytes sent to it, lifted when it comes back after a pause so that idleness saves nothing."""
    requesters: int = 0
    unacked_bytes: int = 0
    """Bytes on their way to it."""
    in_flight: int = 0
    """Bytes of these on their way to requesters that are not stalled."""
    late: bool = False
    """It owed credit for too long, and has credited nothing since: others come first."""
    throughput: Throughput = field(default_factory=Throughput)
    place: tuple[bool, int, int, int, int] | None = None
    """Its place in the schedule, as it was last put there; None when it is not in it."""
    line: list[tuple[tuple[int, int, int], Requester]] = field(default_factory=list)
    """Heap of its requesters that could be served; corrected lazily."""

    def has_room(self, requester: Requester, wanted: Wanted) -> bool:
        """Whether the piece may be on its way to it as well, to this requester of it."""
        if not self.in_flight:
            return True
        layout = wanted.content.layout
        # What several connections wait for in our own queue passes for the length of their way.
        alone = self.in_flight == requester.uncredited
        far_max = _UNCREDITED_FAR_MAX if alone else _UNCREDITED_MAX
        room = _room(self.throughput.rate, requester.min_rtt_s, layout.piece_length, far_max)
        return self.in_flight + layout.size_of(wanted.index) <= room


@dataclass(slots=True, eq=False)
class Wanted:
    """One request in a queue."""

    content: Content
    index: int
    order: int
    """Counts up with every request of the requester: what it asked for first comes first."""


class OnItsWay(NamedTuple):
    """One piece that was sent."""

    content: ContentId
    piece: int
    end: int
    """`Requester.committed` after it."""
    size: int
    at: float


@dataclass(slots=True, eq=False)
class Requester:
    """One connection that fetches."""

    id: RequesterId
    user: User
    waiting: dict[tuple[ContentId, int], Wanted] = field(default_factory=dict)
    served: int = 0
    committed: int = 0
    """Bytes sent on the connection so far."""
    credited: int = 0
    """Bytes of these that the requester says it has got."""
    sends: deque[OnItsWay] = field(default_factory=deque)
    """What is not credited yet, oldest first."""
    min_rtt_s: float = 0.0
    """Least time from send to credit; 0 while nothing was credited."""
    throughput: Throughput = field(default_factory=Throughput)
    progress_at: float = 0.0
    """When it last credited something, or was sent something after having owed nothing."""
    stalled: bool = False
    """It has not credited for long: what it owes does not hold others back, and it is sent no
    more until it does."""
    place: tuple[int, int, int] | None = None
    """Its place in its user's line, as it was last put there; None when it is not in it."""
    _heap: list[tuple[int, int, Wanted]] = field(default_factory=list)
    """`waiting` by how often the piece was sent; corrected lazily, since that only grows."""
    _orders: int = 0

    @property
    def uncredited(self) -> int:
        return self.committed - self.credited

    def has_room(self, wanted: Wanted) -> bool:
        """Whether the piece may be on its way to it as well; a first one always may."""
        unacked_bytes = self.uncredited
        if not unacked_bytes:
            return True
        if self.stalled:
            return False
        layout = wanted.content.layout
        room = _room(self.throughput.rate, self.min_rtt_s, layout.piece_length)
        return unacked_bytes + layout.size_of(wanted.index) <= room

    def enqueue(self, content: Content, index: int) -> bool:
        """Put a request in; False when it is there."""
        key = (content.id, index)
        if key in self.waiting:
            return False
        self._orders += 1
        wanted = Wanted(content, index, self._orders)
        self.waiting[key] = wanted
        heappush(self._heap, (content.sent.get(index, 0), wanted.order, wanted))
        return True

    def dequeue(self, content: ContentId, index: int) -> bool:
        """Take a request out; False when it is not there."""
        if self.waiting.pop((content, index), None) is None:
            return False
        if len(self._heap) > 2 * len(self.waiting) + 64:
            self._heap = [e for e in self._heap if self._current(e[2])]
            self._heap.sort()
        return True

    def best(self) -> tuple[int, Wanted] | None:
        """The request whose piece was sent least often, and how often; None without requests."""
        heap = self._heap
        while heap:
            sent, order, wanted = heap[0]
            if not self._current(wanted):
                heappop(heap)
                continue
            actual = wanted.content.sent.get(wanted.index, 0)
            if actual <= sent:
                return actual, wanted
            heappop(heap)
            heappush(heap, (actual, order, wanted))
        return None

    def _current(self, wanted: Wanted) -> bool:
        return self.waiting.get((wanted.content.id, wanted.index)) is wanted


def _room(
    rate: float, min_rtt_s: float, piece_length: int, far_max: int = _UNCREDITED_FAR_MAX
) -> int:
    """Bytes that may be on their way to somebody who takes `rate` bytes a second."""
    steady = min(int(rate * _UNCREDITED_S), _UNCREDITED_MAX)
    far = min(int(rate * 2.0 * min_rtt_s), far_max)
    return max(_UNCREDITED_MIN, 2 * piece_length, steady, far)
