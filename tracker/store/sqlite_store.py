"""SQLite database of one tracker: the default.

Owns: the connections, the check of the file, and turns that wait for nothing.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from common.errors import StorageError
from common.hints import tracker_hint
from common.ids import ContentId, DeviceKey, GroupId
from tracker.core.changes.base import Change
from tracker.store.failures import DamagedDatabase, is_damage, text_of, translated
from tracker.store.gathered import Gathered
from tracker.store.migrate import upgrade
from tracker.store.statements.writing import gather
from tracker.store.table_store import TableStore
from tracker.store.turns import Commit, InDoubt, StoredEntry

_ENTRIES = sa.text(
    "SELECT group_concat(seq || ':' || hex(entry), ' ')"
    " FROM (SELECT seq, entry FROM log WHERE group_id = :group AND seq > :after AND seq <= :head"
    " ORDER BY seq LIMIT :rows)"
)


class SqliteStore(TableStore):
    """Durable state of a tracker in one SQLite file.

    ``synchronous=FULL`` and a write-ahead log: a commit is on the disk when it returns, and readers
    never wait for the writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with translated(f"open the database {path}"):
            # SQLite gives its journal files the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            engine = sa.create_engine(
                f"sqlite:///{path}",
                connect_args={"check_same_thread": False, "timeout": 10.0},
                pool_size=4,
            )
            sa.event.listen(engine, "connect", _set_up_connection)
            sa.event.listen(engine, "begin", _begin)
        super().__init__(engine)
        self._check()
        with translated("bring the database up to date"):
            upgrade(self._engine)

    def _check(self) -> None:
        """Raise `DamagedDatabase` unless SQLite finds the file intact."""
        try:
            with self._engine.connect() as db:
                found = [row[0] for row in db.execute(sa.text("PRAGMA quick_check(5)"))]
        except SQLAlchemyError as error:
            if not is_damage(error):
                raise StorageError(
                    f"cannot open the database {self.path}: {text_of(error)}",
                    "check the disk and the permissions of the home",
                ) from error
            found = [text_of(error)]
        if found != ["ok"]:
            raise DamagedDatabase(
                f"the database {self.path} is damaged: {found[0]}",
                tracker_hint(
                    "restore the last backup (the damaged file is kept)", "restore", "FILE"
                ),
            )

    def entries(self, group: GroupId, after: int, head: int, rows: int) -> list[StoredEntry]:
        """Return the log's entries after ``after`` and up to ``head``, at most ``rows``.

        Why in one row of text: for each row the driver lets other threads run, and a page of
        hundreds then takes four times the CPU while the event loop is busy.
        """
        where = {"group": group, "after": after, "head": head, "rows": rows}
        with translated("read the database"), self._engine.connect() as db:
            text = db.execute(_ENTRIES, where).scalar_one_or_none() or ""
        pairs = (pair.split(":") for pair in text.split())
        entries = [StoredEntry(int(seq), bytes.fromhex(body)) for seq, body in pairs]
        entries.sort()  # SQLite promises no order within such a text
        return entries

    def turn(self, position: int) -> SqliteTurn:
        """Return at once: no other tracker writes this file."""
        return SqliteTurn(self._engine)

    def news(self, position: int) -> Sequence[Commit]:
        """Return nothing."""
        return ()

    def happened(self, doubt: InDoubt) -> bool:
        """Raise: no commit is in doubt, since no connection can be lost."""
        raise AssertionError("a commit of SQLite is never in doubt")

    def put_parts(self, content: ContentId, body: bytes) -> None:
        """Do nothing: a turn that takes long holds up no other tracker."""

    def reach(self) -> None:
        """Do nothing: each commit tries."""

    def interrupt(self) -> None:
        """Do nothing: a disk that hangs cannot be interrupted."""


class SqliteTurn:
    """One transaction."""

    news: Sequence[Commit] = ()

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def commit(self, changes: Sequence[Change], nudged: Sequence[DeviceKey]) -> int:
        """Write all ``changes`` in one transaction, or none and raise `StorageError`."""
        with translated("write to the database"), self._engine.begin() as db:
            rows = Gathered(db)
            gather(changes, rows)
            rows.flush()
        return 0

    def release(self) -> None:
        """Do nothing: the transaction begins with the commit."""


def _set_up_connection(connection: sqlite3.Connection, _: object) -> None:
    # Turns off the driver's implicit transactions; `_begin` starts them.
    connection.isolation_level = None
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(db: Connection) -> None:
    db.exec_driver_sql("BEGIN")
