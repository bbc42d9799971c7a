"""Who is given the next piece.

Owns the order among requesters. Whether anything may be sent at all is `uplink`'s to say.

1. *Fairness*: users are served in epochs of a few pieces. Nobody is given a piece in the next epoch
   while another who could be served is still in this one.
2. Within an epoch, *the piece that was sent least often*, so that a lone seeder sends every piece
   once before it sends any twice. This is what lets a flash crowd approach the fluid bound
   (Mundinger, Weber, Weiss, "Optimal scheduling of peer-to-peer file dissemination", 2008).
3. Then the user, and of one user the connection, that was given least.

A place in the order only grows worse while its holder waits, so the heap is corrected lazily, at
the top: serving costs O(log requesters).
"""

from __future__ import annotations

from heapq import heappop, heappush

from peer.swarm.events import RequesterId
from peer.swarm.requesters import Requester, Wanted

_Place = tuple[int, int, int, int, int]


class Schedule:
    """The requesters that could be served."""

    def __init__(self, epoch_bytes: int) -> None:
        self._epoch_bytes = epoch_bytes
        self._heap: list[tuple[_Place, Requester]] = []
        self._tickets = 0
        self._asleep: dict[RequesterId, tuple[float, Requester]] = {}
        """Those that may not be served before a certain time: full socket, user's limit."""
        self._virtual = 0
        """`User.served` of whom was served last: whoever comes or returns begins in its epoch."""

    def __bool__(self) -> bool:
        return bool(self._heap)

    def enlist(self, requester: Requester) -> None:
        """Give a requester its place, if it could be served."""
        best = requester.best()
        if best is None or requester.id in self._asleep or not requester.has_room(best[1]):
            return
        if requester.place is None:
            epoch_start = self._virtual // self._epoch_bytes * self._epoch_bytes
            requester.user.served = max(requester.user.served, epoch_start)
        elif requester.place[1] <= best[0]:
            return
        self._put(requester, self._place(requester, best[0]))

    def take(self) -> tuple[Requester, Wanted] | None:
        """Take the first out, and what it should be given. It may be enlisted again after."""
        heap = self._heap
        while heap:
            place, requester = heappop(heap)
            if requester.place is not place:
                continue
            requester.place = None
            best = requester.best()
            if best is None or requester.id in self._asleep or not requester.has_room(best[1]):
                continue
            actual = self._place(requester, best[0])
            if actual[:4] > place[:4]:
                self._put(requester, actual)
                continue
            return requester, best[1]
        return None

    def served(self, requester: Requester) -> None:
        """It is being given a piece: called before its account grows by it."""
        self._virtual = requester.user.served

    def sleep(self, requester: Requester, until: float) -> None:
        """Leave a requester alone for a while."""
        self._asleep[requester.id] = (until, requester)

    def wake(self, now: float) -> None:
        """Enlist those whose time has come."""
        for until, requester in [entry for entry in self._asleep.values() if entry[0] <= now]:
            del until, self._asleep[requester.id]
            self.enlist(requester)

    def due_at(self) -> float | None:
        """When `wake` will find somebody."""
        return min((until for until, _ in self._asleep.values()), default=None)

    def left(self, requester: Requester) -> None:
        """The requester is gone."""
        requester.place = None
        self._asleep.pop(requester.id, None)

    def _put(self, requester: Requester, place: _Place) -> None:
        requester.place = place
        heappush(self._heap, (place, requester))

    def _place(self, requester: Requester, sent: int) -> _Place:
        served = requester.user.served
        self._tickets += 1
        return (served // self._epoch_bytes, sent, served, requester.served, self._tickets)
