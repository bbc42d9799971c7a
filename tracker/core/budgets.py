"""Budgets per user for durable rows that one account could make without end.

Owns: the rates and what each user has left. A row is paid for when it comes about, together with
the one that will tell of its end: what takes rows away (leaving, withdrawing, logging out) is free.

Why: the budgets live as long as the process. A restart fills them, which an attacker cannot cause.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from common import limits
from common.errors import Refused
from common.ids import UserId
from common.messages.refusals import Code
from tracker.core.throttle import KeyedTokenBuckets, Rate


class Budget(enum.Enum):
    """What is paid for."""

    ENTRIES = "entries"  # of the logs of groups, by user
    GROUPS = "groups"  # made, by user: a group's name is remembered for a day after its end
    OFFERS = "offers"  # of one more device, which are no news in any log, by user and device


RATES = {
    Budget.ENTRIES: Rate(limits.ENTRIES_BURST, limits.ENTRIES_RATE),
    Budget.GROUPS: Rate(limits.GROUPS_BURST, limits.GROUPS_RATE),
    Budget.OFFERS: Rate(limits.OFFERS_BURST, limits.OFFERS_RATE),
}
_WORDS = {
    Budget.ENTRIES: "you have made too many events in your groups lately",
    Budget.GROUPS: "you have made too many groups lately",
    Budget.OFFERS: "this device has shared too much lately",
}


@dataclass(frozen=True, slots=True)
class BudgetSpent:
    """``amount`` of a budget was used up, at ``at_ms``. Of this process alone."""

    budget: Budget
    user: UserId
    device: bytes
    amount: int
    at_ms: int


class Budgets:
    """What every user has left."""

    def __init__(self) -> None:
        self._left = {budget: KeyedTokenBuckets(rate) for budget, rate in RATES.items()}

    def spend(
        self, budget: Budget, user: UserId, amount: int, now_ms: int, device: bytes = b""
    ) -> BudgetSpent:
        """The change that takes ``amount``. Raises `Refused` if that is not left."""
        wait_s = self._left[budget].wait_s((user, device), now_ms / 1000, amount)
        if wait_s > 0:
            raise Refused(
                Code.SLOW_DOWN, _WORDS[budget], f"try again in {max(1, math.ceil(wait_s))} s"
            )
        return BudgetSpent(budget, user, device, amount, now_ms)

    def take(self, spent: BudgetSpent) -> None:
        """Apply what `spend` decided."""
        key = (spent.user, spent.device)
        self._left[spent.budget].take(key, spent.at_ms / 1000, spent.amount)
