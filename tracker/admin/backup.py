"""Backups: a whole tracker in one file, copied while it runs.

A backup is a copy of the database with a table of key files and the last address. It brings back
the same tracker under the same link, also on another machine. It holds all secrets: the file is
0600 and must be kept safe.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy as sa

from common.errors import ConfigError, StorageError
from common.hints import tracker_hint
from common.host.atomic_files import atomic_write, sync_directory
from common.host.clock import wall_ms
from common.host.home import HomeBusy
from tracker.admin import staged_restore
from tracker.admin.database_choice import (
    chosen,
    digest_of,
    open_shared,
    other_database,
    remember,
)
from tracker.admin.home import KEPT_FILES, LAST_BACKUP, Home
from tracker.admin.staged_restore import DATABASE
from tracker.store import postgres_connections as pg
from tracker.store.leap import leap
from tracker.store.sqlite_store import SqliteStore

_KEYS_TABLE = "backup_keys"


def back_up(
    home: Path, target: Path, database_url: str | None = None, *, replace: bool = False
) -> int:
    """Copy the database and the keys of ``home`` to ``target``. Return its size in bytes.

    ``database_url``: of PostgreSQL, or None for what the home uses.

    The tracker may be running. Raise `StorageError` if ``target`` exists and must not be replaced,
    or cannot be written.
    """
    database = home / DATABASE
    _finish_restore(home)
    url = chosen(home, database_url)
    if url is None and not database.exists():
        raise ConfigError(f"there is no tracker in {home}", "choose its --home")
    if target.exists() and not replace:
        advice = tracker_hint("replace it", "backup", str(target), options=["--replace"])
        raise StorageError(f"{target} already exists", advice)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    with _translated(f"make the backup {target}"):
        try:
            _private_file(temporary)
            if url is not None:
                _copy_from(url, temporary)
            with _opened(temporary) as copy:
                if url is None:
                    with _opened(database) as source:
                        # One snapshot: otherwise each write would restart the copy.
                        source.execute("BEGIN")
                        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
                        source.backup(copy, pages=4096)
                        source.rollback()
                copy.execute("PRAGMA journal_mode=DELETE")
                _put_keys(copy, home)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
            sync_directory(target.parent)
            (home / LAST_BACKUP).touch(0o600)
        finally:
            temporary.unlink(missing_ok=True)
        return target.stat().st_size


def _copy_from(url: str, target: Path) -> None:
    """Copy a PostgreSQL database into the SQLite file ``target``."""
    from tracker.admin.table_copy import copy_all

    source, copy = open_shared(url), SqliteStore(target)
    try:
        with pg.translated(f"copy {pg.shown(url)}"):
            copy_all(source._engine, copy._engine)
    finally:
        source.close()
        copy.close()


def _copy_to(url: str, source: Path, digest: bytes) -> None:
    """Copy the SQLite file ``source`` into an empty PostgreSQL database."""
    from tracker.admin.table_copy import copy_all

    restored, target = SqliteStore(source), open_shared(url)
    try:
        with pg.translated(f"copy to {pg.shown(url)}"):
            copy_all(restored._engine, target._engine)
        target.claim(digest)
    finally:
        restored.close()
        target.close()


def _finish_restore(home: Path) -> None:
    if not staged_restore.pending(home):
        return
    try:
        Home(home).release()
    except HomeBusy:
        # The process that opened it has finished the restore.
        if staged_restore.pending(home):
            raise


def _put_keys(copy: sqlite3.Connection, home: Path) -> None:
    copy.execute(f"CREATE TABLE {_KEYS_TABLE} (name TEXT PRIMARY KEY, content BLOB NOT NULL)")
    for name in KEPT_FILES:
        path = home / name
        if path.exists():
            row = (name, path.read_bytes())
            copy.execute(f"INSERT INTO {_KEYS_TABLE} VALUES (?, ?)", row)
    copy.commit()


def restore(home: Home, source: Path, database_url: str | None = None) -> Path | None:
    """Replace the database of ``home``, which must be locked, with the backup ``source``.

    If it is PostgreSQL's at ``database_url``, or the one that the home uses, it must be empty.

    Existing keys and the link stay. If this is interrupted, the database is unchanged, or the next
    opening of the home finishes the restore. Return the path of the former database, if any. Raise
    `ConfigError` for a file that is not an intact backup.
    """
    url = chosen(home.path, database_url)
    if url is not None and home.database.exists():
        raise other_database(home.path)
    with _translated(f"restore {source}"):
        if not source.is_file():
            raise ConfigError(f"there is no backup {source}")
        part = staged_restore.prepare(home.path)
        try:
            _private_file(part)
            with _opened(source) as backup, _opened(part) as copy:
                _check_backup(backup, source)
                backup.backup(copy)
                stored = copy.execute(f"SELECT name, content FROM {_KEYS_TABLE}").fetchall()
                copy.execute(f"DROP TABLE {_KEYS_TABLE}")
                # Keys that several trackers share are those of the database, not of the backup.
                copy.execute("DELETE FROM facts WHERE name = 'keys'")
                copy.commit()
                _leap(copy, wall_ms())
            # Keys first: with the database alone, the next start would be that of another tracker.
            for name, content in stored:
                if name in KEPT_FILES and not (home.path / name).exists():
                    atomic_write(home.path / name, content)
            if url is not None:
                _copy_to(url, part, digest_of(home.secrets()))
                remember(home.path, url)
                return None
            staged_restore.stage(home.path)
        finally:
            staged_restore.abandon(home.path)
        return staged_restore.swap_in(home.path)


def _leap(copy: sqlite3.Connection, now_ms: int) -> None:
    engine = sa.create_engine("sqlite://", creator=lambda: copy, poolclass=sa.StaticPool)
    with engine.begin() as db:
        leap(db, now_ms)


def _check_backup(backup: sqlite3.Connection, source: Path) -> None:
    try:
        intact = backup.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        names = {row[0] for row in backup.execute("SELECT name FROM sqlite_master")}
    except sqlite3.DatabaseError:
        intact, names = False, set()
    if not intact or not {"alembic_version", "accounts", _KEYS_TABLE} <= names:
        raise ConfigError(
            f"{source} is not an intact backup of a tracker", "try an earlier one; it is unchanged"
        )


def _private_file(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    uri = f"{path.absolute().as_uri()}?mode=rw"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=10.0)) as connection:
        yield connection


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"cannot {what}: {error}") from error
    except OSError as error:
        raise StorageError(f"cannot {what}: {error.strerror}") from error
