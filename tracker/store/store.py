"""Database of the tracker: opens it, migrates it, loads the mirror, commits changes.

Owns: connections and transactions. Not here: statements (see tracker.store.statements). Readers get
parts of manifests and entries of logs.

Thread safety: methods block and may be called from any thread; only one thread may commit.
Invariant: all changes of a commit are durable when it returns, or none is. Exceptions of other
libraries leave as `StorageError`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, select
from sqlalchemy.exc import SQLAlchemyError

from common import limits
from common.errors import StorageError
from common.hints import tracker_hint
from common.ids import ContentId, DeviceKey, GroupId, TrackerId, UserId
from common.messages.events import LogEntry
from common.messages.operator import Registration
from tracker.core.changes import Change, ManifestSummary, NameId, ShareId
from tracker.core.follow_changes import FollowRecord
from tracker.core.records import (
    Account,
    Binding,
    Group,
    GroupTombstone,
    Invitation,
    Member,
    Revocation,
    Share,
)
from tracker.core.share_names import Name, Version
from tracker.core.state import State
from tracker.store import tables as t
from tracker.store.accounts import REGISTRATION
from tracker.store.migrate import upgrade
from tracker.store.statements import write

_entry_decoder = msgspec.msgpack.Decoder(LogEntry)
_globs_decoder = msgspec.msgpack.Decoder(tuple[str, ...])


class DamagedDatabase(StorageError):
    """The database is damaged: SQLite's own check fails."""


class Store:
    """Durable state of a tracker in one SQLite file.

    ``synchronous=FULL`` and a write-ahead log: a commit is on the disk when it returns, and readers
    never wait for the writer.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with _translated(f"open the database {path}"):
            # SQLite gives its journal files the mode of the database.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            self._engine = sa.create_engine(
                f"sqlite:///{path}",
                connect_args={"check_same_thread": False, "timeout": 10.0},
                pool_size=4,
            )
            sa.event.listen(self._engine, "connect", _set_up_connection)
            sa.event.listen(self._engine, "begin", _begin)
        self._check()
        with _translated("bring the database up to date"):
            upgrade(self._engine)

    def _check(self) -> None:
        """Raise `DamagedDatabase` unless SQLite finds the file intact."""
        try:
            with self._engine.connect() as db:
                found = [row[0] for row in db.execute(sa.text("PRAGMA quick_check(5)"))]
        except SQLAlchemyError as error:
            if not _is_damage(error):
                raise StorageError(
                    f"cannot open the database {self.path}: {_text_of(error)}",
                    "check the disk and the permissions of the home",
                ) from error
            found = [_text_of(error)]
        if found != ["ok"]:
            raise DamagedDatabase(
                f"the database {self.path} is damaged: {found[0]}",
                tracker_hint(
                    "restore the last backup (the damaged file is kept)", "restore", "FILE"
                ),
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # -- writing --------------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> None:
        """Write all ``changes`` in one transaction, or none and raise `StorageError`."""
        with _translated("write to the database"), self._engine.begin() as db:
            write(db, changes)

    def tracker_id(self, fresh: bytes) -> TrackerId:
        """Return the id of this installation; at the first start ``fresh`` becomes it."""
        with _translated("write to the database"), self._engine.begin() as db:
            query = select(t.facts.c.value).where(t.facts.c.name == "tracker_id")
            known = db.execute(query).scalar_one_or_none()
            if known is None:
                db.execute(sa.insert(t.facts).values(name="tracker_id", value=fresh))
                known = fresh
            return TrackerId(known)

    # -- reading --------------------------------------------------------------------------------

    def load(self) -> State:
        """Return a mirror of the database."""
        with _translated("read the database"), self._engine.connect() as db:
            return _Loader(db).state

    def manifest_part(self, content: ContentId, offset: int) -> bytes:
        """Return up to one part of a manifest from ``offset``; empty if it is deleted."""
        part, skip = divmod(offset, limits.MANIFEST_PART_BYTES)
        c = t.manifest_parts.c
        with _translated("read the database"), self._engine.connect() as db:
            query = select(c.body).where(c.content == content, c.part == part)
            body: bytes = db.execute(query).scalar_one_or_none() or b""
        return body[skip:]

    def entries(self, group: GroupId, after: int, head: int, rows: int) -> list[LogEntry]:
        """Return the log's entries after ``after`` and up to ``head``, at most ``rows``."""
        c = t.log.c
        with _translated("read the database"), self._engine.connect() as db:
            query = (
                select(c.entry)
                .where(c.group_id == group, c.seq > after, c.seq <= head)
                .order_by(c.seq)
                .limit(rows)
            )
            return [_entry_decoder.decode(row.entry) for row in db.execute(query)]


class _Loader:
    """Builds a `State` from the tables, in order of time."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self.state = State()
        self._accounts()
        self._groups()
        self._manifests()
        self._shares()
        for row in self._rows(t.receipts, "at_ms"):
            key = (DeviceKey(row.device), row.request_id)
            self.state.receipts[key] = (row.fingerprint, row.at_ms)

    def _rows(self, table: sa.Table, *order: str) -> Iterator[Any]:
        # The primary key last: rows of one millisecond come in the same order at every start.
        columns = [table.c[name] for name in order]
        yield from self._db.execute(select(table).order_by(*columns, *table.primary_key))

    def _accounts(self) -> None:
        state = self.state
        for row in self._rows(t.accounts, "at_ms"):
            if not row.deleted:
                user = UserId(row.user_id)
                state.accounts[user] = Account(user, row.password_hash, row.at_ms, row.disabled)
        mode = select(t.facts.c.value).where(t.facts.c.name == REGISTRATION)
        if (value := self._db.execute(mode).scalar_one_or_none()) is not None:
            state.registration = Registration(value.decode())
        for row in self._rows(t.devices, "at_ms"):
            user, device = UserId(row.user_id), DeviceKey(row.device)
            state.devices[device] = user
            state.devices_of.setdefault(user, {})[device] = Binding(row.at_ms, row.seen_ms)

    def _groups(self) -> None:
        state = self.state
        c = t.log.c
        lengths = select(c.group_id, sa.func.count().label("entries")).group_by(c.group_id)
        entries = {row.group_id: row.entries for row in self._db.execute(lengths)}
        for row in self._rows(t.groups, "at_ms"):
            group_id = GroupId(row.group_id)
            if row.dissolved_ms is not None:
                state.tombstones[group_id] = GroupTombstone(
                    row.seq, row.epoch, {}, row.dissolved_ms
                )
                continue
            state.add_group(
                Group(
                    group_id,
                    UserId(row.owner),
                    row.topic,
                    row.event_key,
                    row.seq,
                    row.epoch,
                    row.at_ms,
                    rekey_pending=row.stale,
                    entries=entries.get(group_id, 0),
                )
            )
        for row in self._rows(t.members, "at_ms", "seq"):
            group_id, user = GroupId(row.group_id), UserId(row.user_id)
            state.groups[group_id].members[user] = Member(row.at_ms, row.seq)
            state.groups_of.setdefault(user, {})[group_id] = None
        for row in self._rows(t.requests, "at_ms"):
            group_id, user = GroupId(row.group_id), UserId(row.user_id)
            state.groups[group_id].requests[user] = row.at_ms
            state.requests_of.setdefault(user, {})[group_id] = None
        for row in self._rows(t.invitations, "at_ms"):
            known = Invitation(UserId(row.user_id), row.at_ms, row.expires_ms, row.uses, row.used)
            state.add_invitation(GroupId(row.group_id), row.key, known)
        for row in self._rows(t.revocations, "at_ms"):
            group_id = GroupId(row.group_id)
            holder = state.groups.get(group_id) or state.tombstones[group_id]
            holder.revoked[UserId(row.user_id)] = Revocation(row.epoch, row.at_ms)

        for row in self._rows(t.follows, "at_ms"):
            followed = self.state.groups[GroupId(row.group_id)]
            followed.follows[DeviceKey(row.device)] = FollowRecord(
                UserId(row.user_id), _globs_decoder.decode(row.globs), row.at_ms
            )

    def _manifests(self) -> None:
        for row in self._rows(t.manifests, "stored_ms"):
            self.state.add_manifest(ManifestSummary(**row._mapping))

    def _shares(self) -> None:
        state = self.state
        for row in self._rows(t.names, "ended_ms"):
            name = Name(row.name, row.current, row.floor, ended_ms=row.ended_ms)
            state.groups[GroupId(row.group_id)].names.add(NameId(row.share_id), name)
        for row in self._rows(t.versions, "at_ms"):
            names = state.groups[GroupId(row.group_id)].names
            names.by_id[NameId(row.share_id)].versions[row.version] = Version(
                ContentId(row.content), UserId(row.user_id), row.at_ms, row.withdrawn
            )
        for row in self._rows(t.shares, "at_ms"):
            group_id, share_id = _share_of(row)
            text = state.groups[group_id].names.by_id[share_id.name].text
            state.add_share(group_id, share_id, Share(text, ContentId(row.content), row.at_ms))
        for row in self._rows(t.offers, "at_ms"):
            ref = _share_of(row)
            offer = (UserId(row.user_id), DeviceKey(row.device))
            state.add_offer(ref, offer, row.at_ms)


def _share_of(row: Any) -> tuple[GroupId, ShareId]:
    return GroupId(row.group_id), ShareId(NameId(row.share_id), row.version)


# -- SQLite -------------------------------------------------------------------------------------


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


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        if _is_damage(error):
            raise DamagedDatabase(f"cannot {what}: {_text_of(error)}") from error
        raise StorageError(f"cannot {what}: {_text_of(error)}") from error
    except OSError as error:
        raise StorageError(f"cannot {what}: {error.strerror}") from error


def _is_damage(error: SQLAlchemyError) -> bool:
    code = getattr(getattr(error, "orig", None), "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _text_of(error: SQLAlchemyError) -> str:
    # The driver's text: SQLAlchemy's would put the statement and its values into logs.
    return str(getattr(error, "orig", None) or type(error).__name__)
