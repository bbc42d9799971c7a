"""Notifications for the user about events that no command waits for.

Owns the last few: shares withdrawn because their files changed, downloads that stopped.
"""

from __future__ import annotations

import logging
from collections import deque

from common.host.clock import wall_ms
from peer.control.views import time_text

log = logging.getLogger(__name__)
KEPT = 20
NEWS_MS = 3_600_000  # how long `status` shows a notice, and `doctor` counts it as a fault


class Notifications:
    """The last notices, oldest first; each is also in the log."""

    def __init__(self) -> None:
        self._notices: deque[tuple[int, str]] = deque(maxlen=KEPT)

    def add(self, text: str) -> None:
        """Add a notice, and log it."""
        log.warning("%s", text)
        self._notices.append((wall_ms(), text))

    @property
    def latest(self) -> str | None:
        """The last one, unless it is older than `NEWS_MS`."""
        if not self._notices or wall_ms() - self._notices[-1][0] > NEWS_MS:
            return None
        return self._notices[-1][1]

    def texts(self) -> list[tuple[str, bool]]:
        """All of them with their times, and whether each is newer than `NEWS_MS`."""
        now = wall_ms()
        return [
            (f"{time_text(when)} {text}", now - when <= NEWS_MS) for when, text in self._notices
        ]
