"""The answering of everyone who fetches from this peer: which piece goes to whom, and when.

Owns the schedule. Reading, sending and the checking of rights are the shell's; what is held of an
unfinished content is told by events.

Requests wait in a queue for each requester, where they cost nothing and can be withdrawn, and are
committed to a socket late: no more is on its way than keeps the uplink busy. So few pieces
travel at a time and each arrives soon, to be passed on by its receiver; and the choice of the
next is made with the newest knowledge. The choice:

1. *Fairness*: users are served in epochs of a few pieces. Nobody is given a piece in the next epoch
   while another who could be served is still in this one.
2. Within an epoch, *the piece that was sent least often*, so that a lone seeder sends every piece
   once before it sends any twice. This is what lets a flash crowd approach the fluid bound
   (Mundinger, Weber, Weiss, "Optimal scheduling of peer-to-peer file dissemination", 2008).
3. Then the user, and of one user the connection, that was given least.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import assert_never

from common.ids import ContentId, UserId
from peer.swarm.events import (
    Abandoned,
    Asked,
    Blocked,
    ContentAdded,
    ContentRemoved,
    Credited,
    Decline,
    DeclineReason,
    Drop,
    HeldLess,
    HeldMore,
    Left,
    RequesterId,
    Send,
    ServingEffect,
    ServingEvent,
    Tick,
    Withdrawn,
)
from peer.swarm.limits import Limit
from peer.swarm.pieces import Bitfield, Layout
from peer.swarm.requesters import Content, OnItsWay, Requester, User, Wanted
from peer.swarm.settings import ServingSettings
from peer.swarm.window import Throughput

__all__ = ["Serving", "ServingSettings"]

_Place = tuple[int, int, int, int, int]


class Serving:
    """The machine: one for all contents and all requesters of a peer."""

    def __init__(self, settings: ServingSettings | None = None, limit: Limit | None = None) -> None:
        self.settings = ServingSettings() if settings is None else settings
        self._limit = Limit() if limit is None else limit
        self._contents: dict[ContentId, Content] = {}
        self._users: dict[UserId, User] = {}
        self._requesters: dict[RequesterId, Requester] = {}
        self._schedule: list[tuple[_Place, Requester]] = []
        """A heap of who may be served; places only grow, and are corrected lazily."""
        self._tickets = 0
        self._owing: dict[RequesterId, Requester] = {}
        """Those with pieces on their way, who has been silent for longest first."""
        self._asleep: dict[RequesterId, float] = {}
        """Those that may not be served before a certain time: full socket, user's limit."""
        self._throttled_until: float | None = None
        self._queued = 0
        self._in_flight = 0
        """Bytes on their way to requesters that are not stalled."""
        self._owed = 0
        """Bytes on their way in all."""
        self._throughput = Throughput()
        self._base_s = 0.0
        """Least time from send to credit of late, less what was ahead in the queue: one piece's
        sending and the way there and back."""
        self._base_at = 0.0
        self._virtual = 0
        """`User.served` of whom was served last: newcomers begin in its epoch."""
        self.sent_bytes = 0
        self.sent_pieces = 0
        self._out: list[ServingEffect] = []

    # -- the machine ------------------------------------------------------------------------------

    def handle(self, event: ServingEvent, now: float) -> list[ServingEffect]:
        """Take an event in and say what is to be done, in order."""
        match event:
            case Asked():
                self._asked(event, now)
            case Credited():
                self._credited(event.requester, event.received_bytes, now)
            case Withdrawn():
                self._withdrawn(event)
            case Abandoned():
                self._abandoned(event)
            case HeldMore():
                self._held(event.content, event.pieces)
            case HeldLess():
                self._held_less(event)
            case Blocked():
                self._blocked(event, now)
            case Left():
                self._left(event.requester)
            case ContentAdded():
                self._content_added(event)
            case ContentRemoved():
                self._content_removed(event.content)
            case Tick():
                self._tick(now)
            case _:
                assert_never(event)
        if self._schedule:
            self._serve(now)
        effects, self._out = self._out, []
        return effects

    def next_wakeup(self, now: float) -> float | None:
        """When a `Tick` is due; None when only events can change anything."""
        due = [] if self._throttled_until is None else [self._throttled_until]
        due.extend(self._asleep.values())
        for silent in self._owing.values():
            if not silent.stalled:
                if self._queued:
                    due.append(silent.progress_at + self._stall_s())
                break
        if self._owing:
            silent = next(iter(self._owing.values()))
            due.append(silent.progress_at + self.settings.drop_after_s)
        return max(min(due), now) if due else None

    def held(self, content: ContentId) -> Bitfield | None:
        """What is offered of a content, None for all of it. KeyError when nothing is."""
        have = self._contents[content].have
        return None if have is None else have.copy()

    # -- contents ---------------------------------------------------------------------------------

    def _content_added(self, event: ContentAdded) -> None:
        layout = Layout(event.size, event.piece_length)
        have = None if event.have is None or event.have.complete() else event.have.copy()
        known = self._contents.get(event.content)
        if known is None:
            self._contents[event.content] = Content(event.content, layout, have)
        else:
            known.have = have

    def _content_removed(self, content: ContentId) -> None:
        if self._contents.pop(content, None) is None:
            return
        for requester in self._requesters.values():
            gone = tuple(index for (c, index) in requester.waiting if c == content)
            self._decline(requester, content, gone, DeclineReason.UNKNOWN_CONTENT)

    def _held(self, content_id: ContentId, pieces: tuple[int, ...]) -> None:
        content = self._contents.get(content_id)
        if content is not None and content.have is not None:
            for index in pieces:
                content.have.add(index)
            if content.have.complete():
                content.have = None

    def _held_less(self, event: HeldLess) -> None:
        content = self._contents.get(event.content)
        if content is None:
            return
        if content.have is None:
            content.have = Bitfield.full(content.layout.count)
        lost = {index for index in event.pieces if content.have.discard(index)}
        for requester in self._requesters.values():
            gone = tuple(i for (c, i) in requester.waiting if c == event.content and i in lost)
            self._decline(requester, event.content, gone, DeclineReason.NOT_HELD)

    def _decline(
        self, requester: Requester, content: ContentId, pieces: tuple[int, ...], why: DeclineReason
    ) -> None:
        if not pieces:
            return
        for index in pieces:
            if requester.dequeue(content, index):
                self._queued -= 1
        retry_after_s = self.settings.retry_after_s if why is DeclineReason.BUSY else 0.0
        self._out.append(Decline(requester.id, content, pieces, why, retry_after_s))

    # -- requests ---------------------------------------------------------------------------------

    def _asked(self, event: Asked, now: float) -> None:
        requester = self._requesters.get(event.requester)
        if requester is None:
            requester = self._arrive(event.requester, event.user)
        self._credited(event.requester, event.received_bytes, now)
        content = self._contents.get(event.content)
        if content is None:
            self._decline(requester, event.content, event.pieces, DeclineReason.UNKNOWN_CONTENT)
            return
        count, settings = content.layout.count, self.settings
        senseless: list[int] = []
        missing: list[int] = []
        too_many: list[int] = []
        for index in event.pieces:
            if not 0 <= index < count:
                senseless.append(index)
            elif not content.holds(index):
                missing.append(index)
            elif (content.id, index) in requester.waiting:
                continue
            elif (
                len(requester.waiting) >= settings.queue_max
                or self._queued >= settings.queue_all_max
            ):
                too_many.append(index)
            else:
                requester.enqueue(content, index)
                self._queued += 1
        self._decline(requester, content.id, tuple(senseless), DeclineReason.OUT_OF_RANGE)
        self._decline(requester, content.id, tuple(missing), DeclineReason.NOT_HELD)
        self._decline(requester, content.id, tuple(too_many), DeclineReason.BUSY)
        self._enlist(requester)

    def _arrive(self, requester_id: RequesterId, user_id: UserId) -> Requester:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = User(user_id)
        user.requesters += 1
        requester = self._requesters[requester_id] = Requester(requester_id, user)
        return requester

    def _withdrawn(self, event: Withdrawn) -> None:
        requester = self._requesters.get(event.requester)
        if requester is not None:
            for index in event.pieces:
                if requester.dequeue(event.content, index):
                    self._queued -= 1

    def _abandoned(self, event: Abandoned) -> None:
        requester = self._requesters.get(event.requester)
        if requester is not None:
            for content, index in list(requester.waiting):
                if content == event.content and requester.dequeue(content, index):
                    self._queued -= 1

    def _credited(self, requester_id: RequesterId, received_bytes: int, now: float) -> None:
        requester = self._requesters.get(requester_id)
        if requester is None:
            return
        # A requester cannot have got what was not sent: whoever says so gains nothing by it.
        received_bytes = min(received_bytes, requester.committed)
        gained = received_bytes - requester.credited
        if gained <= 0:
            return
        requester.credited = received_bytes
        self._owed -= gained
        if requester.stalled:
            requester.stalled = False
            self._in_flight += requester.uncredited
        else:
            self._in_flight -= gained
        requester.progress_at = now
        del self._owing[requester_id]
        if requester.uncredited:
            self._owing[requester_id] = requester
        requester.throughput.arrived(gained, now)
        self._throughput.arrived(gained, now)
        self._learn_base(requester, now)
        self._enlist(requester)

    def _learn_base(self, requester: Requester, now: float) -> None:
        """Keep the least latency; it is forgotten slowly, as routes change."""
        sends, least = requester.sends, None
        while sends and sends[0].end <= requester.credited:
            send = sends.popleft()
            least = max(now - send.at - send.ahead_s, 1e-5)
        if least is None:
            return
        aged = self._base_s * (1.0 + (now - self._base_at) / 10.0)
        self._base_s = least if not self._base_s else min(aged, least)
        self._base_at = now

    def _left(self, requester_id: RequesterId) -> None:
        requester = self._requesters.pop(requester_id, None)
        if requester is None:
            return
        self._queued -= len(requester.waiting)
        requester.waiting.clear()
        self._owed -= requester.uncredited
        if not requester.stalled:
            self._in_flight -= requester.uncredited
        self._owing.pop(requester_id, None)
        self._asleep.pop(requester_id, None)
        user = requester.user
        user.requesters -= 1
        if not user.requesters:
            del self._users[user.id]

    def _blocked(self, event: Blocked, now: float) -> None:
        """Undo a send that did not come about, and try again in a while."""
        requester = self._requesters.get(event.requester)
        if requester is None or not requester.sends:
            return
        size = requester.sends.pop().size
        # What was credited without having been sent is no credit.
        self._account(requester, -min(size, requester.uncredited))
        if not requester.uncredited:
            self._owing.pop(requester.id, None)
        self.sent_pieces -= 1
        requester.blocked_until = now + self.settings.blocked_s
        self._asleep[requester.id] = requester.blocked_until
        content = self._contents.get(event.content)
        if content is None:
            return
        content.sent[event.index] = max(0, content.sent.get(event.index, 0) - 1)
        if not content.holds(event.index):
            self._decline(requester, content.id, (event.index,), DeclineReason.NOT_HELD)
        elif (content.id, event.index) not in requester.waiting:
            requester.enqueue(content, event.index)
            self._queued += 1

    def _account(self, requester: Requester, size: int) -> None:
        requester.committed += size
        requester.served += size
        requester.user.served += size
        self._owed += size
        self.sent_bytes += size
        if not requester.stalled:
            self._in_flight += size

    # -- the schedule -----------------------------------------------------------------------------

    def _place(self, requester: Requester, sent: int) -> _Place:
        user = requester.user
        self._tickets += 1
        return (
            user.served // self.settings.epoch_bytes,
            sent,
            user.served,
            requester.served,
            self._tickets,
        )

    def _enlist(self, requester: Requester) -> None:
        """Give a requester that could be served its place in the schedule."""
        best = requester.best()
        if best is None or requester.id in self._asleep or not self._has_room(requester, best[1]):
            return
        if requester.place is None:
            # Whoever was away competes from this epoch on, and has no claim for the past.
            epoch = self.settings.epoch_bytes
            requester.user.served = max(requester.user.served, self._virtual // epoch * epoch)
        elif requester.place[1] <= best[0]:
            return
        requester.place = self._place(requester, best[0])
        heappush(self._schedule, (requester.place, requester))

    def _has_room(self, requester: Requester, wanted: Wanted) -> bool:
        owed = requester.uncredited
        layout = wanted.content.layout
        size = layout.size_of(wanted.index)
        return not owed or owed + size <= requester.bound(layout.piece_length)

    def _next(self) -> tuple[Requester, Wanted] | None:
        """Take the first of the schedule out, after correcting stale places."""
        schedule = self._schedule
        while schedule:
            place, requester = heappop(schedule)
            if requester.place is not place:
                continue
            requester.place = None
            best = requester.best()
            if requester.id in self._asleep:
                continue
            if best is None or not self._has_room(requester, best[1]):
                continue
            actual = self._place(requester, best[0])
            if actual[:4] > place[:4]:
                requester.place = actual
                heappush(schedule, (actual, requester))
                continue
            return requester, best[1]
        return None

    def _serve(self, now: float) -> None:
        """Commit pieces until enough is on its way."""
        while (found := self._next()) is not None:
            requester, wanted = found
            layout = wanted.content.layout
            size = layout.size_of(wanted.index)
            if not self._may_send(size, layout.piece_length, now):
                self._enlist(requester)
                return
            if not self._limit.unlimited:
                ready_at = self._limit.user_ready_at(requester.user.id, now)
                if ready_at > now:
                    self._asleep[requester.id] = ready_at
                    continue
                self._limit.take(requester.user.id, size, now)
            self._send(requester, wanted, size, now)
            self._enlist(requester)

    def _may_send(self, size: int, piece_length: int, now: float) -> bool:
        settings, rate = self.settings, self._throughput.rate
        horizon_s = max(settings.in_flight_s, 2.0 * self._base_s)
        wanted = min(int(rate * horizon_s), settings.in_flight_max)
        if self._in_flight and self._in_flight + size > max(wanted, 2 * piece_length):
            return False
        if self._owed + size > settings.owed_max:
            return False
        if not self._limit.unlimited:
            ready_at = self._limit.ready_at(now)
            if ready_at > now:
                self._throttled_until = ready_at
                return False
        return True

    def _send(self, requester: Requester, wanted: Wanted, size: int, now: float) -> None:
        content, index = wanted.content, wanted.index
        requester.dequeue(content.id, index)
        self._queued -= 1
        self._virtual = requester.user.served
        rate = self._throughput.rate
        ahead_s = self._in_flight / rate if rate else 0.0
        if not self._in_flight:
            self._throughput.began(now)
        if not requester.uncredited:
            requester.throughput.began(now)
            requester.progress_at = now
            self._owing[requester.id] = requester
        self._account(requester, size)
        requester.sends.append(OnItsWay(requester.committed, size, now, ahead_s))
        content.sent[index] = content.sent.get(index, 0) + 1
        self.sent_pieces += 1
        self._out.append(Send(requester.id, content.id, index))

    # -- time -------------------------------------------------------------------------------------

    def _stall_s(self) -> float:
        return max(self.settings.stall_min_s, 4.0 * self._base_s)

    def _tick(self, now: float) -> None:
        if self._throttled_until is not None and now >= self._throttled_until:
            self._throttled_until = None
        for requester_id in [r for r, at in self._asleep.items() if at <= now]:
            del self._asleep[requester_id]
            self._enlist(self._requesters[requester_id])
        stall_s = self._stall_s()
        for requester in list(self._owing.values()):
            # The same sums as in `next_wakeup`: differences would round otherwise.
            if now < requester.progress_at + stall_s:
                break
            if not requester.stalled:
                requester.stalled = True
                self._in_flight -= requester.uncredited
            if now >= requester.progress_at + self.settings.drop_after_s:
                self._out.append(Drop(requester.id))
                self._left(requester.id)

    def check_invariants(self) -> None:
        """Raise AssertionError when the accounts do not agree. For tests: O(requests)."""
        requesters = self._requesters.values()
        assert self._queued == sum(len(r.waiting) for r in requesters)
        assert self._owed == sum(r.uncredited for r in requesters)
        assert self._in_flight == sum(r.uncredited for r in requesters if not r.stalled)
        assert set(self._owing) == {r.id for r in requesters if r.uncredited}
        for user in self._users.values():
            assert user.requesters == sum(1 for r in requesters if r.user is user) > 0
        for requester in requesters:
            assert 0 <= requester.credited <= requester.committed
            assert len(requester.waiting) <= self.settings.queue_max
            for wanted in requester.waiting.values():
                assert self._contents[wanted.content.id] is wanted.content
                assert wanted.content.holds(wanted.index)
