"""Delay of outgoing messages, so that requests, cancellations and acknowledgements travel together.

Owns: the rule for one source. Not here: the timer and the messages (see peer.fetching.connection).

Why: on a fast link a piece arrives every half millisecond. A wait of 2 ms for the next pieces saves
both sides most of the messages. On a slow link a wait would gain nothing, so they leave at once.
"""

from __future__ import annotations

from math import inf

from common.limits import MIB

FLUSH_S = 0.002
FLUSH_BYTES = 2 * MIB
"""The source is told at once if it waits for the acknowledgement of at least this much."""


class FlushDelay:
    """Time that the next messages to one source may wait. Seconds of one monotonic clock."""

    __slots__ = ("_last_at",)

    def __init__(self) -> None:
        self._last_at = -inf

    def delay_s(self, unacked_bytes: int, now: float) -> float:
        """Return the wait for a message that is ready now; 0 if it is urgent."""
        fast = now - self._last_at < 4 * FLUSH_S
        return FLUSH_S if fast and unacked_bytes < FLUSH_BYTES else 0.0

    def flushed(self, now: float) -> None:
        """Record that everything that waited is sent."""
        self._last_at = now
