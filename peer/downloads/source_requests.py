"""Schedule of asking the tracker for other sources, for a download to which none gives anything.

Owns when it is asked: after a second of silence, then after twice as long each time. Times are
monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_S = 1.0  # a list of which all are silent is replaced at once
LONGEST_S = 20.0  # an event may have been lost as well
LOOK_S = 0.5  # how often each download is looked at


@dataclass(slots=True)
class Asking:
    """Of one download."""

    wait_s: float = 0.0
    at: float = 0.0

    def due(self, silent: bool, now: float) -> bool:
        """Whether to ask now. ``silent``: no source gives anything."""
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
