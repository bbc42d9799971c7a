"""Who is given the next piece.

Owns the order among requesters. Whether anything may be sent at all is `uplink`'s to say.

1. *Fairness*: users are served in epochs of a few pieces. Nobody is given a piece in the next epoch
   while another who could be served is still in this one. Who owes credit for too long comes after
   those who do not, or whoever never credits would always be the one who was given least.
2. Within an epoch, *the piece that was sent least often*, so that a lone seeder sends every piece
   once before it sends any twice. This is what lets a flash crowd approach the fluid bound
   (Mundinger, Weber, Weiss, "Optimal scheduling of peer-to-peer file dissemination", 2008).
3. Then the user, and of one user the connection, that was given least.

A place in the order only grows worse while its holder waits, or is given anew, so the heaps are
corrected lazily, at the top: serving costs O(log requesters). There is one heap of the users, and
one of each user's requesters, so that a user without room is passed over once, not once for each
connection.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace

from peer.swarm.serving.events import RequesterId
from peer.swarm.serving.requesters import Requester, User, Wanted

_Place = tuple[bool, int, int, int, int]


class Schedule:
    """The requesters that could be served."""

    def __init__(self, epoch_bytes: int) -> None:
        self._epoch_bytes = epoch_bytes
        self._heap: list[tuple[_Place, User]] = []
        self._tickets = 0
        self._asleep: dict[RequesterId, tuple[float, Requester]] = {}
        """Those that may not be served before a certain time: full socket, user's limit."""
        self._virtual = 0
        """`User.served` of whom was served last: whoever comes or returns begins in its epoch."""

    def __bool__(self) -> bool:
        return bool(self._heap)

    def enqueue_requester(self, requester: Requester) -> None:
        """Give a requester its place, and its user, if they could be served."""
        best = self._best(requester)
        if best is not None and (requester.place is None or best[0] < requester.place[0]):
            requester.place = self._place_in_line(requester, best[0])
            heappush(requester.user.line, (requester.place, requester))
        self.update_user(requester.user)

    def update_user(self, user: User) -> None:
        """Give a user its place, if it could be served: it may have room again."""
        first = self._first(user)
        if first is None:
            return
        requester, sent, wanted = first
        if not user.has_room(requester, wanted):
            return
        if user.place is None:
            epoch_start = self._virtual // self._epoch_bytes * self._epoch_bytes
            user.served = max(user.served, epoch_start)
        elif user.place[0] <= user.late and user.place[2] <= sent:
            return
        self._put(user, self._place(user, sent))

    def take(self) -> tuple[Requester, Wanted] | None:
        """Take the first out, and what it should be given. It may be enlisted again after."""
        heap = self._heap
        while heap:
            place, user = heappop(heap)
            if user.place is not place:
                continue
            user.place = None
            first = self._first(user)
            if first is None:
                continue
            requester, sent, wanted = first
            if not user.has_room(requester, wanted):
                continue
            actual = self._place(user, sent)
            if actual[:4] > place[:4]:
                self._put(user, actual)
                continue
            heappop(user.line)
            requester.place = None
            return requester, wanted
        return None

    def served(self, requester: Requester) -> None:
        """It is being given a piece: called before its account grows by it."""
        self._virtual = requester.user.served

    def sleep(self, requester: Requester, until: float) -> None:
        """Leave a requester alone for a while. Others of its user may be served."""
        self._asleep[requester.id] = (until, requester)
        self.update_user(requester.user)

    def wake(self, now: float) -> None:
        """Enlist those whose time has come."""
        for until, requester in [entry for entry in self._asleep.values() if entry[0] <= now]:
            del until, self._asleep[requester.id]
            self.enqueue_requester(requester)

    def due_at(self) -> float | None:
        """When `wake` will find somebody."""
        return min((until for until, _ in self._asleep.values()), default=None)

    def left(self, requester: Requester) -> None:
        """The requester is gone."""
        requester.place = None
        self._asleep.pop(requester.id, None)
        self.update_user(requester.user)

    def _best(self, requester: Requester) -> tuple[int, Wanted] | None:
        """What the requester should be given, and how often that was sent; None: nothing yet."""
        best = requester.best()
        if best is None or requester.id in self._asleep or not requester.has_room(best[1]):
            return None
        return best

    def _first(self, user: User) -> tuple[Requester, int, Wanted] | None:
        """The first in the user's line: it stays there, at the top."""
        line = user.line
        while line:
            place, requester = line[0]
            if requester.place is not place:
                heappop(line)
                continue
            best = self._best(requester)
            if best is None:
                heappop(line)
                requester.place = None
                continue
            actual = self._place_in_line(requester, best[0])
            if actual[:2] > place[:2]:
                requester.place = actual
                heapreplace(line, (actual, requester))
                continue
            return requester, best[0], best[1]
        return None

    def _put(self, user: User, place: _Place) -> None:
        user.place = place
        heappush(self._heap, (place, user))

    def _place(self, user: User, sent: int) -> _Place:
        self._tickets += 1
        epoch = user.served // self._epoch_bytes
        return (user.late, epoch, sent, user.served, self._tickets)

    def _place_in_line(self, requester: Requester, sent: int) -> tuple[int, int, int]:
        self._tickets += 1
        return (sent, requester.served, self._tickets)

    def check_invariants(self, requesters: list[Requester]) -> None:
        """Raise AssertionError when somebody could be served and has no place. For tests."""
        for requester in requesters:
            best = self._best(requester)
            if best is not None:
                assert requester.place is not None
                assert any(place is requester.place for place, _ in requester.user.line)
        for user in {id(r.user): r.user for r in requesters}.values():
            first = self._first(user)
            if first is not None and user.has_room(first[0], first[2]):
                assert user.place is not None
                assert any(place is user.place for place, _ in self._heap)
