"""Store of the tables, by statements that every database understands.

Owns: reading, and writing one batch within a transaction. Not here: connections, and the order of
commits (see tracker.store.sqlite_store and tracker.store.postgres_store), statements (see
tracker.store.statements). Readers get parts of manifests and entries of logs.

Thread safety: methods block and may be called from any thread; only one thread may write.
Invariant: all changes of a commit are durable when it returns, or none is. Exceptions of other
libraries leave as `StorageError`.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import select

from common import limits
from common.host.process import give_back_memory
from common.ids import ContentId, GroupId, TrackerId
from tracker.core.changes.base import Change
from tracker.core.state import State
from tracker.store import tables as t
from tracker.store.failures import translated
from tracker.store.loader import Loader
from tracker.store.turns import StoredEntry, Turn


class TableStore(ABC):
    """Base of the stores in a database that SQLAlchemy reaches by ``engine``."""

    shared = False

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    # -- writing --------------------------------------------------------------------------------

    @abstractmethod
    def turn(self, position: int) -> Turn:
        """Wait for the turn at writing."""

    def commit(self, changes: Sequence[Change]) -> None:
        """Write all ``changes`` without a mirror, at the head of all commits, or raise."""
        self.turn(0).commit(changes, ())

    def tracker_id(self, fresh: bytes) -> TrackerId:
        """Return the id of this installation; at the first start ``fresh`` becomes it."""
        with translated("write to the database"), self._engine.begin() as db:
            return TrackerId(fact(db, "tracker_id", fresh))

    # -- reading --------------------------------------------------------------------------------

    def load(self) -> State:
        """Return a mirror of the database."""
        with translated("read the database"), self._engine.connect() as db:
            gc.disable()  # rows make no unreachable cycles, and a search passes over all of them
            try:
                state = Loader(db).state
            finally:
                gc.enable()
        give_back_memory()  # tables that grew: a tenth of the mirror
        return state

    def manifest_part(self, content: ContentId, offset: int) -> bytes:
        """Return up to one part of a manifest from ``offset``; empty if it is deleted."""
        part, skip = divmod(offset, limits.MANIFEST_PART_BYTES)
        c = t.manifest_parts.c
        with translated("read the database"), self._engine.connect() as db:
            query = select(c.body).where(c.content == content, c.part == part)
            body: bytes = db.execute(query).scalar_one_or_none() or b""
        return body[skip:]

    def entries(self, group: GroupId, after: int, head: int, rows: int) -> list[StoredEntry]:
        """Return the log's entries after ``after`` and up to ``head``, at most ``rows``."""
        c = t.log.c
        with translated("read the database"), self._engine.connect() as db:
            query = (
                select(c.seq, c.entry)
                .where(c.group_id == group, c.seq > after, c.seq <= head)
                .order_by(c.seq)
                .limit(rows)
            )
            # All at once: row by row SQLAlchemy takes three times as long.
            return list(map(StoredEntry._make, db.execute(query).all()))


def fact(db: sa.Connection, name: str, value: bytes) -> bytes:
    """Return the fact ``name``; ``value`` becomes it if it is not known."""
    query = select(t.facts.c.value).where(t.facts.c.name == name)
    known: bytes | None = db.execute(query).scalar_one_or_none()
    if known is None:
        db.execute(sa.insert(t.facts).values(name=name, value=value))
        return value
    return known
