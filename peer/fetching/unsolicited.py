"""Budget for unsolicited bytes of one connection, such as pieces on channels that are not open."""

from __future__ import annotations

from collections.abc import Callable

from common import limits
from peer.fetching.channel import UNSOLICITED_BYTES_MIN

UNSOLICITED_BUDGET = 1 * limits.MIB  # for each connection, as sources may have small faults
UNSOLICITED_BUDGET_MAX = 2 * limits.ON_ITS_WAY_MAX  # with cancelled requests added to it


class UnsolicitedBudget:
    """Bytes that a source may still send without a request.

    ``exceeded`` is called at each message beyond them.
    """

    def __init__(self, exceeded: Callable[[], None]) -> None:
        self._exceeded = exceeded
        self._left = UNSOLICITED_BUDGET

    def credit(self, size: int) -> None:
        """Add bytes that an honest source may send: they are due on a closed channel."""
        self._left = min(UNSOLICITED_BUDGET_MAX, self._left + size)

    def charge(self, size: int) -> None:
        """Subtract a message of ``size`` bytes."""
        self._left -= max(size, UNSOLICITED_BYTES_MIN)
        if self._left < 0:
            self._exceeded()
