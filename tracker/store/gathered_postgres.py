"""Gathered rows for PostgreSQL: one statement for each table, all in one round trip.

Owns: these statements. Rows travel as one array for each column, so the server plans and executes
once for all. The arrays are binary: the driver takes 4 times as long to write them as text. Not
here: which rows are gathered (see tracker.store.gathered).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection, Table

from tracker.store import tables as t
from tracker.store.gathered import INSERTED, Gathered, Row

_ARRAYS: tuple[tuple[type[Any], str], ...] = (
    (sa.LargeBinary, "bytea[]"),
    (sa.BigInteger, "bigint[]"),
    (sa.Integer, "integer[]"),
    (sa.Text, "text[]"),
)
_KEYS = {"names": ("group_id", "share_id"), "receipts": ("device", "request_id"), "seen": ("d",)}
"""Keys of the tables that are updated, since one statement may change a row only once."""


class PostgresGathered(Gathered):
    """Rows of one transaction that are not written yet."""

    def __init__(self, db: Connection) -> None:
        super().__init__(db)
        self._driver: Any = db.connection.driver_connection

    def flush(self) -> None:
        """Write what was gathered. Raise an exception of the driver."""
        with self._driver.pipeline():
            super().flush()

    def commit(self, journal: str, values: Sequence[Any]) -> None:
        """Write what was gathered and the row of the journal, and commit, in one round trip.

        The server skips the commit if a statement before it fails.
        """
        with self._driver.pipeline():
            super().flush()
            self._driver.execute(journal, values)
            self._driver.execute("COMMIT", prepare=False)

    def _many(self, what: str, rows: list[Row]) -> None:
        if rows:
            once = _once(what, rows) if what in _KEYS else rows
            self._driver.execute(_STATEMENTS[what], _columns(once))
            rows.clear()

    def _move_heads(self, moves: list[Row]) -> None:
        self._driver.execute(_STATEMENTS["heads"], {**_columns(moves), "count": len(moves)})


def _columns(rows: list[Row]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _once(what: str, rows: list[Row]) -> list[Row]:
    """Return one row for each key: the last, and of a name the highest version."""
    found: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = tuple(row[name] for name in _KEYS[what])
        if what == "names" and key in found:
            row = {**row, "current": max(row["current"], found[key]["current"])}
        found[key] = row
    return list(found.values())


def _insert(table: Table, *names: str) -> str:
    """Return the statement that inserts rows; ``names``: of the columns, or all."""
    columns = [table.c[name] for name in names] if names else list(table.c)
    listed = ", ".join(column.name for column in columns)
    arrays = ", ".join(f"%({column.name})b::{_array(column)}" for column in columns)
    return f"INSERT INTO {table.name} ({listed}) SELECT * FROM unnest({arrays})"


def _array(column: sa.Column[Any]) -> str:
    return next(array for kind, array in _ARRAYS if isinstance(column.type, kind))


_STATEMENTS = {
    **{
        table.name: _insert(table)
        for table in (*(each for each in INSERTED if each is not t.versions), t.log)
    },
    # Without ``withdrawn``, which has a default.
    "versions": _insert(
        t.versions, "group_id", "share_id", "version", "content", "user_id", "at_ms"
    ),
    "names": _insert(t.names, "group_id", "share_id", "name", "current", "floor")
    + " ON CONFLICT (group_id, share_id) DO UPDATE SET name = excluded.name,"
    " current = greatest(names.current, excluded.current)",
    "receipts": _insert(t.receipts) + " ON CONFLICT (device, request_id) DO UPDATE"
    " SET fingerprint = excluded.fingerprint, at_ms = excluded.at_ms",
    "seen": "UPDATE devices SET seen_ms = new.at"
    " FROM unnest(%(d)b::bytea[], %(at)b::bigint[]) AS new(d, at) WHERE device = new.d",
    "begun": "UPDATE names SET ended_ms = NULL"
    " FROM unnest(%(g)b::text[], %(n)b::text[]) AS new(g, n)"
    " WHERE group_id = new.g AND share_id = new.n AND ended_ms IS NOT NULL",
    # Divides by zero unless all of them had the expected head.
    "heads": "WITH moved AS (UPDATE groups SET seq = new.last FROM"
    " unnest(%(g)b::text[], %(before)b::bigint[], %(last)b::bigint[]) AS new(g, before, last)"
    " WHERE group_id = new.g AND seq = new.before RETURNING 1)"
    " SELECT 1 / (count(*) = %(count)s)::integer FROM moved",
}
