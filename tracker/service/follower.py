"""Follower of the other trackers on one database, on a thread of its own.

Owns: the rhythm of signs of life and of reading, and the connection to the shared tables. Not here:
what follows from what is read (see tracker.service.cluster_member), and the tables (see
tracker.store.cluster_tables).

Theory of operation. The thread sleeps until a notification, until there is something to write or
to tell, or at most ``POLL_S``. Then it writes what is to be written, and notifies the others. After
a notification, or when the time is over, it reads presence first and commits after it: so the
commits that a row of presence refers to are always read with it. Why a poll: notifications are lost
with their connection, and some poolers pass none on.

A connection that fails is made anew, after a pause with jitter. Earlier rows of presence may be
lost then, so all of them are written again.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from common.errors import StorageError
from common.host.clock import monotonic
from tracker.core.shared_presence import PresenceRow
from tracker.store.cluster_rows import ROWS_MAX, Beat, TrackerRow
from tracker.store.turns import Commit, FellBehind

log = logging.getLogger(__name__)

POLL_S = 0.5
POLL_DEAF_S = 0.1  # where no notifications arrive
BEAT_S = 2.0
SIZE_S = 10.0  # between two measurements of the size of the database: each touches all of its files
NOTIFY_S = 0.005  # at most one notification in that time: all of them wake all trackers
DEAD_S = 10.0  # a tracker that is silent for longer serves no longer, …
FORGOTTEN_S = 25.0  # … and after that time its devices are gone, unless they came elsewhere
TOMBSTONE_S = 60.0  # life of a row about a device that left
RETRY_MIN_S = 0.1
RETRY_MAX_S = 2.0
DEAF_MAX = 3  # polls in a row that found commits of which no notification told
TEXTS_MAX = 1_000  # that wait to be told
RECEIVED_AFTER_S = 1.0  # by then a notification to oneself must have arrived


@dataclass(frozen=True, slots=True)
class PresenceOut:
    """Rows to write. ``generation``: they replace all rows of this tracker; empty for changes."""

    rows: Sequence[PresenceRow]
    generation: bytes = b""


@dataclass(frozen=True, slots=True)
class PresenceIn:
    """Rows of another tracker. ``whole``: these are all of it, as with a new ``generation``."""

    tracker: bytes
    generation: bytes
    rows: Sequence[PresenceRow]
    whole: bool = False


@dataclass(slots=True)
class Report:
    """Findings of one look at the database.

    ``now_ms``: its time, read between the monotonic times ``asked_at`` and ``read_at``; 0 if it was
    not read. ``trackers``: all others; None if they were not read. ``told``: texts of others.
    ``stale``: why the mirror has to be loaded anew. ``database_bytes``: None if it was not read.
    """

    presence: list[PresenceIn] = field(default_factory=list)
    commits: Sequence[Commit] = ()
    trackers: list[TrackerRow] | None = None
    told: list[str] = field(default_factory=list)
    now_ms: int = 0
    asked_at: float = 0.0
    read_at: float = 0.0
    stale: FellBehind | None = None
    database_bytes: int | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was found."""
        found = self.presence or self.commits or self.now_ms or self.told or self.stale
        return not found and self.trackers is None


class Tables(Protocol):
    """Part of `ClusterTables` that the follower uses; all methods may raise `StorageError`."""

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def close(self) -> None: ...
    def wake(self) -> None: ...
    def interrupt(self) -> None: ...
    def wait(self, timeout_s: float) -> list[str]: ...
    def receives_notifications(self, timeout_s: float) -> bool: ...
    def notify(self, text: str = "") -> None: ...
    def beat(self, own: TrackerRow) -> Beat: ...
    def trackers(self) -> list[TrackerRow]: ...
    def size_bytes(self) -> int: ...
    def forget(self, trackers: Sequence[bytes]) -> None: ...
    def write(self, rows: Sequence[PresenceRow]) -> None: ...
    def replace(self, own: bytes, generation: bytes, rows: Sequence[PresenceRow]) -> None: ...
    def rows_of(self, tracker: bytes, after: int) -> list[PresenceRow]: ...
    def drop_tombstones(self, own: bytes, before: int) -> None: ...


class Owner(Protocol):
    """Owner of the follower. Both methods are called on the follower's thread."""

    def own_row(self) -> TrackerRow:
        """Return the row of this tracker, with the position of its mirror."""

    def connected(self) -> None:
        """Handle a new connection: all rows of presence are to be written."""

    def report(self, report: Report) -> None:
        """Take what was read."""


class Follower:
    """Thread that follows the other trackers until `stop`.

    ``news``: commits after a position, as `Store.news`. Thread safety: `write`, `broadcast`,
    `committed`, `interrupt` and `stop` are for the event loop's thread.
    """

    def __init__(
        self, tables: Tables, news: Callable[[int], Sequence[Commit]], owner: Owner
    ) -> None:
        self._tables = tables
        self._news = news
        self._owner = owner
        self._rng = random.Random()
        self._out: deque[PresenceOut] = deque()
        self._texts: deque[str] = deque(maxlen=TEXTS_MAX)
        self._stopping = threading.Event()
        self._seen: dict[bytes, tuple[bytes, int]] = {}  # tracker -> generation, version
        self._others: list[TrackerRow] = []
        self._position = 0  # the last commit that was reported
        self._committed = False  # by this tracker, and the others are to be notified
        self._tombstones: deque[tuple[float, int]] = deque()
        self._poll_s = POLL_S
        self._size_at = 0.0  # when the size is read again
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)

    # -- for the event loop -----------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def write(self, out: PresenceOut) -> None:
        """Write rows soon."""
        self._out.append(out)
        self._tables.wake()

    def broadcast(self, text: str) -> None:
        """Send ``text`` to all trackers soon. It is lost for those without a connection."""
        self._texts.append(text)
        self._tables.wake()

    def committed(self) -> None:
        """Notify the others soon: this tracker has committed."""
        self._committed = True
        self._tables.wake()

    def interrupt(self) -> None:
        """Reconnect soon: the database has not answered for long."""
        self._tables.interrupt()

    def stop(self, timeout_s: float) -> None:
        """Delete all rows of this tracker, and end. Blocks."""
        self._stopping.set()
        self._tables.wake()
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self._tables.close()

    # -- thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        pause_s, told = RETRY_MIN_S, ""
        while not self._stopping.is_set():
            try:
                self._tables.connect()
                self._begin()
                pause_s, told = RETRY_MIN_S, ""
                self._follow()
            except StorageError as error:
                level = logging.DEBUG if error.message == told else logging.WARNING
                log.log(level, "other trackers are not heard of: %s", error.message)
                told = error.message
            except Exception:
                log.exception("the follower failed")
            if not self._stopping.is_set():
                self._stopping.wait(self._rng.uniform(0.5, 1.0) * pause_s)
                pause_s = min(2 * pause_s, RETRY_MAX_S)
        self._tables.disconnect()

    def _begin(self) -> None:
        """Announce this tracker on a new connection, and read all of presence again."""
        self._out.clear()
        self._seen.clear()
        self._tombstones.clear()
        self._tables.beat(self._owner.own_row())
        self._poll_s = POLL_S
        if not self._tables.receives_notifications(RECEIVED_AFTER_S):
            log.warning("the database passes no notifications on: it is asked every 0.1 s")
            self._poll_s = POLL_DEAF_S
        self._owner.connected()

    def _follow(self) -> None:
        beat_at = review_at = monotonic()
        notified_at, deaf = 0.0, 0
        woken: list[str] = []
        while not self._stopping.is_set():
            report, now = Report(told=[text for text in woken if text]), monotonic()
            if now >= beat_at:
                beat_at = now + BEAT_S
                self._beat(report)
            wrote = self._write_out()
            # Also under steady notifications: a tracker that ended is noticed by a look around.
            if reviews := now >= review_at:
                review_at = now + self._poll_s
                self._review_trackers(report)
            if woken or reviews:
                self._read(report)
                deaf = deaf + 1 if report.commits and not woken else 0
            if not report.is_empty:
                self._owner.report(report)
            while self._texts:
                self._tables.notify(self._texts.popleft())
            if wrote or self._committed:
                self._stopping.wait(max(0.0, notified_at + NOTIFY_S - monotonic()))
                self._committed, notified_at = False, monotonic()
                self._tables.notify()
            if deaf >= DEAF_MAX and self._poll_s == POLL_S:
                raise StorageError("no notification came, and there were commits")
            woken = self._tables.wait(min(review_at, beat_at) - monotonic())
        self._tables.forget([self._owner.own_row().tracker])
        self._tables.notify()

    def _beat(self, report: Report) -> None:
        report.asked_at = monotonic()
        beat = self._tables.beat(self._owner.own_row())
        report.now_ms, report.read_at = beat.now_ms, monotonic()
        if beat.is_new:
            # Others took this tracker for dead, and have dropped its devices.
            self._owner.connected()
        own = self._owner.own_row().tracker
        while self._tombstones and monotonic() - self._tombstones[0][0] > TOMBSTONE_S:
            _, version = self._tombstones.popleft()
            self._tables.drop_tombstones(own, version)
        if monotonic() >= self._size_at:
            report.database_bytes = self._tables.size_bytes()
            self._size_at = monotonic() + SIZE_S

    def _review_trackers(self, report: Report) -> None:
        own = self._owner.own_row().tracker
        every = [row for row in self._tables.trackers() if row.tracker != own]
        gone = [row.tracker for row in every if row.silent_ms > FORGOTTEN_S * 1000]
        if gone:
            self._tables.forget(gone)
        self._others = [row for row in every if row.tracker not in gone]
        present = {row.tracker for row in self._others}
        self._seen = {name: seen for name, seen in self._seen.items() if name in present}
        report.trackers = self._others

    def _write_out(self) -> bool:
        wrote = False
        while self._out:
            out = self._out[0]
            if out.generation:
                self._tables.replace(self._owner.own_row().tracker, out.generation, out.rows)
            else:
                self._tables.write(out.rows)
            if any(row.lease is None for row in out.rows):
                self._tombstones.append((monotonic(), out.rows[-1].version))
            self._out.popleft()
            wrote = True
        return wrote

    def _read(self, report: Report) -> None:
        for other in self._others:
            generation, seen = self._seen.get(other.tracker, (b"", 0))
            if generation != other.generation:
                seen = 0
            rows = self._rows_of(other.tracker, seen)
            if not rows and generation == other.generation:
                continue
            self._seen[other.tracker] = (other.generation, rows[-1].version if rows else seen)
            # After a loss of the connection: rows about devices that left may be deleted by now.
            report.presence.append(PresenceIn(other.tracker, other.generation, rows, seen == 0))
        self._position = max(self._position, self._owner.own_row().position)
        try:
            report.commits = self._news(self._position)
        except FellBehind as error:
            report.stale = error
            return
        if report.commits:
            self._position = report.commits[-1].position

    def _rows_of(self, tracker: bytes, after: int) -> list[PresenceRow]:
        rows = self._tables.rows_of(tracker, after)
        while len(rows) and len(rows) % ROWS_MAX == 0:
            more = self._tables.rows_of(tracker, rows[-1].version)
            if not more:
                break
            rows += more
        return rows
