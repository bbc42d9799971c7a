"""How much is on its way from this peer, and whether more may be.

Owns the account of what is sent and not yet credited, the measured rate, and who owes credit for
too long. Who is given the next piece is decided in `schedule`.

Who credits late holds nobody else up: of what is on its way to one user no more counts against
another than an equal part of the bound, and what is owed for too long counts not at all.

The bound follows the idea of BBR (Cardwell and others, "BBR: congestion-based congestion control",
2016): two pieces, and a multiple of what the measured rate delivers during the way there and back.
So on a slow uplink two pieces travel at a time and arrive soon, on a fast or long one as many as
are needed; where the rate grows with the bound, the bound grows with the rate. The way is known
from the first piece, which travels alone. Where the requesters' links are the narrow place, some
more travel, since our uplink would wait for them else.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from common.ids import ContentId, UserId
from peer.swarm.rates import Throughput
from peer.swarm.serving.events import RequesterId
from peer.swarm.serving.requesters import OnItsWay, Requester, User, Wanted
from peer.swarm.serving.settings import ServingSettings

_FLOOR_PIECES = 2
_PROBE_S = 10.0
"""A latency that is older is measured anew when the uplink was idle: routes change."""
_GAIN = 4.0
"""How often the way is filled: what leaves together arrives together, and then there are gaps.
Between 2 and 6 simulated swarms differ by a few per cent (`benchmarks.simulate --delay-ms 20`)."""
_SMOOTHING_S = 0.5
_FADE_S = 40.0
"""The highest rate halves when it was not met again for so long."""
_LULL = 0.75
_LULL_PIECES = 4
"""Where credit comes at less than this part of the highest rate, what was sent waits at links that
others send to as well, and ours would idle meanwhile: so many pieces may then be on their way. In
simulated swarms with links as fast up as down this saves a tenth of the time. A part of 0.9 saves
two tenths, but then real uplinks, whose rate varies, take it for such a lull at times and lose 4 %;
eight pieces make a seeder send many twice."""
_SET_ASIDE_MAX = 5
"""Doublings of the least time after which somebody is set aside."""
_AT_THAT_RATE = 2.0
"""So many times what all that is owed takes at the highest rate of late is waited at most."""
_OUR_OWN_LINK = 5.0
"""So many times longer may credit be owed when nobody else has credited anything since."""
_NOBODY_YET = User(UserId(""))
"""Anybody to whom nothing is on its way."""


class Uplink:
    """The account of all requesters together. It writes the accounts of each as well."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self.in_flight = 0
        """Bytes on their way to requesters that are not stalled."""
        self.unacked_bytes = 0
        """Bytes on their way in all."""
        self._unacked: dict[RequesterId, Requester] = {}
        """Those with pieces on their way; who has been silent for longest is first."""
        self._users: dict[UserId, User] = {}
        """Those to whom it is on its way."""
        self._throughput = Throughput(_SMOOTHING_S)
        self._best_rate = 0.0
        """The highest rate of late: a lull of requests must not shut the bound."""
        self._best_at = 0.0
        self._base_rtt_s: float | None = None
        """Least time from send to credit: the sending of one piece, and the way there and back.
        None while it is being measured, with a piece that travels alone."""
        self._base_at = float("-inf")
        self._stalled = 0
        """Requesters set aside since anybody credited anything."""
        self._credited_at = float("-inf")
        """When anybody last did."""

    @property
    def rate(self) -> float:
        """Bytes a second that are credited, while anything is on its way."""
        return self._throughput.rate

    def may_send(self, user: User, size: int, piece_length: int) -> bool:
        """Whether so many bytes more may be sent to the user."""
        # Nobody may owe more than what is left to owe: so there is always something left.
        if user.unacked_bytes + size > self._settings.owed_max - self.unacked_bytes:
            return False
        if not self.in_flight:
            return True
        if self._base_rtt_s is None:
            return False
        bound = self._bound(piece_length)
        if self.in_flight + size <= bound:
            return True
        # Who holds more than an equal part of the bound may be late with the credit: whoever holds
        # less than that is sent more, as if the others held no more than theirs.
        share = max(size, bound // (len(self._users) + (not user.in_flight)))
        return user.in_flight + size <= share and self._counted(share) + size <= bound

    def others_may(self, size: int, piece_length: int) -> bool:
        """Whether somebody to whom nothing is on its way may be sent so many bytes."""
        return self.may_send(_NOBODY_YET, size, piece_length)

    def _counted(self, share: int) -> int:
        """What holds others up, when that is no more than `share` of any user."""
        return sum(min(user.in_flight, share) for user in self._users.values())

    def _bound(self, piece_length: int) -> int:
        """Bytes that may be on their way."""
        # What is sent at the same time arrives at the same time, and then the link is idle until
        # the credits come back: two pieces keep it busy, and more for the length of the way.
        rate = self._best_rate
        base_rtt_s = self._base_rtt_s or 0.0
        way_s = max(0.0, base_rtt_s - piece_length / rate) if rate else 0.0
        pieces = _FLOOR_PIECES if self.rate >= _LULL * rate else _LULL_PIECES
        bound = int(_GAIN * rate * way_s) + pieces * piece_length
        steady = int(rate * self._settings.in_flight_s)
        return min(max(bound, steady), self._settings.in_flight_max)

    def sent(self, requester: Requester, wanted: Wanted, size: int, now: float) -> None:
        """A piece is on its way."""
        if not self.in_flight:
            self._throughput.began(now)
            if not self.unacked_bytes and now > self._base_at + _PROBE_S:
                self._base_rtt_s = None
        if not requester.uncredited:
            requester.throughput.began(now)
            requester.progress_at = now
            self._unacked[requester.id] = requester
        if not requester.user.unacked_bytes:
            requester.user.throughput.began(now)
        self._account(requester, size)
        requester.sends.append(
            OnItsWay(wanted.content.id, wanted.index, requester.committed, size, now)
        )

    def undo(self, requester: Requester, content: ContentId, index: int) -> int:
        """A piece was not sent after all; the bytes that this takes back, 0 when it is not on its
        way."""
        sends = requester.sends
        at = len(sends) - 1
        while at >= 0 and (sends[at].content, sends[at].piece) != (content, index):
            at -= 1
        if at < 0:
            return 0
        # What was credited without having been sent is no credit.
        size = min(sends[at].size, requester.uncredited)
        del sends[at]
        for after in range(at, len(sends)):
            sends[after] = sends[after]._replace(end=sends[after].end - size)
        self._account(requester, -size)
        if not requester.uncredited:
            requester.stalled = False
            self._unacked.pop(requester.id, None)
        return size

    def credit(self, requester: Requester, received_bytes: int, now: float) -> bool:
        """The requester has got so many bytes by now; False when that is nothing new."""
        # It cannot have got what was not sent: whoever says so gains nothing by it.
        received_bytes = min(received_bytes, requester.committed)
        gained = received_bytes - requester.credited
        if gained <= 0:
            return False
        requester.credited = received_bytes
        self._stalled, self._credited_at = 0, now
        requester.user.late = False
        if requester.stalled:
            # When this came is not known: it tells nothing about the rate of the others.
            requester.stalled = False
            if not self.in_flight:
                self._throughput.began(now)
            self._count(requester.user, requester.uncredited)
        else:
            self._count(requester.user, -gained)
            self._throughput.arrived(gained, now)
        self.unacked_bytes -= gained
        requester.user.unacked_bytes -= gained
        requester.progress_at = now
        del self._unacked[requester.id]
        if requester.uncredited:
            self._unacked[requester.id] = requester
        requester.throughput.arrived(gained, now)
        requester.user.throughput.arrived(gained, now)
        self._learn_base(requester, now)
        faded = self._best_rate / (1.0 + (now - self._best_at) / _FADE_S)
        self._best_rate, self._best_at = max(self.rate, faded), now
        return True

    def left(self, requester: Requester) -> None:
        """Nothing is on its way to the requester any longer."""
        self.unacked_bytes -= requester.uncredited
        requester.user.unacked_bytes -= requester.uncredited
        if not requester.stalled:
            self._count(requester.user, -requester.uncredited)
        self._unacked.pop(requester.id, None)

    def mark_stalled(self, now: float) -> Iterator[Requester]:
        """Set those aside who owe credit for too long; yields each once."""
        stall_s = self._stall_s()
        for requester in list(self._unacked.values()):
            # The same sums as in `due_at`: differences would round otherwise.
            if now < requester.progress_at + stall_s:
                return
            if not requester.stalled:
                requester.stalled = requester.user.late = True
                self._stalled += 1
                stall_s = self._stall_s()
                self._count(requester.user, -requester.uncredited)
                if self._base_rtt_s is None:
                    self._base_rtt_s, self._base_at = 0.0, now  # the next to credit tells
                yield requester

    def timed_out(self, now: float) -> list[Requester]:
        """Those who owe credit for so long that they are to be dropped."""
        return list(takewhile(lambda r: now >= self._drop_at(r), self._unacked.values()))

    def due_at(self, waiting: bool) -> float | None:
        """When somebody is overdue, or to be set aside, which matters while others are waiting."""
        if not self._unacked:
            return None
        first = next(iter(self._unacked.values()))
        due = self._drop_at(first)
        if waiting:
            for requester in self._unacked.values():
                if not requester.stalled:
                    return min(due, requester.progress_at + self._stall_s())
        return due

    def _account(self, requester: Requester, size: int) -> None:
        requester.committed += size
        requester.served += size
        requester.user.served += size
        self.unacked_bytes += size
        requester.user.unacked_bytes += size
        if not requester.stalled:
            self._count(requester.user, size)

    def _count(self, user: User, size: int) -> None:
        """So many bytes more hold others up."""
        self.in_flight += size
        user.in_flight += size
        if user.in_flight:
            self._users[user.id] = user
        else:
            self._users.pop(user.id, None)

    def _learn_base(self, requester: Requester, now: float) -> None:
        sends = requester.sends
        while sends and sends[0].end <= requester.credited:
            latency_s = max(now - sends.popleft().at, 1e-5)
            requester.min_rtt_s = min(requester.min_rtt_s or latency_s, latency_s)
            if not self._base_rtt_s:
                self._base_rtt_s, self._base_at = latency_s, now
            self._base_rtt_s = min(self._base_rtt_s, latency_s)

    def _drop_at(self, requester: Requester) -> float:
        others_credit = self._credited_at > requester.progress_at
        patience = 1.0 if others_credit else _OUR_OWN_LINK
        return requester.progress_at + self._settings.drop_after_s * patience

    def _stall_s(self) -> float:
        min_rtt_s = max(self._settings.stall_min_s, 4.0 * (self._base_rtt_s or 0.0))
        # When nobody at all credits it may be our link that is slow: on such a one each more that
        # is sent only makes all of them later. But at the rate that it had, all would have come.
        patience_s = min_rtt_s * 2.0 ** min(self._stalled, _SET_ASIDE_MAX)
        if self._best_rate:
            patience_s = min(patience_s, _AT_THAT_RATE * self.unacked_bytes / self._best_rate)
        return max(min_rtt_s, patience_s)

    def check_invariants(self, requesters: list[Requester]) -> None:
        """Raise AssertionError when the accounts do not agree. For tests."""
        assert self.unacked_bytes == sum(r.uncredited for r in requesters)
        assert self.in_flight == sum(r.uncredited for r in requesters if not r.stalled)
        assert set(self._unacked) == {r.id for r in requesters if r.uncredited}
        for requester in requesters:
            last = requester.sends[-1].end if requester.sends else requester.credited
            assert requester.committed == last
        users = {r.user.id: r.user for r in requesters}
        for user in users.values():
            theirs = [r for r in requesters if r.user is user]
            assert user.unacked_bytes == sum(r.uncredited for r in theirs)
            assert user.in_flight == sum(r.uncredited for r in theirs if not r.stalled)
        assert self._users == {user.id: user for user in users.values() if user.in_flight}
