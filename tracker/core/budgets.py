"""Budgets per user for durable rows that one account could create without end.

Owns: the rates and what each user has left. A row is paid for when it is created, together with the
row that later records its end. Leaving, withdrawing and logging out are free.

Why in memory: a restart fills the budgets, and an attacker cannot cause one.
"""

from __future__ import annotations

import enum
import math
from typing import Protocol

from common import limits
from common.errors import Refused
from common.ids import UserId
from common.messages.refusals import Code
from common.token_bucket import KeyedTokenBuckets, Rate
from tracker.core.changes.base import Change, change
from tracker.core.undo import UndoLog


class Budget(enum.Enum):
    """Kinds of rows that are paid for."""

    ENTRIES = "entries"  # in the logs of groups, by user
    GROUPS = "groups"  # created, by user: a tombstone of each remains for a day
    INVITATIONS_TRIED = "invitations tried"  # in vain, by device
    INVITATIONS_TRIED_AT = "invitations tried at"  # in vain, by network
    OFFERS = "offers"  # by further devices, without an entry in a log; by user and device


RATES = {
    Budget.ENTRIES: Rate(limits.ENTRIES_BURST, limits.ENTRIES_RATE),
    Budget.GROUPS: Rate(limits.GROUPS_BURST, limits.GROUPS_RATE),
    Budget.OFFERS: Rate(limits.OFFERS_BURST, limits.OFFERS_RATE),
    Budget.INVITATIONS_TRIED: Rate(limits.INVITATIONS_TRIED_BURST, limits.INVITATIONS_TRIED_RATE),
    Budget.INVITATIONS_TRIED_AT: Rate(
        limits.INVITATIONS_TRIED_NETWORK_BURST, limits.INVITATIONS_TRIED_NETWORK_RATE
    ),
}
_WORDS = {
    Budget.ENTRIES: "you have caused too many events in your groups lately",
    Budget.GROUPS: "you have created too many groups lately",
    Budget.OFFERS: "this device has shared too much lately",
    Budget.INVITATIONS_TRIED: "this device has tried too many invitations",
    Budget.INVITATIONS_TRIED_AT: "too many invitations were tried from this network",
}


class HasBudgets(Protocol):
    """Mirror, as far as budgets are concerned."""

    budgets: Budgets
    undo: UndoLog


@change(41)
class BudgetSpent(Change):
    """Use of ``amount`` of a budget at ``at_ms``. In memory only.

    ``user`` is a network for `Budget.INVITATIONS_TRIED_AT`.
    """

    budget: Budget
    user: UserId
    device: bytes
    amount: int
    at_ms: int

    def apply(self, state: HasBudgets) -> None:
        state.undo.step(state.budgets.give_back, self)
        state.budgets.take(self)


class Budgets:
    """Remaining budgets of all users."""

    def __init__(self) -> None:
        # Why so many: other users, each with a budget of their own, must not make one be forgotten.
        self._left = {
            budget: KeyedTokenBuckets(rate, limits.ACCOUNTS_MAX) for budget, rate in RATES.items()
        }

    def spend(
        self, budget: Budget, user: UserId, amount: int, now_ms: int, device: bytes = b""
    ) -> BudgetSpent:
        """Return the change that takes ``amount``. Raise `Refused` if that much is not left."""
        wait_s = self._left[budget].wait_s((user, device), now_ms / 1000, amount)
        if wait_s > 0:
            raise Refused(
                Code.SLOW_DOWN, _WORDS[budget], f"try again in {max(1, math.ceil(wait_s))} s"
            )
        return BudgetSpent(budget, user, device, amount, now_ms)

    def try_invitation(
        self, device: bytes, network: str, now_ms: int
    ) -> tuple[BudgetSpent, BudgetSpent]:
        """Return the changes for an attempt in vain. Raise `Refused` if none is left."""
        return (
            self.spend(Budget.INVITATIONS_TRIED, UserId(""), 1, now_ms, device),
            self.spend(Budget.INVITATIONS_TRIED_AT, UserId(network), 1, now_ms),
        )

    def take(self, spent: BudgetSpent) -> None:
        """Apply what `spend` decided."""
        key = (spent.user, spent.device)
        self._left[spent.budget].take(key, spent.at_ms / 1000, spent.amount)

    def give_back(self, spent: BudgetSpent) -> None:
        """Take back what `take` did: the command was not carried out."""
        key = (spent.user, spent.device)
        self._left[spent.budget].give_back(key, spent.at_ms / 1000, spent.amount)
