"""Schedule of requests for other sources, for a download that gets nothing.

Owns: the times, one second after the sources fall silent, then after twice as long each time.
Times are monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 1.0  # a list of silent sources is replaced at once
LONGEST_S = 20.0  # an event may have been lost as well
REVIEW_S = 0.5  # between two reviews of each download


@dataclass(slots=True)
class SourceRequestTimer:
    """Timer of one download."""

    wait_s: float = 0.0
    at: float = 0.0

    def is_due(self, silent: bool, now: float) -> bool:
        """Whether to request sources now. ``silent``: no source gives anything."""
        if not silent:
            self.wait_s = 0.0
            return False
        if not self.wait_s:
            self.wait_s, self.at = FIRST_S, now + FIRST_S
            return False
        if now < self.at:
            return False
        self.wait_s = min(2 * self.wait_s, LONGEST_S)
        self.at = now + self.wait_s
        return True
