"""Order in which requesters are served.

Owns: the order. Not here: whether anything may be sent at all (see uplink).

1. *Fairness*: users are served in epochs of a few pieces. No user gets a piece from the next epoch
   while another eligible user still has share left in this one. Users with overdue
   acknowledgements sort last; otherwise a requester that never acknowledges would always look least
   served.
2. Within an epoch, *the piece that was sent least often*, so that a lone seeder sends every piece
   once before it sends any twice. This lets a flash crowd approach the fluid bound (Mundinger,
   Weber, Weiss, "Optimal scheduling of peer-to-peer file dissemination", 2008).
3. Then the user, and of one user the connection, with the fewest bytes served.

A sort key only grows while its holder waits, or is computed anew, so the heaps are corrected
lazily, at the top: serving costs O(log requesters). One heap holds the users, and one heap of each
user its requesters, so that a user without headroom is skipped once, not once for each connection.
"""

from __future__ import annotations

from heapq import heappop, heappush, heapreplace

from peer.swarm.serving.events import RequesterId
from peer.swarm.serving.requesters import QueuedRequest, Requester, User

_UserKey = tuple[bool, int, int, int, int]


class Schedule:
    """The users and requesters that could be served, in order."""

    def __init__(self, epoch_bytes: int) -> None:
        self._epoch_bytes = epoch_bytes
        self._heap: list[tuple[_UserKey, User]] = []
        self._sequence = 0
        self._deferred: dict[RequesterId, tuple[float, Requester]] = {}
        """Requesters that must wait until a time: full socket, rate limit of the user."""
        self._virtual = 0
        """`User.served` of the last served user: a new or returning user starts in its epoch."""

    def __bool__(self) -> bool:
        return bool(self._heap)

    def enqueue_requester(self, requester: Requester) -> None:
        """Put a requester, and its user, into the order if they could be served."""
        best = self._best(requester)
        if best is not None and (requester.key is None or best[0] < requester.key[0]):
            requester.key = self._requester_key(requester, best[0])
            heappush(requester.user.queue, (requester.key, requester))
        self.update_user(requester.user)

    def update_user(self, user: User) -> None:
        """Put a user into the order if it could be served."""
        first = self._first(user)
        if first is None:
            return
        requester, sent, request = first
        if not user.has_headroom(requester, request):
            return
        if user.key is None:
            epoch_start = self._virtual // self._epoch_bytes * self._epoch_bytes
            user.served = max(user.served, epoch_start)
        elif user.key[0] <= user.deprioritised and user.key[2] <= sent:
            return
        self._put(user, self._user_key(user, sent))

    def take(self) -> tuple[Requester, QueuedRequest] | None:
        """Remove and return the first requester, with the request to serve."""
        heap = self._heap
        while heap:
            key, user = heappop(heap)
            if user.key is not key:
                continue
            user.key = None
            first = self._first(user)
            if first is None:
                continue
            requester, sent, request = first
            if not user.has_headroom(requester, request):
                continue
            actual = self._user_key(user, sent)
            if actual[:4] > key[:4]:
                self._put(user, actual)
                continue
            heappop(user.queue)
            requester.key = None
            return requester, request
        return None

    def served(self, requester: Requester) -> None:
        """Record the epoch of a requester that is served, before its account grows."""
        self._virtual = requester.user.served

    def defer(self, requester: Requester, until: float) -> None:
        """Serve a requester no earlier than `until`. Others of its user may be served."""
        self._deferred[requester.id] = (until, requester)
        self.update_user(requester.user)

    def resume_due(self, now: float) -> None:
        """Put the deferred requesters back whose time has come."""
        for until, requester in [entry for entry in self._deferred.values() if entry[0] <= now]:
            del until, self._deferred[requester.id]
            self.enqueue_requester(requester)

    def due_at(self) -> float | None:
        """Return the time at which `resume_due` has work; None if none is deferred."""
        return min((until for until, _ in self._deferred.values()), default=None)

    def remove(self, requester: Requester) -> None:
        """Remove a requester."""
        requester.key = None
        self._deferred.pop(requester.id, None)
        self.update_user(requester.user)

    def _best(self, requester: Requester) -> tuple[int, QueuedRequest] | None:
        """Return the requester's best request, with its number of sends; None if it must wait."""
        best = requester.best()
        if best is None or requester.id in self._deferred or not requester.has_headroom(best[1]):
            return None
        return best

    def _first(self, user: User) -> tuple[Requester, int, QueuedRequest] | None:
        """Return the first in the user's queue, which stays there."""
        queue = user.queue
        while queue:
            key, requester = queue[0]
            if requester.key is not key:
                heappop(queue)
                continue
            best = self._best(requester)
            if best is None:
                heappop(queue)
                requester.key = None
                continue
            actual = self._requester_key(requester, best[0])
            if actual[:2] > key[:2]:
                requester.key = actual
                heapreplace(queue, (actual, requester))
                continue
            return requester, best[0], best[1]
        return None

    def _put(self, user: User, key: _UserKey) -> None:
        user.key = key
        heappush(self._heap, (key, user))

    def _user_key(self, user: User, sent: int) -> _UserKey:
        self._sequence += 1
        epoch = user.served // self._epoch_bytes
        return (user.deprioritised, epoch, sent, user.served, self._sequence)

    def _requester_key(self, requester: Requester, sent: int) -> tuple[int, int, int]:
        self._sequence += 1
        return (sent, requester.served, self._sequence)

    def check_invariants(self, requesters: list[Requester]) -> None:
        """Raise AssertionError if a requester could be served and has no key. For tests."""
        for requester in requesters:
            best = self._best(requester)
            if best is not None:
                assert requester.key is not None
                assert any(key is requester.key for key, _ in requester.user.queue)
        for user in {id(r.user): r.user for r in requesters}.values():
            first = self._first(user)
            if first is not None and user.has_headroom(first[0], first[2]):
                assert user.key is not None
                assert any(key is user.key for key, _ in self._heap)
