"""State of the link to the tracker, and waiting for its changes.

Owns: the state, the last error, and the waiting callers. Not here: what moves the state (see
``peer.tracker_client.link``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from enum import Enum

from common.errors import MiniTorrentError, Refused, TransportError
from common.hints import CHECK_LINK
from common.link import Link


class LinkState(Enum):
    """State of a link."""

    CONNECTING = "connecting"
    """No attempt has ended since the start."""
    UP = "up"
    """From the tracker's `Welcome` until the connection ends."""
    DOWN = "down"
    """The last attempt failed, or its connection ended; attempts go on."""


class LinkStatus:
    """Current state of the link, on which callers can wait."""

    def __init__(self) -> None:
        self.state = LinkState.CONNECTING
        self.rounds = 0
        """Finished rounds; a round is an attempt at each tracker, until one serves."""
        self.last_error: str | None = None
        """Reason of the last failed attempt; None while the link is up."""
        self.refusal: Refused | None = None
        """The refusal of a tracker that answers, and does not accept this device."""
        self._changed = asyncio.Event()

    def set(self, state: LinkState) -> None:
        """Change the state."""
        self.state = state
        self._notify()

    def round_ended(self) -> None:
        """Count a round of attempts."""
        self.rounds += 1
        self._notify()

    def fail(self, reason: str | None, refusal: Refused | None) -> None:
        """Record the reason of a failed attempt; None clears it."""
        self.last_error, self.refusal = reason, refusal

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``condition`` holds after a change, at most for ``timeout_s``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not condition():
                    await self._changed.wait()


def unreachable(known: Link, status: LinkStatus) -> MiniTorrentError:
    """Return the error of requests while none of the ``known`` trackers can be reached."""
    if status.refusal is not None:
        return Refused(status.refusal.code, status.refusal.message, status.refusal.hint)
    endpoints = ", ".join(known.endpoints)
    what = f"the tracker at {endpoints} cannot be reached"
    if len(known.endpoints) > 1:
        what = f"none of the trackers at {endpoints} can be reached"
    reason = f": {status.last_error}" if status.last_error else ""
    return TransportError(f"{what}{reason}", CHECK_LINK)
