"""Copy of all tables from one database to another, between SQLite and PostgreSQL.

Owns: the order of the tables, and the comparison of the counts. Not here: what of a home moves with
them (see tracker.admin.moving and tracker.admin.backup). Rows of running trackers stay behind.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from common.errors import ConfigError, StorageError
from tracker.store import tables as t
from tracker.store.postgres_store import TURN_LOCK

ROWS_AT_ONCE = 2_000
_COPIED = [table for table in t.metadata.sorted_tables if table not in t.SHARED_ALONE]


def check_empty(target: sa.Connection) -> None:
    """Raise `ConfigError` unless ``target`` holds nothing."""
    for table in (*_COPIED, t.changes):
        if target.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
            raise ConfigError(
                "the database is not empty", "create another one, and name it instead"
            )


def copy_all(source: sa.Engine, target: sa.Engine) -> int:
    """Copy all rows into ``target``, which must be empty; return their number.

    All or nothing. Raise `StorageError` if the counts differ.
    """
    copied = 0
    with source.connect() as reading, target.begin() as writing:
        _begin(reading, writing)
        check_empty(writing)
        reading = reading.execution_options(yield_per=ROWS_AT_ONCE)
        for table in _COPIED:
            count = _copy(table, reading, writing)
            there = writing.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            if count != there:
                raise StorageError(f"{there} of {count} rows of {table.name} arrived")
            copied += count
    return copied


def _begin(reading: sa.Connection, writing: sa.Connection) -> None:
    if reading.dialect.name == "postgresql":
        reading.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        reading.execute(sa.text("SET LOCAL statement_timeout = 0"))
    if writing.dialect.name == "postgresql":
        writing.execute(sa.text("SET LOCAL statement_timeout = 0"))
        writing.execute(sa.select(sa.func.pg_advisory_xact_lock(TURN_LOCK)))


def _copy(table: sa.Table, reading: sa.Connection, writing: sa.Connection) -> int:
    count = 0
    rows = reading.execute(sa.select(table))
    if writing.dialect.name != "postgresql":
        for several in rows.partitions(ROWS_AT_ONCE):
            writing.execute(sa.insert(table), [dict(row._mapping) for row in several])
            count += len(several)
        return count
    driver: Any = writing.connection.driver_connection
    columns = ", ".join(column.name for column in table.columns)
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as out:
        for several in rows.partitions(ROWS_AT_ONCE):
            for row in several:
                out.write_row(tuple(row))
            count += len(several)
    return count
