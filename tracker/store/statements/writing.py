"""Writing of a batch of changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection

from tracker.core.changes.base import TAGS, Change
from tracker.store.gathered import Gathered
from tracker.store.statements import accounts, follows, groups, invitations, receipts, shares
from tracker.store.statements.base import write_change

NOUNS = (accounts, follows, groups, invitations, receipts, shares)
KINDS: dict[int, type[Any]] = dict(sorted(TAGS.items()))
"""All kinds of changes that the journal keeps, by tag: the modules above import them."""


def write(db: Connection, changes: Iterable[Change], rows: Gathered | None = None) -> None:
    """Write ``changes``. Raise `LogConflict` or an exception of SQLAlchemy or its driver."""
    rows = rows or Gathered(db)
    for change in changes:
        write_change(change, rows)
    rows.flush()
