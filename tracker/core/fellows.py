"""Fellow trackers: the others on this database, as far as decisions need to know them.

Owns: their addresses for `Welcome`, and how many devices this tracker sends to them. Not here: how
they are found (see tracker.service.follower).

After the return of a tracker all devices are at the others, and none moves by itself. A tracker
with more than ``UNEVEN`` times the average sends some away at their next announcement, a few at a
time, until the numbers are even. Why few: each of them makes connections anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

UNEVEN = 1.2
UNDERWAY_S = 5.0  # a device that was sent away counts here that long, until it is counted there
SPREAD_S = 30.0  # large differences are evened out in about that time
SENT_AT_ONCE = 2  # at least, with each look at the numbers


class Fellows:
    """Other trackers on this database; without any, nothing is sent away."""

    def __init__(self) -> None:
        self.endpoints: tuple[str, ...] = ()
        """Endpoints of all trackers, this one first; empty if it is alone."""
        self.cut_off = False
        """Whether this tracker has lost the database."""
        self.rates = (0, 0)
        """Sums of the rates of all devices at the others: received and sent."""
        self._quota = 0
        self._spreading = False
        self._sent: deque[float] = deque()
        self._looked_at = 0.0

    def count(self, online: int, elsewhere: Sequence[int], now: float) -> None:
        """Take the numbers of devices: here, and at each other tracker that serves."""
        passed_s = min(SPREAD_S, max(0.0, now - self._looked_at))
        self._looked_at = now
        while self._sent and now - self._sent[0] > UNDERWAY_S:
            self._sent.popleft()
        average = (online + sum(elsewhere)) / (1 + len(elsewhere))
        online -= len(self._sent)
        excess = int(online - average)
        if excess < 1 or not elsewhere:
            self._spreading = False
        elif online > UNEVEN * average:
            self._spreading = True
        share = int(excess * passed_s / SPREAD_S)
        self._quota = min(excess, max(SENT_AT_ONCE, share)) if self._spreading else 0

    def wants_fewer(self) -> bool:
        """Whether the device that announces itself should go to another tracker."""
        return self._quota > 0 and not self.cut_off

    def sent_away(self, now: float) -> None:
        """Count a device that was asked to go."""
        self._quota -= 1
        self._sent.append(now)
