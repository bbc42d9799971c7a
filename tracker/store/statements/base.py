"""Dispatch of changes to their statements, and conditions that several of them share."""

from __future__ import annotations

from functools import singledispatch

from sqlalchemy import ColumnElement, Connection, Table, and_, delete

from tracker.core.changes.base import Change
from tracker.store.gathered import Gathered


@singledispatch
def write_change(change: Change, rows: Gathered) -> None:
    """Add the rows of ``change``, or write it after what was added before.

    Raise `LogConflict` or an exception of SQLAlchemy.
    """
    raise AssertionError(f"{type(change).__name__} has no statements")


def delete_of(db: Connection, table: Table, group: str, user: str) -> None:
    """Delete the row of a user in a group."""
    db.execute(delete(table).where(table.c.group_id == group, table.c.user_id == user))


def named(table: Table, group: str, name: str) -> ColumnElement[bool]:
    """Whether a row is of the name of a share."""
    return and_(table.c.group_id == group, table.c.share_id == name)
