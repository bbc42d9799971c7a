"""PostgreSQL database of one tracker or several: turns, the journal, and commits in doubt.

Owns: the order of commits. Not here: connections and their settings (see
tracker.store.postgres_connections), what of a journal's row others apply (see
tracker.store.journal), when they read it (see tracker.service.follower).

Theory of operation.

A commit is one transaction: the rows of its changes, and one row of the table ``changes``. The
number of that row, ``serial``, is the last one plus one, and the primary key: a number is never
given twice, none is left out, and row n + 1 is never visible before row n. Correctness hangs on
that key. The advisory lock that the transaction takes first is the queue in front of it.

Invariant: the lock is a statement of its own, and what is read after it has a later snapshot. One
statement that locks and reads would read as of before the wait.

Why two round trips: other trackers wait for each. The first one begins the transaction, takes the
lock and reads; the second one writes the gathered rows and the journal's, and commits. The
connection is in autocommit mode, since the driver would begin a transaction in a third one.

A turn that freezes would stop all trackers: PostgreSQL ends a session that is idle in its turn for
``IDLE_S``. This holds within the turn only; a load of a large database is idle for longer. No
statement of a turn has a time limit, since it would reach the commit: one that is cancelled while
it waits for a standby reports success. The command loop interrupts a turn that takes too long.

A commit is in doubt unless the server answered it, or refused a statement before it. `happened`
takes the lock first, which the server holds until that transaction has ended in either way, and
then looks for the row.

A standby that took over may lack commits that were acknowledged, unless replication is synchronous.
Each turn reads the journal's row at the mirror's position as well. If it is not there, or another
one, the mirror is loaded anew, and all groups leap to unused numbers, as after `restore`.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from common.errors import StorageError
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, TrackerId
from common.names import printable
from tracker.core.changes.base import Change
from tracker.core.state import State
from tracker.store import journal, leap
from tracker.store import postgres_connections as pg
from tracker.store import tables as t
from tracker.store.failures import text_of
from tracker.store.gathered_postgres import PostgresGathered
from tracker.store.loader import Loader
from tracker.store.migrate import upgrade
from tracker.store.statements.shares import parts_of
from tracker.store.statements.writing import gather
from tracker.store.table_store import TableStore, fact
from tracker.store.turns import Commit, FellBehind, InDoubt, OldReader

log = logging.getLogger(__name__)

TURN_LOCK = 0x4D54_7475  # advisory locks are per database
SCHEMA_LOCK = 0x4D54_7363
IDLE_S = 5
ROWS_AT_ONCE = 5_000  # of a load
PARTS_AT_ONCE = 32  # of a manifest, in a transaction: 4 MiB
KEPT_MS = 15 * 60 * 1000  # of the journal; a tracker that was away for longer loads anew
PRUNED_AT_ONCE = 1_000
PRUNE_S = 30.0
ORPHANS_S = 600.0  # between two sweeps of parts without a manifest
_NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_READ = """
SELECT serial, tracker, batch, at_ms, format, CASE WHEN serial > {at} THEN body END
  FROM changes WHERE serial >= {at} ORDER BY serial
"""
_TURN = f"""
BEGIN;
SET LOCAL idle_in_transaction_session_timeout = '{{idle}}s';
SET LOCAL statement_timeout = 0;
SELECT pg_advisory_xact_lock({TURN_LOCK});
{_READ}
"""
_JOURNAL = (
    "INSERT INTO changes (serial, tracker, batch, at_ms, format, body)"
    f" VALUES (%b, %b, %b, {_NOW_MS}, %b, %b)"
)
_PRUNE = sa.text(
    f"""
    DELETE FROM changes WHERE serial IN (
      SELECT serial FROM changes
      WHERE at_ms < {_NOW_MS} - :kept
        AND serial < (SELECT max(serial) FROM changes)
        AND serial <= coalesce(
          (SELECT min(position) FROM trackers WHERE seen_ms > {_NOW_MS} - 10000), :all)
      ORDER BY serial LIMIT :rows)
    """
)
_OLD_READER = sa.text(
    f"""
    SELECT endpoint, release FROM trackers
    WHERE format < :format AND seen_ms > {_NOW_MS} - 10000 ORDER BY format LIMIT 1
    """
)


class PostgresStore(TableStore):
    """Database at ``url``; ``own`` names this tracker in the journal. Raises `StorageError`."""

    shared = True

    def __init__(self, url: str, own: bytes | None = None) -> None:
        super().__init__(pg.make_engine(url))
        self.url = url
        self.own = own or os.urandom(16)
        self._writer: sa.Connection | None = None
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()  # connections of the driver
        self._making = threading.Lock()
        sa.event.listen(self._engine, "connect", self._connection_made)
        self._known: tuple[int, bytes] = (0, b"")  # position and batch of the last commit known
        self._lost = False  # the database lacks a commit that it acknowledged
        self._pruned_at = self._swept_at = monotonic()
        self._orphans: set[bytes] = set()
        try:
            pg.check_server(self._engine)
            with pg.translated("bring the database up to date"), self._engine.begin() as guard:
                guard.execute(sa.select(sa.func.pg_advisory_xact_lock(SCHEMA_LOCK)))
                upgrade(self._engine)
        except BaseException:
            self._engine.dispose()
            raise

    def close(self) -> None:
        """Close all connections."""
        self._drop_writer()
        super().close()

    # -- reading --------------------------------------------------------------------------------

    def load(self) -> State:
        """Return a mirror and its position, of one snapshot."""
        if self._lost:
            self._leap()
        with pg.translated("read the database"), self._engine.connect() as db:
            db.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            db.execute(sa.text("SET LOCAL statement_timeout = 0"))
            last = sa.select(t.changes.c.serial, t.changes.c.batch)
            row = db.execute(last.order_by(t.changes.c.serial.desc()).limit(1)).first()
            db.execution_options(yield_per=ROWS_AT_ONCE)
            state = Loader(db).state
        self._known = (0, b"") if row is None else (row.serial, row.batch)
        state.position = self._known[0]
        return state

    def news(self, position: int) -> Sequence[Commit]:
        """Return the commits after ``position`` without waiting for a turn."""
        with pg.translated("read the journal"), self._engine.connect() as db:
            # Without a transaction, which would take two round trips.
            db.execution_options(isolation_level="AUTOCOMMIT")
            rows = db.execute(sa.text(_READ.format(at=int(position)))).all()
        return self._commits(position, rows)

    def tracker_id(self, fresh: bytes) -> TrackerId:
        """Return the id of the cluster; at the first start of its first tracker it is ``fresh``."""
        return TrackerId(self._fact("tracker_id", fresh))

    def claim(self, keys: bytes) -> bool:
        """Whether this database is of the cluster whose keys have the digest ``keys``.

        The first tracker makes it so.
        """
        return self._fact("keys", keys) == keys

    def _fact(self, name: str, value: bytes) -> bytes:
        with pg.translated("write to the database"), self._engine.begin() as db:
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(TURN_LOCK)))
            return fact(db, name, value)

    # -- turns ----------------------------------------------------------------------------------

    def turn(self, position: int) -> PostgresTurn:
        """Wait for the turn, and read what others committed after ``position``."""
        try:
            with pg.translated("write to the database"):
                return self._take_turn(position)
        except BaseException:
            self._drop_writer()
            raise

    def _take_turn(self, position: int) -> PostgresTurn:
        db = self._connected()
        transaction = db.begin()
        driver: Any = db.connection.driver_connection
        # Without parameters: several statements in one round trip, each with its own snapshot.
        # Not as a pipeline: its last message disarms the timeout (PostgreSQL 18).
        found = driver.execute(_TURN.format(idle=IDLE_S, at=int(position)))
        while found.nextset():
            pass
        rows = found.fetchall()
        news = self._commits(position, rows)
        return PostgresTurn(self, db, transaction, news[-1].position if news else position, news)

    def _commits(self, position: int, rows: Sequence[Any]) -> list[Commit]:
        """Check the journal's rows from ``position`` on. Raise `FellBehind`."""
        known_at, known_batch = self._known
        if rows and rows[0][0] == position:
            if known_at == position and known_batch not in (b"", rows[0][2]):
                self._lost = True
                raise FellBehind("the database has lost a commit that it acknowledged")
            rows = rows[1:]
        elif position and not rows:
            self._lost = True
            raise FellBehind("the database has lost commits that it acknowledged")
        if rows and rows[0][0] != position + 1:
            raise FellBehind("the journal no longer has the commits of other trackers")
        try:
            return [
                Commit(serial, tracker, at_ms, *journal.decode(format_, body))
                for serial, tracker, _, at_ms, format_, body in rows
            ]
        except journal.UnreadableJournal as error:
            raise FellBehind(error.message, error.hint) from error

    def _connected(self) -> sa.Connection:
        if self._writer is None:
            options = {"isolation_level": "AUTOCOMMIT"}
            self._writer = self._engine.connect().execution_options(**options)
        return self._writer

    def _drop_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.invalidate()
                writer.close()
            except SQLAlchemyError:
                log.debug("a connection to the database could not be closed")

    def happened(self, doubt: InDoubt) -> bool:
        """Return whether a commit in doubt took place."""
        with pg.translated("ask for a commit"), self._engine.begin() as db:
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(TURN_LOCK)))
            query = sa.select(t.changes.c.batch).where(t.changes.c.serial == doubt.position)
            return bool(db.execute(query).scalar_one_or_none() == doubt.batch)

    def reach(self) -> None:
        """Raise `StorageError` unless the database can be written now."""
        try:
            with pg.translated("write to the database"), self._connected().begin():
                query = sa.text("SELECT pg_is_in_recovery() OR current_setting(:name)::boolean")
                values = {"name": "transaction_read_only"}
                if self._connected().execute(query, values).scalar_one():
                    raise StorageError("cannot write to the database: it can only be read")
        except BaseException:
            self._drop_writer()
            raise

    def interrupt(self) -> None:
        """Cut all connections: each is made anew for the next call."""
        with self._making:
            made = list(self._made)
        for driver in made:
            pg.cut(driver)

    def _connection_made(self, driver: Any, _: object) -> None:
        with self._making:
            self._made.add(driver)

    # -- manifests ----------------------------------------------------------------------------

    def put_parts(self, content: ContentId, body: bytes) -> None:
        """Write the parts of a manifest before its turn, which they would make long."""
        rows = parts_of(content, body)
        for start in range(0, len(rows), PARTS_AT_ONCE):
            with pg.translated("write to the database"), self._engine.begin() as db:
                statement = insert(t.manifest_parts).on_conflict_do_nothing()
                db.execute(statement, rows[start : start + PARTS_AT_ONCE])

    def _sweep_parts(self, db: sa.Connection) -> None:
        """Delete parts that had no manifest at the sweep before, and have none now."""
        parts, manifests = t.manifest_parts.c, t.manifests.c
        orphan = ~sa.exists().where(manifests.content == parts.content)
        found = {row[0] for row in db.execute(sa.select(parts.content).where(orphan).distinct())}
        for content in found & self._orphans:
            db.execute(sa.delete(t.manifest_parts).where(parts.content == content, orphan))
        self._orphans = found - self._orphans

    # -- the journal ------------------------------------------------------------------------------

    def tidy(self) -> None:
        """Prune the journal and sweep parts, if that is due. Failures are left to the next time."""
        now = monotonic()
        if now - self._pruned_at < PRUNE_S and now - self._swept_at < ORPHANS_S:
            return
        try:
            with self._connected().begin():
                if now - self._swept_at >= ORPHANS_S:
                    self._swept_at = now
                    self._sweep_parts(self._connected())
                pruned = self._prune(self._connected())
            if pruned < PRUNED_AT_ONCE:
                self._pruned_at = now
        except SQLAlchemyError as error:
            log.warning("the journal could not be pruned: %s", text_of(error))
            self._pruned_at = now
            self._drop_writer()

    def _prune(self, db: sa.Connection) -> int:
        # The last row stays: it tells the number of the next one.
        values = {"kept": KEPT_MS, "rows": PRUNED_AT_ONCE, "all": (1 << 63) - 1}
        return db.execute(_PRUNE, values).rowcount

    def _leap(self) -> None:
        """Move all groups to unused numbers, and let the other trackers load anew as well."""
        log.error("the database has lost commits that it acknowledged; all groups get new numbers")
        with pg.translated("write to the database"), self._engine.begin() as db:
            db.execute(sa.select(sa.func.pg_advisory_xact_lock(TURN_LOCK)))
            head = db.execute(sa.select(sa.func.max(t.changes.c.serial))).scalar_one() or 0
            now_ms: int = db.execute(sa.text(f"SELECT {_NOW_MS}")).scalar_one()
            leap.leap(db, now_ms)
            # A number left out: others find the next one missing.
            serial = max(head, self._known[0]) + 2
            driver: Any = db.connection.driver_connection
            values = (serial, self.own, os.urandom(16), 1, journal.encode((), ()))
            driver.execute(_JOURNAL, values)
        self._lost = False


class PostgresTurn:
    """A transaction that holds the lock. ``position``: the head of all commits."""

    def __init__(
        self,
        store: PostgresStore,
        db: sa.Connection,
        transaction: sa.RootTransaction,
        position: int,
        news: Sequence[Commit],
    ) -> None:
        self.news = news
        self._store = store
        self._db = db
        self._transaction = transaction
        self._position = position

    def commit(self, changes: Sequence[Change], nudged: Sequence[DeviceKey]) -> int:
        """Write ``changes`` and the journal's row."""
        position, batch = self._position + 1, os.urandom(16)
        format_ = journal.format_of(changes)
        driver: Any = self._db.connection.driver_connection
        try:
            with pg.translated("write to the database"):
                self._check_readers(format_)
                body = journal.encode(changes, nudged)
                rows = PostgresGathered(self._db)
                gather(changes, rows)
        except BaseException:
            self.release()
            raise
        warnings: list[str] = []
        handler = pg.into(warnings)
        driver.add_notice_handler(handler)
        try:
            with pg.translated("write to the database"):
                rows.commit(_JOURNAL, (position, self._store.own, batch, format_, body))
            self._transaction.commit()  # for SQLAlchemy: the driver has no transaction any longer
            driver.remove_notice_handler(handler)
        except BaseException as error:
            if pg.in_transaction(driver):
                driver.remove_notice_handler(handler)
                self.release()
                raise
            self._store._drop_writer()
            text = f"the connection ended during a commit: {text_of(error)}"
            raise InDoubt(text, position, batch) from error
        if warnings:
            raise InDoubt(f"a commit may not be on the standbys: {warnings[0]}", position, batch)
        self._store._known = (position, batch)
        self._store.tidy()
        return position

    def _check_readers(self, format_: int) -> None:
        """Raise `OldReader` if a tracker that serves does not read ``format_``."""
        if format_ > 1:
            row = self._db.execute(_OLD_READER, {"format": format_}).first()
            if row is not None:
                at, release = map(printable, row)
                raise OldReader(f"the tracker {at} of release {release} must be updated first")

    def release(self) -> None:
        """Roll back."""
        try:
            self._transaction.rollback()
        except SQLAlchemyError:
            self._store._drop_writer()
