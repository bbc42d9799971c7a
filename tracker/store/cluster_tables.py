"""Tables that trackers on one PostgreSQL database share beside the durable state.

Owns: the statements about ``trackers`` and ``presence``, and the notifications that wake the
others. Not here: the tables' definition (see tracker.store.tables), the journal of commits (see
tracker.store.postgres_store), and when anything is written or read (see tracker.service.follower).

Neither table is durable state: a crash of the database may empty ``presence``, and a tracker that
ends deletes its rows. So the connection does not wait for the disk. Times are the database's.

Limits: notifications only save time. A reader asks anyway, since a notification may be lost with
its connection.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import psycopg
from psycopg import sql

from common.errors import StorageError
from common.ids import ContentId, DeviceKey, GroupId, UserId
from tracker.core.shared_presence import PresenceRow, SharedLease
from tracker.store.cluster_rows import ROWS_MAX, Beat, TrackerRow
from tracker.store.postgres_connections import connect, cut

CHANNEL = "mini_torrent"
TEXT_MAX = 7_999  # characters of a notification
APPLICATION = "mini-torrent-follower"
DEAD_MS = 10_000  # a tracker that is silent for longer serves no longer
ANSWER_MS = 5_000  # for any statement here: they take milliseconds

_NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_Leeching: TypeAlias = list[tuple[str, bytes, bool]]


class ClusterTables:
    """One connection to the shared tables.

    Thread safety: one thread, but for `wake` and `interrupt`. The others but `close` raise
    `StorageError`; the connection is of no use after that.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._db: psycopg.Connection[tuple[Any, ...]] | None = None
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)

    # -- connection -------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connect anew, and listen."""
        self.disconnect()
        with _translated():
            self._db = connect(self._url, application_name=APPLICATION)
            self._db.autocommit = True
            self._db.execute("SET synchronous_commit = off")
            self._db.execute(f"SET statement_timeout = {ANSWER_MS}")
            self._db.execute(sql.SQL("LISTEN {}").format(sql.Identifier(CHANNEL)))

    def disconnect(self) -> None:
        """Close the connection, if there is one."""
        if self._db is not None:
            with contextlib.suppress(psycopg.Error):
                self._db.close()
            self._db = None

    def close(self) -> None:
        """Close everything; `wake` must not be called any longer."""
        self.disconnect()
        for end in (self._woken, self._waker):
            os.close(end)

    def interrupt(self) -> None:
        """Make a call that waits for the database fail soon. Any thread."""
        if (db := self._db) is not None:
            cut(db)

    def wake(self) -> None:
        """Make `wait` return. Any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._waker, b"\0")

    def wait(self, timeout_s: float) -> list[str]:
        """Wait for notifications of other trackers, or for `wake`. Return their texts."""
        with _translated():
            db = self._connected()
            # Some came with the answers to statements, and the socket tells nothing of them.
            if texts := self._texts():
                return texts
            # Not `select`: a tracker has more descriptors than it takes.
            poller = select.poll()
            for descriptor in (db.fileno(), self._woken):
                poller.register(descriptor, select.POLLIN)
            poller.poll(max(0.0, timeout_s) * 1000)
            with contextlib.suppress(BlockingIOError):
                while os.read(self._woken, 1024):
                    pass
            return self._texts()

    def _texts(self) -> list[str]:
        # Twice: the driver returns either those that it has kept, or those that are at the socket.
        db = self._connected()
        notes = [*db.notifies(timeout=0), *db.notifies(timeout=0)]
        return [note.payload for note in notes if note.pid != db.info.backend_pid]

    def receives_notifications(self, timeout_s: float) -> bool:
        """Whether notifications arrive here at all: some poolers do not pass them on."""
        with _translated():
            db = self._connected()
            self.notify()
            return any(note.pid == db.info.backend_pid for note in db.notifies(timeout=timeout_s))

    def notify(self, text: str = "") -> None:
        """Wake all other trackers, and tell them ``text``, at most ``TEXT_MAX`` characters."""
        with _translated():
            self._connected().execute("SELECT pg_notify(%s, %s)", (CHANNEL, text))

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._db is None:
            raise StorageError("the database cannot be reached")
        return self._db

    # -- trackers -------------------------------------------------------------------------------

    def beat(self, own: TrackerRow) -> Beat:
        """Write the sign of life of this tracker."""
        values = (
            own.tracker,
            own.generation,
            own.endpoint,
            own.release,
            own.format,
            own.position,
            own.online,
            own.received,
            own.sent,
            own.keys,
        )
        with _translated():
            row = (
                self._connected()
                .execute(
                    f"""
                    INSERT INTO trackers
                      (tracker, started, endpoint, release, format, position, connections,
                       received, sent, keys, seen_ms)
                    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, {_NOW_MS})
                    ON CONFLICT (tracker) DO UPDATE SET
                      endpoint = excluded.endpoint, release = excluded.release,
                      format = excluded.format, position = excluded.position,
                      connections = excluded.connections, received = excluded.received,
                      sent = excluded.sent, keys = excluded.keys, seen_ms = excluded.seen_ms
                    RETURNING {_NOW_MS}, xmax = 0
                    """,
                    values,
                )
                .fetchone()
            )
        assert row is not None
        return Beat(row[0], row[1])

    def trackers(self) -> list[TrackerRow]:
        """Return all trackers, this one and silent ones included."""
        with _translated():
            rows = self._connected().execute(
                f"""
                SELECT tracker, started, endpoint, release, format, position, connections,
                       received, sent, keys, greatest(0, {_NOW_MS} - seen_ms)
                FROM trackers ORDER BY tracker
                """
            )
            return [TrackerRow(*row) for row in rows]

    def keys_of_serving(self) -> list[bytes]:
        """Return the ``keys`` of all trackers that serve now."""
        return [row.keys for row in self.trackers() if row.silent_ms < DEAD_MS]

    def size_bytes(self) -> int:
        """Return the size of the whole database."""
        with _translated():
            query = "SELECT pg_database_size(current_database())"
            row = self._connected().execute(query).fetchone()
        assert row is not None
        size: int = row[0]
        return size

    def forget(self, trackers: Sequence[bytes]) -> None:
        """Delete all rows of ``trackers``, which have ended."""
        with _translated(), self._connected().transaction():
            for table in ("presence", "trackers"):
                self._connected().execute(
                    f"DELETE FROM {table} WHERE tracker = ANY(%s)", (list(trackers),)
                )

    # -- presence -------------------------------------------------------------------------------

    def write(self, rows: Iterable[PresenceRow]) -> None:
        """Insert or replace ``rows``, all of one tracker, in one transaction."""
        with _translated():
            db = self._connected()
            with db.transaction(), db.cursor() as cursor:
                _upsert(cursor, rows)

    def replace(self, own: bytes, generation: bytes, rows: Iterable[PresenceRow]) -> None:
        """Replace all rows of the tracker ``own`` by those of a new generation."""
        with _translated():
            db = self._connected()
            with db.transaction(), db.cursor() as cursor:
                cursor.execute("DELETE FROM presence WHERE tracker = %s", (own,))
                _upsert(cursor, rows)
                cursor.execute(
                    "UPDATE trackers SET started = %s WHERE tracker = %s", (generation, own)
                )

    def rows_of(self, tracker: bytes, after: int) -> list[PresenceRow]:
        """Return the rows of ``tracker`` with a version after ``after``, at most ``ROWS_MAX``."""
        with _translated():
            rows = self._connected().execute(
                """
                SELECT tracker, device, version, since_ms, serial, user_id, endpoint, leeching, gone
                FROM presence WHERE tracker = %s AND version > %s ORDER BY version LIMIT %s
                """,
                (tracker, after, ROWS_MAX),
                binary=True,
            )
            return [_row(*row) for row in rows]

    def drop_tombstones(self, own: bytes, before: int) -> None:
        """Delete rows about devices that left, up to the version ``before``."""
        with _translated():
            self._connected().execute(
                "DELETE FROM presence WHERE tracker = %s AND gone AND version <= %s", (own, before)
            )


def _upsert(cursor: psycopg.Cursor[tuple[Any, ...]], rows: Iterable[PresenceRow]) -> None:
    cursor.executemany(
        """
        INSERT INTO presence
          (tracker, device, version, since_ms, serial, user_id, endpoint, leeching, gone)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
        ON CONFLICT (tracker, device) DO UPDATE SET
          version = excluded.version, since_ms = excluded.since_ms, serial = excluded.serial,
          user_id = excluded.user_id, endpoint = excluded.endpoint,
          leeching = excluded.leeching, gone = excluded.gone
        """,
        [_values(row) for row in rows],
    )


def _values(row: PresenceRow) -> tuple[Any, ...]:
    head = (row.tracker, row.device, row.version, row.since_ms, row.position)
    lease = row.lease
    if lease is None:
        return (*head, "", "", b"", True)
    return (
        *head,
        lease.user,
        lease.endpoint,
        _body.encode((lease.instance, lease.leeching)),
        False,
    )


_body = msgspec.msgpack.Encoder()
_read_body = msgspec.msgpack.Decoder(tuple[bytes, _Leeching])


def _row(
    tracker: bytes,
    device: bytes,
    version: int,
    since_ms: int,
    position: int,
    user: str,
    endpoint: str,
    body: bytes,
    gone: bool,
) -> PresenceRow:
    lease = None
    if not gone:
        try:
            instance, leeching = _read_body.decode(body)
        except msgspec.MsgspecError as error:
            raise StorageError(f"read the table of online devices: {error}") from error
        fetched = tuple(
            (GroupId(group), ContentId(content), held) for group, content, held in leeching
        )
        lease = SharedLease(UserId(user), endpoint, instance, fetched)
    return PresenceRow(tracker, DeviceKey(device), version, since_ms, position, lease)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        # The driver's whole text may have values of rows in it.
        words = error.diag.message_primary or str(error).partition("\n")[0]
        raise StorageError(f"the database cannot be reached: {words}") from error
    except OSError as error:
        raise StorageError(f"the database cannot be reached: {error.strerror}") from error
