"""State machine of serving: events in, effects out. One for all contents and all requesters.

Theory of operation. `Serving.handle(event, now)` changes the state and returns the effects, which
the driver carries out in order. A `Tick` is due at `next_wakeup`.

A *request* moves like this:

- `RequestReceived` puts it into its requester's queue, or declines it: unknown content, index out
  of range, piece not held, queue full. A second request for a waiting piece changes nothing.
- Waiting, it costs nothing. `RequestCancelled`, `ContentClosed` or `RequesterGone` removes it
  silently; `ContentRemoved` and `HeldLess` decline it.
- `Send` takes it from the queue: its piece is in flight. `schedule` decides whose request is next,
  `uplink` how many bytes may be in flight. Requests leave the queue late, so that few pieces travel
  at a time, each arrives soon to be passed on, and each choice uses the newest knowledge.
- `Acknowledged` (or the count in a later request) ends it. `SendBlocked` puts it back into the
  queue for a retry; `SendDropped` ends it unsent.

A *requester* exists from its first request until `RequesterGone`. If its acknowledgement is overdue
it is stalled: it is sent nothing, its bytes do not count against others, and its user sorts last.
An acknowledgement ends the stall. Without one it is dropped after a minute; after five if no other
requester acknowledges either, since then our own link may be at fault.

Invariants, for any input from the requesters:

- No event raises. A false acknowledgement gains nothing.
- No piece is sent that is not held, not requested, or cancelled before its `Send`.
- A user gets no run of the next epoch while another user, which acknowledges in time and could
  be served, is still in this one.
- The unacknowledged bytes never exceed `unacked_max`, and no user can use them up for others.
- Queues never exceed their bounds, in number and for each requester.

Owns: the contents, the queues and the transitions above. Not here: reading, sending and access
control, which are the driver's (see peer.serving).
"""

from __future__ import annotations

from collections import Counter
from typing import assert_never

from common.ids import ContentId, UserId
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.rate_limit import RateLimit
from peer.swarm.serving.events import (
    Acknowledged,
    ContentAdded,
    ContentClosed,
    ContentRemoved,
    Decline,
    DeclineReason,
    Drop,
    HeldLess,
    HeldMore,
    RequestCancelled,
    RequesterGone,
    RequesterId,
    RequestReceived,
    Send,
    SendBlocked,
    SendDropped,
    ServingEffect,
    ServingEvent,
    Tick,
)
from peer.swarm.serving.requesters import Content, QueuedRequest, Requester, User
from peer.swarm.serving.schedule import Schedule
from peer.swarm.serving.settings import ServingSettings
from peer.swarm.serving.uplink import Uplink


class Serving:
    """The machine. Contents come from `ContentAdded`, requesters from their first request."""

    def __init__(
        self, settings: ServingSettings | None = None, limit: RateLimit | None = None
    ) -> None:
        self.settings = ServingSettings() if settings is None else settings
        self._limit = RateLimit() if limit is None else limit
        self._contents: dict[ContentId, Content] = {}
        self._users: dict[UserId, User] = {}
        self._requesters: dict[RequesterId, Requester] = {}
        self._schedule = Schedule(self.settings.epoch_bytes)
        self._uplink = Uplink(self.settings)
        self._queued = 0
        self._throttled_until: float | None = None
        self.sent_bytes = 0
        self.counts: Counter[str] = Counter()  # requests declined here, or cancelled there
        self._out: list[ServingEffect] = []

    # -- the machine ------------------------------------------------------------------------------

    def handle(self, event: ServingEvent, now: float) -> list[ServingEffect]:
        """Apply one event and return the resulting effects, in execution order."""
        match event:
            case RequestReceived():
                self._request_received(event, now)
            case Acknowledged():
                requester = self._requesters.get(event.requester)
                if requester is not None:
                    self._acknowledge(requester, event.received_bytes, now)
            case RequestCancelled():
                self._request_cancelled(event)
            case ContentClosed():
                self._content_closed(event)
            case HeldMore():
                self._held_more(event)
                return []  # no waiting request is for such a piece
            case HeldLess():
                self._held_less(event)
            case SendBlocked():
                self._send_blocked(event, now)
            case SendDropped():
                requester = self._undo(event)
                if requester is not None:
                    self._schedule.enqueue_requester(requester)
            case RequesterGone():
                self._remove_requester(event.requester)
            case ContentAdded():
                self._content_added(event)
            case ContentRemoved():
                self._content_removed(event.content)
            case Tick():
                self._tick(now)
            case _:
                assert_never(event)
        self._uplink.paced_until = None
        if self._schedule:
            self._serve(now)
        effects, self._out = self._out, []
        return effects

    def next_wakeup(self, now: float) -> float | None:
        """Return the time of the next `Tick`; None if only events can change anything."""
        due: float | None = None
        for other in (
            self._throttled_until,
            self._uplink.paced_until,
            self._schedule.due_at(),
            self._uplink.due_at(waiting=self._queued > 0),
        ):
            if other is not None and (due is None or other < due):
                due = other
        return None if due is None else max(due, now)

    def run_bytes(self, requester_id: RequesterId) -> int:
        """Return the bytes of adjacent pieces that may go to a requester in one message."""
        requester = self._requesters.get(requester_id)
        return 0 if requester is None else self._uplink.run_bytes(requester)

    def frame_bytes(self, requester_id: RequesterId) -> int:
        """Return the bytes of a piece that should go to a requester in one frame.

        Why a bound: no heartbeat travels during a frame, and a connection without one is taken for
        dead.
        """
        requester = self._requesters.get(requester_id)
        rate = 0.0 if requester is None else requester.throughput.rate
        return max(self.settings.frame_min, int(rate * self.settings.frame_s))

    # -- contents ---------------------------------------------------------------------------------

    def _content_added(self, event: ContentAdded) -> None:
        layout = PieceLayout(event.size, event.piece_length)
        have = None if event.have is None or event.have.complete() else event.have.copy()
        known = self._contents.get(event.content)
        if known is None:
            self._contents[event.content] = Content(event.content, layout, have)
            return
        known.have = have
        if have is not None:
            self._decline_lost(known)

    def _content_removed(self, content: ContentId) -> None:
        if self._contents.pop(content, None) is None:
            return
        for requester in self._requesters.values():
            gone = tuple(index for (c, index) in requester.waiting if c == content)
            self._decline(requester, content, gone, DeclineReason.UNKNOWN_CONTENT)

    def _held_more(self, event: HeldMore) -> None:
        content = self._contents.get(event.content)
        if content is not None and content.have is not None:
            for index in event.pieces:
                content.have.add(index)
            if content.have.complete():
                content.have = None

    def _held_less(self, event: HeldLess) -> None:
        content = self._contents.get(event.content)
        if content is None:
            return
        if content.have is None:
            content.have = Bitfield.full(content.layout.count)
        for index in event.pieces:
            content.have.discard(index)
        self._decline_lost(content)

    def _decline_lost(self, content: Content) -> None:
        for requester in self._requesters.values():
            gone = tuple(
                i for (c, i) in requester.waiting if c == content.id and not content.holds(i)
            )
            self._decline(requester, content.id, gone, DeclineReason.NOT_HELD)

    def _decline(
        self, requester: Requester, content: ContentId, pieces: tuple[int, ...], why: DeclineReason
    ) -> None:
        if not pieces:
            return
        self.counts["declined"] += len(pieces)
        for index in pieces:
            if requester.dequeue(content, index):
                self._queued -= 1
        retry_after_s = self.settings.retry_after_s if why is DeclineReason.BUSY else 0.0
        self._out.append(Decline(requester.id, content, pieces, why, retry_after_s))

    # -- requests ---------------------------------------------------------------------------------

    def _request_received(self, event: RequestReceived, now: float) -> None:
        requester = self._requesters.get(event.requester)
        if requester is None:
            requester = self._add_requester(event.requester, event.user)
        self._acknowledge(requester, event.received_bytes, now)
        content = self._contents.get(event.content)
        if content is None:
            self._decline(requester, event.content, event.pieces, DeclineReason.UNKNOWN_CONTENT)
            return
        declined: dict[DeclineReason, list[int]] = {}
        for index in event.pieces:
            why = self._objection(requester, content, index)
            if why is not None:
                declined.setdefault(why, []).append(index)
            elif requester.enqueue(content, index):
                self._queued += 1
        for why, pieces in declined.items():
            self._decline(requester, content.id, tuple(pieces), why)
        self._schedule.enqueue_requester(requester)

    def _objection(
        self, requester: Requester, content: Content, index: int
    ) -> DeclineReason | None:
        """Return the reason to decline a request; None if it may wait."""
        if not 0 <= index < content.layout.count:
            return DeclineReason.OUT_OF_RANGE
        if not content.holds(index):
            return DeclineReason.NOT_HELD
        full = (
            len(requester.waiting) >= self.settings.queue_max
            or self._queued >= self.settings.queue_all_max
        )
        if full and (content.id, index) not in requester.waiting:
            return DeclineReason.BUSY
        return None

    def _add_requester(self, requester_id: RequesterId, user_id: UserId) -> Requester:
        user = self._users.get(user_id)
        if user is None:
            user = self._users[user_id] = User(user_id)
        user.requesters += 1
        requester = self._requesters[requester_id] = Requester(requester_id, user)
        return requester

    def _request_cancelled(self, event: RequestCancelled) -> None:
        requester = self._requesters.get(event.requester)
        if requester is not None:
            for index in event.pieces:
                if requester.dequeue(event.content, index):
                    self._queued -= 1
                    self.counts["cancelled"] += 1

    def _content_closed(self, event: ContentClosed) -> None:
        requester = self._requesters.get(event.requester)
        if requester is not None:
            for content, index in list(requester.waiting):
                if content == event.content and requester.dequeue(content, index):
                    self._queued -= 1

    def _acknowledge(self, requester: Requester, received_bytes: int, now: float) -> None:
        if self._uplink.acknowledge(requester, received_bytes, now):
            self._schedule.enqueue_requester(requester)

    def _remove_requester(self, requester_id: RequesterId) -> None:
        requester = self._requesters.pop(requester_id, None)
        if requester is None:
            return
        self._queued -= len(requester.waiting)
        requester.waiting.clear()
        self._uplink.remove(requester)
        self._schedule.remove(requester)
        user = requester.user
        user.requesters -= 1
        if not user.requesters:
            del self._users[user.id]

    def _send_blocked(self, event: SendBlocked, now: float) -> None:
        """Undo a send that the socket did not accept, and retry it later."""
        requester = self._undo(event)
        if requester is None:
            return
        self._schedule.defer(requester, now + self.settings.blocked_s)
        content = self._contents.get(event.content)
        if content is None:
            return
        if not content.holds(event.index):
            self._decline(requester, content.id, (event.index,), DeclineReason.NOT_HELD)
        elif requester.enqueue(content, event.index):
            self._queued += 1

    def _undo(self, event: SendBlocked | SendDropped) -> Requester | None:
        """Undo the account of a send; return its requester, None if the piece was not in flight."""
        requester = self._requesters.get(event.requester)
        if requester is None:
            return None
        size = self._uplink.undo(requester, event.content, event.index)
        if not size:
            return None
        self.sent_bytes -= size
        content = self._contents.get(event.content)
        if content is not None:
            content.sent[event.index] = max(0, content.sent.get(event.index, 0) - 1)
        return requester

    # -- sending ----------------------------------------------------------------------------------

    def _serve(self, now: float) -> None:
        """Send pieces until enough bytes are in flight."""
        passed_over: list[Requester] = []
        unlimited = self._limit.unlimited
        while (found := self._schedule.take()) is not None:
            requester, request = found
            layout = request.content.layout
            size = layout.size_of(request.index)
            if not self._uplink.may_send(requester.user, size, layout.piece_length, now):
                passed_over.append(requester)
                if self._uplink.others_may_send(size, layout.piece_length, now):
                    continue
                break
            if self._throttled(now):
                passed_over.append(requester)
                break
            if not unlimited:
                ready_at = self._limit.user_ready_at(requester.user.id, now)
                if ready_at > now:
                    self._schedule.defer(requester, ready_at)
                    continue
                self._limit.take(requester.user.id, size, now)
            together = self._uplink.run_of(requester, request) if unlimited else [request]
            for each in together:
                self._send(requester, each, layout.size_of(each.index), now)
            self._schedule.enqueue_requester(requester)
        for requester in passed_over:
            self._schedule.enqueue_requester(requester)

    def _throttled(self, now: float) -> bool:
        if self._limit.unlimited:
            return False
        ready_at = self._limit.ready_at(now)
        if ready_at <= now:
            return False
        self._throttled_until = ready_at
        return True

    def _send(self, requester: Requester, request: QueuedRequest, size: int, now: float) -> None:
        content, index = request.content, request.index
        requester.dequeue(content.id, index)
        self._queued -= 1
        self._schedule.served(requester)
        self._uplink.sent(requester, request, size, now)
        content.sent[index] = content.sent.get(index, 0) + 1
        self.sent_bytes += size
        notify = self._uplink.takes_long(size)
        self._out.append(Send(requester.id, content.id, index, notify))

    # -- time -------------------------------------------------------------------------------------

    def _tick(self, now: float) -> None:
        if self._throttled_until is not None and now >= self._throttled_until:
            self._throttled_until = None
        self._schedule.resume_due(now)
        for requester in self._uplink.mark_stalled(now):
            self._schedule.update_user(requester.user)
        for requester in self._uplink.timed_out(now):
            self._out.append(Drop(requester.id))
            self._remove_requester(requester.id)

    def check_invariants(self) -> None:
        """Raise AssertionError if the accounts disagree. For tests: O(requests)."""
        requesters = list(self._requesters.values())
        self._uplink.check_invariants(requesters)
        self._schedule.check_invariants(requesters)
        assert self._queued == sum(len(r.waiting) for r in requesters)
        for user in self._users.values():
            assert user.requesters == sum(1 for r in requesters if r.user is user) > 0
        for requester in requesters:
            assert 0 <= requester.acked_bytes <= requester.sent_bytes
            assert len(requester.waiting) <= self.settings.queue_max + 1
            for request in requester.waiting.values():
                assert self._contents[request.content.id] is request.content
                assert request.content.holds(request.index)
