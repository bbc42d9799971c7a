"""Pacing by our own uplink: the time at which the next piece should be given to a socket.

Theory of operation. An acknowledgement tells that a piece has arrived, and a piece waits at the
receiver's link as well. So a bound on unacknowledged pieces leaves our uplink idle whenever several
senders meet at one receiver. Instead this module keeps a model of our uplink: each piece leaves
after those given before it, at the *sure rate*. The next piece is due shortly before the last one
has left. The uplink budget bounds all pieces in flight, whatever the model says.

The sure rate is a lower bound that needs no knowledge of the receivers: the pieces that were sent
after one time and acknowledged before another have certainly left in between. It is computed from
each recent send to the newest acknowledgement. The highest recent value counts; it fades, since
links change. Pieces that wait at a receiver lower it. So pieces are given at a multiple of it,
which also finds out that an uplink has become faster.

Owns: the sure rate and the model. Not here: the account of bytes in flight (see uplink).
"""

from __future__ import annotations

from collections import deque
from math import inf

_GAIN = 1.3
"""Multiple of the sure rate at which pieces are given. 1.15 costs 4 % on equal links, 1.5 gains
nothing there, and all cost 1 to 2 % where only uplinks are narrow."""
_LEAD = 0.5
"""Part of a piece that is still to leave when the next one is due."""
_SENDS = 32
"""Acknowledged sends that are remembered."""
_WINDOW_PIECES = 4
"""A time in which fewer pieces left is too short to measure by, as a shaper lets bursts pass.
Before that many are acknowledged, all of them count together."""
_FADE_S = 10.0
"""The sure rate halves if it is not reached again within this time."""
_MEASURE_S = 0.002
"""Interval of the measurements. On faster uplinks other bounds decide."""


class Pacer:
    """Model of our uplink. Sizes in bytes, times in seconds of one monotonic clock."""

    __slots__ = ("_acked", "_free_at", "_measured_at", "rate")

    def __init__(self) -> None:
        self._acked: deque[tuple[float, int]] = deque(maxlen=_SENDS)
        """Time and size of sends, in the order of their acknowledgements."""
        self._measured_at = -inf
        self._free_at = 0.0
        """Time at which all that was given has left, by the model."""
        self.rate = 0.0
        """Highest recent sure rate; 0 before the first acknowledgement."""

    def sent(self, size: int, now: float) -> None:
        """Record a piece that is given to a socket."""
        if self.rate:
            self._free_at = max(self._free_at, now) + size / (self.rate * _GAIN)

    def acknowledged(self, size: int, sent_at: float, now: float) -> None:
        """Record the acknowledgement of a piece."""
        self._acked.append((sent_at, size))
        elapsed_s = now - self._measured_at
        if elapsed_s >= _MEASURE_S:
            self._measured_at = now
            self.rate = max(self._sure_rate(now), self.rate / (1.0 + elapsed_s / _FADE_S))

    def _sure_rate(self, now: float) -> float:
        """Return the highest rate at which pieces left, from any recent send until `now`."""
        best, left = 0.0, 0
        least = min(_WINDOW_PIECES, len(self._acked))
        for count, (sent_at, size) in enumerate(sorted(self._acked, reverse=True), 1):
            left += size
            if count >= least:
                best = max(best, left / max(now - sent_at, 1e-4))
        return best

    def due_at(self, piece_length: int) -> float:
        """Return the time at which the next piece should be given; infinite if unknown."""
        return self._free_at - _LEAD * piece_length / (self.rate * _GAIN) if self.rate else inf

    def takes_s(self, size: int) -> float:
        """Return the seconds that a piece takes on the uplink; infinite if unknown."""
        return size / self.rate if self.rate else inf
