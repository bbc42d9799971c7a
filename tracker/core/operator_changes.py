"""Durable changes by the operator, as values.

Owns: these types. Not here: the other changes (see tracker.core.changes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from common.ids import UserId
from common.messages.operator import Registration


@dataclass(frozen=True, slots=True)
class AccountDisabled:
    """``user`` can do nothing until ``disabled`` is withdrawn; nothing of theirs is deleted."""

    user: UserId
    disabled: bool


@dataclass(frozen=True, slots=True)
class AccountDeleted:
    """The account, without devices, memberships and requests left, is gone; its name is free."""

    user: UserId


@dataclass(frozen=True, slots=True)
class RegistrationSet:
    """From now on ``mode`` decides who may make an account."""

    mode: Registration


OperatorChange: TypeAlias = AccountDisabled | AccountDeleted | RegistrationSet
