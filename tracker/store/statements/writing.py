"""Rows of a batch of changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tracker.core.changes.base import TAGS, Change
from tracker.store.gathered import Gathered
from tracker.store.statements import accounts, follows, groups, invitations, receipts, shares
from tracker.store.statements.base import write_change

NOUNS = (accounts, follows, groups, invitations, receipts, shares)
KINDS: dict[int, type[Any]] = dict(sorted(TAGS.items()))
"""All kinds of changes that the journal keeps, by tag: the modules above import them."""


def gather(changes: Iterable[Change], rows: Gathered) -> None:
    """Gather the rows of ``changes``, or write what cannot be gathered.

    Raise `LogConflict` or an exception of SQLAlchemy or its driver.
    """
    for change in changes:
        write_change(change, rows)
