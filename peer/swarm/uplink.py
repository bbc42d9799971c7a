"""How much is on its way from this peer, and whether more may be.

Owns the account of what is sent and not yet credited, the measured rate, and who owes credit for
too long. Who is given the next piece is decided in `schedule`.

The bound follows the idea of BBR (Cardwell and others, "BBR: congestion-based congestion control",
2016): what the network delivers in the least time that a piece ever took, and as much again, keeps
a link busy; more only waits in its queues. So on a slow uplink two pieces travel at a time and
arrive soon, on a fast or long one as many as are needed.
"""

from __future__ import annotations

from collections.abc import Iterator

from peer.swarm.events import RequesterId
from peer.swarm.requesters import OnItsWay, Requester
from peer.swarm.settings import ServingSettings
from peer.swarm.window import FLOOR_PIECES, Throughput

_FORGET_S = 10.0
"""The least latency doubles when it was not met again for so long: routes change."""


class Uplink:
    """The account of all requesters together. It writes the accounts of each as well."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self.in_flight = 0
        """Bytes on their way to requesters that are not stalled."""
        self.owed = 0
        """Bytes on their way in all."""
        self._owing: dict[RequesterId, Requester] = {}
        """Those with pieces on their way; who has been silent for longest is first."""
        self._throughput = Throughput()
        self._base_s = 0.0
        """Least time of late from send to credit, less what was ahead in the queue: the sending of
        one piece, and the way there and back."""
        self._base_at = 0.0

    @property
    def rate(self) -> float:
        """Bytes a second that are credited, while anything is on its way."""
        return self._throughput.rate

    def may_send(self, size: int, piece_length: int) -> bool:
        """Whether so many bytes more may be sent."""
        if not self.in_flight:
            return self.owed + size <= self._settings.owed_max
        horizon_s = max(self._settings.in_flight_s, 2.0 * self._base_s)
        wanted = min(int(self.rate * horizon_s), self._settings.in_flight_max)
        if self.in_flight + size > max(wanted, FLOOR_PIECES * piece_length):
            return False
        return self.owed + size <= self._settings.owed_max

    def sent(self, requester: Requester, size: int, now: float) -> None:
        """A piece is on its way."""
        rate = self.rate
        ahead_s = self.in_flight / rate if rate else 0.0
        if not self.in_flight:
            self._throughput.began(now)
        if not requester.uncredited:
            requester.throughput.began(now)
            requester.progress_at = now
            self._owing[requester.id] = requester
        self._account(requester, size)
        requester.sends.append(OnItsWay(requester.committed, size, now, ahead_s))

    def undo(self, requester: Requester) -> bool:
        """The last piece was not sent after all; False when nothing is on its way."""
        if not requester.sends:
            return False
        size = requester.sends.pop().size
        # What was credited without having been sent is no credit.
        self._account(requester, -min(size, requester.uncredited))
        if not requester.uncredited:
            self._owing.pop(requester.id, None)
        return True

    def credit(self, requester: Requester, received_bytes: int, now: float) -> bool:
        """The requester has got so many bytes by now; False when that is nothing new."""
        # It cannot have got what was not sent: whoever says so gains nothing by it.
        received_bytes = min(received_bytes, requester.committed)
        gained = received_bytes - requester.credited
        if gained <= 0:
            return False
        requester.credited = received_bytes
        self.owed -= gained
        if requester.stalled:
            requester.stalled = False
            self.in_flight += requester.uncredited
        else:
            self.in_flight -= gained
        requester.progress_at = now
        del self._owing[requester.id]
        if requester.uncredited:
            self._owing[requester.id] = requester
        requester.throughput.arrived(gained, now)
        self._throughput.arrived(gained, now)
        self._learn_base(requester, now)
        return True

    def left(self, requester: Requester) -> None:
        """Nothing is on its way to the requester any longer."""
        self.owed -= requester.uncredited
        if not requester.stalled:
            self.in_flight -= requester.uncredited
        self._owing.pop(requester.id, None)

    def stalled(self, now: float) -> Iterator[Requester]:
        """Set those aside who owe credit for too long; yields whom to drop altogether."""
        stall_s = self._stall_s()
        for requester in list(self._owing.values()):
            # The same sums as in `due_at`: differences would round otherwise.
            if now < requester.progress_at + stall_s:
                return
            if not requester.stalled:
                requester.stalled = True
                self.in_flight -= requester.uncredited
            if now >= requester.progress_at + self._settings.drop_after_s:
                yield requester

    def due_at(self, waiting: bool) -> float | None:
        """When `stalled` will find somebody; being set aside matters while others are waiting."""
        if not self._owing:
            return None
        first = next(iter(self._owing.values()))
        due = first.progress_at + self._settings.drop_after_s
        if waiting:
            for requester in self._owing.values():
                if not requester.stalled:
                    return min(due, requester.progress_at + self._stall_s())
        return due

    def _account(self, requester: Requester, size: int) -> None:
        requester.committed += size
        requester.served += size
        requester.user.served += size
        self.owed += size
        if not requester.stalled:
            self.in_flight += size

    def _learn_base(self, requester: Requester, now: float) -> None:
        sends, least = requester.sends, None
        while sends and sends[0].end <= requester.credited:
            send = sends.popleft()
            least = max(now - send.at - send.ahead_s, 1e-5)
        if least is None:
            return
        aged = self._base_s * (1.0 + (now - self._base_at) / _FORGET_S)
        self._base_s = least if not self._base_s else min(aged, least)
        self._base_at = now

    def _stall_s(self) -> float:
        return max(self._settings.stall_min_s, 4.0 * self._base_s)

    def check_invariants(self, requesters: list[Requester]) -> None:
        """Raise AssertionError when the accounts do not agree. For tests."""
        assert self.owed == sum(r.uncredited for r in requesters)
        assert self.in_flight == sum(r.uncredited for r in requesters if not r.stalled)
        assert set(self._owing) == {r.id for r in requesters if r.uncredited}
