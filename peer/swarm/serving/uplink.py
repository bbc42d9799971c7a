"""Uplink budget: the bytes in flight from this peer, and the bound on them.

Owns: the account of sent and unacknowledged bytes, the measured rate, and stalled requesters. Not
here: the choice of the next piece (see schedule).

A requester that acknowledges late delays no other one. Of the bytes in flight to one user no more
than an equal part of the bound counts against other users; bytes whose acknowledgement is overdue
do not count at all.

The bound follows BBR (Cardwell and others, "BBR: congestion-based congestion control", 2016): two
pieces, and a multiple of the bandwidth-delay product. So on a slow uplink few pieces travel at a
time and arrive soon; on a fast or long one as many as are needed; and while the rate grows with the
bound, the bound grows with the rate. The base RTT is known from the first piece, which travels
alone. Beyond that bound, pieces go by the pace of our own uplink (see pacing): those in flight may
wait at receivers' links, where other senders meet, and our uplink would otherwise wait for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from math import inf

from common.ids import ContentId, UserId
from common.limits import RUN_BYTES
from peer.swarm.rates import Throughput
from peer.swarm.serving.events import RequesterId
from peer.swarm.serving.pacing import Pacer
from peer.swarm.serving.requesters import QueuedRequest, Requester, UnackedSend, User
from peer.swarm.serving.settings import ServingSettings

_FLOOR_PIECES = 2
_PROBE_S = 10.0
"""An older base RTT is measured again once the uplink was idle: routes change."""
_GAIN = 4.0
"""Multiple of the bandwidth-delay product in flight. Why above 1: pieces that leave together arrive
together, and gaps follow. Between 2 and 6 simulated swarms differ by a few per cent
(`benchmarks.simulate --delay-ms 20`)."""
_SMOOTHING_S = 0.5
_FADE_S = 40.0
"""The highest rate halves if it is not reached again within this time."""
_PACED_PIECES, _PACED_PIECES_SLOW, _PACED_S = 8, 3, 1.0
"""Maximum of pieces in flight that pacing may reach: those that leave in 1 s, within these bounds.
All pieces in flight share the uplink, so each further one makes all of them arrive later."""
_ALONE_S = 1.0
"""A piece that takes longer on the uplink travels alone unless pacing allows another, so that it
can be passed on sooner."""
_RTT_MAX_S = 0.6
"""Maximum of the path's part in the base RTT. A base RTT that was measured while several pieces
left at the same time would otherwise open the bound without end on a slow uplink."""
_STALL_DOUBLINGS = 5
"""Maximum doublings of the stall timeout while requesters stall and none acknowledges."""
_AT_THAT_RATE = 2.0
"""The stall timeout is at most this multiple of the time that all unacknowledged bytes take at the
highest recent rate."""
_OUR_OWN_LINK = 5.0
"""Factor on `drop_after_s` if no other requester has acknowledged anything since."""
_NEW_USER = User(UserId(""))
"""Stands for any user with nothing in flight."""


class Uplink:
    """The account of all requesters together. It also keeps the account of each."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self.in_flight = 0
        """Unacknowledged bytes of requesters that are not stalled."""
        self.unacked_bytes = 0
        """Unacknowledged bytes of all requesters."""
        self._unacked: dict[RequesterId, Requester] = {}
        """Requesters with unacknowledged bytes, by `unacked_since`, earliest first."""
        self._users: dict[UserId, User] = {}
        """Users with bytes in flight."""
        self.pacer = Pacer()
        self.paced_until: float | None = None
        """Set if pacing alone prevented the last send: the time at which it no longer does."""
        self._throughput = Throughput(_SMOOTHING_S)
        self._best_rate = 0.0
        """Highest recent rate: a lull of requests must not close the bound."""
        self._best_at = 0.0
        self._base_rtt_s: float | None = None
        """Minimum time from send to acknowledgement: one piece's transmission, and the round trip.
        None while it is being measured, with a piece that travels alone."""
        self._base_at = float("-inf")
        self._bounds: dict[int, tuple[int, int]] = {}
        """`_bound` and `_paced_bound` by piece length, since the last acknowledgement or stall."""
        self._stalled = 0
        """Requesters that stalled since the last acknowledgement of any."""
        self._acked_at = float("-inf")
        """Time of the last acknowledgement of any requester."""

    @property
    def rate(self) -> float:
        """Acknowledged bytes a second, while anything is in flight."""
        return self._throughput.rate

    def may_send(self, user: User, size: int, piece_length: int, now: float) -> bool:
        """Return whether `size` more bytes may be sent to the user."""
        if not self.fits(user, size):
            return False
        if not self.in_flight:
            return True
        if self._base_rtt_s is None:
            return False
        if piece_length not in self._bounds:
            bounds = self._bound(piece_length), self._paced_bound(piece_length)
            self._bounds[piece_length] = bounds
        bound, paced = self._bounds[piece_length]
        if self.in_flight + size <= bound:
            return True
        if bound < paced:
            due_at = self.pacer.due_at(piece_length)
            if now >= due_at:
                bound = paced
                if self.in_flight + size <= bound:
                    return True
            elif due_at < inf and self.in_flight + size <= paced:
                self.paced_until = due_at
        # A user with more than an equal part of the bound may acknowledge late. A user with less
        # is sent more, as if no other held more than an equal part.
        share = max(size, bound // (len(self._users) + (not user.in_flight)))
        return user.in_flight + size <= share and self._counted(share) + size <= bound

    def fits(self, user: User, size: int) -> bool:
        """Return whether the user may have `size` more bytes unacknowledged.

        It may hold at most half of the remaining budget, so the budget never runs out for others.
        """
        return user.unacked_bytes + size <= self._settings.unacked_max - self.unacked_bytes

    def others_may_send(self, size: int, piece_length: int, now: float) -> bool:
        """Return whether `size` bytes may be sent to a user with nothing in flight."""
        return self.may_send(_NEW_USER, size, piece_length, now)

    def _counted(self, share: int) -> int:
        """Return the bytes in flight, of each user at most `share`."""
        return sum(min(user.in_flight, share) for user in self._users.values())

    def _bound(self, piece_length: int) -> int:
        """Return the maximum of bytes in flight."""
        # Pieces sent together arrive together, and the link is idle until their acknowledgements
        # come back. Two pieces keep it busy, plus the bandwidth-delay product.
        rate = self._best_rate
        base_rtt_s = self._base_rtt_s or 0.0
        path_s = min(base_rtt_s - piece_length / rate, _RTT_MAX_S) if rate else 0.0
        bdp = rate * max(0.0, path_s)
        alone = rate and self.pacer.takes_s(piece_length) > _ALONE_S
        pieces = 1 if alone else _FLOOR_PIECES
        bound = int(_GAIN * bdp) + pieces * piece_length
        steady = int(rate * self._settings.in_flight_s)
        return min(max(bound, steady), self._settings.in_flight_max)

    def _paced_bound(self, piece_length: int) -> int:
        """Return the maximum of bytes in flight that pacing may reach."""
        pieces = int(_PACED_S / self.pacer.takes_s(piece_length))
        return min(max(pieces, _PACED_PIECES_SLOW), _PACED_PIECES) * piece_length

    def takes_long(self, size: int) -> bool:
        """Return whether a requester should be told that the piece is on its way."""
        return self.pacer.takes_s(size) >= self._settings.notify_s

    def run_bytes(self, requester: Requester) -> int:
        """Return the bytes of adjacent pieces that may go to a requester in one message."""
        rate = requester.throughput.rate
        if self.rate < self._settings.fast_uplink:
            return min(RUN_BYTES, int(rate * self._settings.run_s))
        return min(RUN_BYTES, int((rate or self.rate) * self._settings.fast_run_s))

    def run_of(self, requester: Requester, request: QueuedRequest) -> list[QueuedRequest]:
        """Return the requests to be served with one that may be: on a fast uplink those of its run.

        In order, and no more than the user may have unacknowledged.
        """
        together = [request]
        if self.rate >= self._settings.fast_uplink:
            content, waiting = request.content, requester.waiting
            size_of = content.layout.size_of
            size = size_of(request.index)
            for index in content.layout.run_of(request.index, self.run_bytes(requester)):
                other = waiting.get((content.id, index))
                if other is None or other is request:
                    continue
                size += size_of(index)
                if not self.fits(requester.user, 2 * size):
                    break
                together.append(other)
            together.sort(key=lambda one: one.index)
        return together

    def sent(self, requester: Requester, request: QueuedRequest, size: int, now: float) -> None:
        """Record a sent piece."""
        if not self.in_flight:
            self._throughput.start(now)
            if not self.unacked_bytes and now > self._base_at + _PROBE_S:
                self._base_rtt_s = None
        if not requester.unacked_bytes:
            requester.throughput.start(now)
            requester.unacked_since = now
            self._unacked[requester.id] = requester
        if not requester.user.unacked_bytes:
            requester.user.throughput.start(now)
        self._account(requester, size)
        self.pacer.sent(size, now)
        requester.sends.append(
            UnackedSend(request.content.id, request.index, requester.sent_bytes, size, now)
        )

    def undo(self, requester: Requester, content: ContentId, index: int) -> int:
        """Remove a piece that was not sent after all.

        Return the bytes removed; 0 if the piece is acknowledged or unknown.
        """
        sends = requester.sends
        at = len(sends) - 1
        while at >= 0 and (sends[at].content, sends[at].piece) != (content, index):
            at -= 1
        if at < 0:
            return 0
        # An acknowledgement of bytes that were never sent counts for nothing.
        size = min(sends[at].size, requester.unacked_bytes)
        del sends[at]
        for after in range(at, len(sends)):
            sends[after] = sends[after]._replace(end=sends[after].end - size)
        self._account(requester, -size)
        if not requester.unacked_bytes:
            requester.stalled = False
            self._unacked.pop(requester.id, None)
        return size

    def acknowledge(self, requester: Requester, received_bytes: int, now: float) -> bool:
        """Record all bytes that the requester has received; return False if nothing is new."""
        # A claim beyond the sent bytes gains nothing.
        received_bytes = min(received_bytes, requester.sent_bytes)
        gained = received_bytes - requester.acked_bytes
        if gained <= 0:
            return False
        requester.acked_bytes = received_bytes
        self._stalled, self._acked_at = 0, now
        self._bounds.clear()
        requester.user.deprioritised = False
        if requester.stalled:
            # The time of arrival is unknown: it tells nothing about the rate of the others.
            requester.stalled = False
            if not self.in_flight:
                self._throughput.start(now)
            self._count(requester.user, requester.unacked_bytes)
        else:
            self._count(requester.user, -gained)
            self._throughput.add(gained, now)
        self.unacked_bytes -= gained
        requester.user.unacked_bytes -= gained
        requester.unacked_since = now
        del self._unacked[requester.id]
        if requester.unacked_bytes:
            self._unacked[requester.id] = requester
        requester.throughput.add(gained, now)
        requester.user.throughput.add(gained, now)
        self._learn_base(requester, now)
        faded = self._best_rate / (1.0 + (now - self._best_at) / _FADE_S)
        self._best_rate, self._best_at = max(self.rate, faded), now
        return True

    def remove(self, requester: Requester) -> None:
        """Remove the account of a requester that is gone."""
        self.unacked_bytes -= requester.unacked_bytes
        requester.user.unacked_bytes -= requester.unacked_bytes
        if not requester.stalled:
            self._count(requester.user, -requester.unacked_bytes)
        self._unacked.pop(requester.id, None)

    def mark_stalled(self, now: float) -> Iterator[Requester]:
        """Mark the requesters whose acknowledgement is overdue; yield each once."""
        timeout_s = self._stall_timeout_s()
        for requester in list(self._unacked.values()):
            # The same sums as in `due_at`: differences would round otherwise.
            if now < requester.unacked_since + timeout_s:
                return
            if not requester.stalled:
                requester.stalled = requester.user.deprioritised = True
                self._stalled += 1
                timeout_s = self._stall_timeout_s()
                self._count(requester.user, -requester.unacked_bytes)
                if self._base_rtt_s is None:
                    # The next acknowledgement measures it.
                    self._base_rtt_s, self._base_at = 0.0, now
                    self._bounds.clear()
                yield requester

    def timed_out(self, now: float) -> list[Requester]:
        """Return the requesters to be dropped: overdue for `drop_after_s` or longer."""
        return list(takewhile(lambda r: now >= self._drop_at(r), self._unacked.values()))

    def due_at(self, waiting: bool) -> float | None:
        """Return the next time to drop or, if requests wait, to mark a requester as stalled."""
        if not self._unacked:
            return None
        first = next(iter(self._unacked.values()))
        due = self._drop_at(first)
        if waiting:
            for requester in self._unacked.values():
                if not requester.stalled:
                    return min(due, requester.unacked_since + self._stall_timeout_s())
        return due

    def _account(self, requester: Requester, size: int) -> None:
        requester.sent_bytes += size
        requester.served += size
        requester.user.served += size
        self.unacked_bytes += size
        requester.user.unacked_bytes += size
        if not requester.stalled:
            self._count(requester.user, size)

    def _count(self, user: User, size: int) -> None:
        """Add to the bytes in flight of a user."""
        self.in_flight += size
        user.in_flight += size
        if user.in_flight:
            self._users[user.id] = user
        else:
            self._users.pop(user.id, None)

    def _learn_base(self, requester: Requester, now: float) -> None:
        sends = requester.sends
        while sends and sends[0].end <= requester.acked_bytes:
            send = sends.popleft()
            self.pacer.acknowledged(send.size, send.at, now)
            latency_s = max(now - send.at, 1e-5)
            requester.min_rtt_s = min(requester.min_rtt_s or latency_s, latency_s)
            if not self._base_rtt_s:
                self._base_rtt_s, self._base_at = latency_s, now
            self._base_rtt_s = min(self._base_rtt_s, latency_s)

    def _drop_at(self, requester: Requester) -> float:
        others_ack = self._acked_at > requester.unacked_since
        factor = 1.0 if others_ack else _OUR_OWN_LINK
        return requester.unacked_since + self._settings.drop_after_s * factor

    def _stall_timeout_s(self) -> float:
        min_s = max(self._settings.stall_min_s, 4.0 * (self._base_rtt_s or 0.0))
        # If no requester acknowledges, our own link may be slow. Then each further send only delays
        # all of them. But at the rate that the link had, all would have arrived.
        timeout_s = min_s * 2.0 ** min(self._stalled, _STALL_DOUBLINGS)
        if self._best_rate:
            timeout_s = min(timeout_s, _AT_THAT_RATE * self.unacked_bytes / self._best_rate)
        return max(min_s, timeout_s)

    def check_invariants(self, requesters: list[Requester]) -> None:
        """Raise AssertionError if the accounts disagree. For tests."""
        assert self.unacked_bytes == sum(r.unacked_bytes for r in requesters)
        assert self.in_flight == sum(r.unacked_bytes for r in requesters if not r.stalled)
        assert set(self._unacked) == {r.id for r in requesters if r.unacked_bytes}
        for requester in requesters:
            last = requester.sends[-1].end if requester.sends else requester.acked_bytes
            assert requester.sent_bytes == last
        users = {r.user.id: r.user for r in requesters}
        for user in users.values():
            theirs = [r for r in requesters if r.user is user]
            assert user.unacked_bytes == sum(r.unacked_bytes for r in theirs)
            assert user.in_flight == sum(r.unacked_bytes for r in theirs if not r.stalled)
        assert self._users == {user.id: user for user in users.values() if user.in_flight}
