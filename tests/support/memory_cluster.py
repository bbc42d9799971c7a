"""Tables of a cluster in memory, which can fail, lose notifications, and lose their rows."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from common.errors import StorageError
from common.host.clock import monotonic
from common.ids import DeviceKey
from tracker.core.shared_presence import PresenceRow
from tracker.store.cluster_rows import Beat, TrackerRow
from tracker.store.turns import Commit

EPOCH_MS = 1_900_000_000_000


class MemoryDatabase:
    """The shared part: tables and who listens."""

    def __init__(self) -> None:
        self.lock = threading.Condition()
        self.trackers: dict[bytes, TrackerRow] = {}
        self.seen_at: dict[bytes, float] = {}
        self.presence: dict[tuple[bytes, DeviceKey], PresenceRow] = {}
        self.commits: list[Commit] = []
        self.listeners: set[MemoryTables] = set()
        self.up = True
        self.notifies = True
        self.notified = 0
        self.connections = 0

    def commit(self) -> None:
        """Add a commit of a tracker that is not followed."""
        with self.lock:
            self.commits.append(Commit(len(self.commits) + 1, b"z" * 16, EPOCH_MS, (), ()))

    def news(self, position: int) -> Sequence[Commit]:
        self.check()
        return self.commits[position:]

    def check(self) -> None:
        if not self.up:
            raise StorageError("the database cannot be reached")

    def crash(self) -> None:
        """End all connections, and empty the unlogged table."""
        with self.lock:
            self.up = False
            self.presence.clear()
            for each in self.listeners:
                each._connected = False
            self.lock.notify_all()

    def start(self) -> None:
        self.up = True


class MemoryTables:
    """The connection of one tracker."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._connected = False
        self._woken = False
        self._texts: list[str] = []
        self.writes = 0
        self.sized = 0

    def _check(self) -> None:
        self._database.check()
        if not self._connected:
            raise StorageError("the connection is lost")

    def connect(self) -> None:
        self._database.check()
        with self._database.lock:
            self._connected = True
            self._database.connections += 1
            self._database.listeners.add(self)

    def disconnect(self) -> None:
        with self._database.lock:
            self._connected = False
            self._database.listeners.discard(self)

    def close(self) -> None:
        self.disconnect()

    def interrupt(self) -> None:
        pass

    def wake(self) -> None:
        with self._database.lock:
            self._woken = True
            self._database.lock.notify_all()

    def wait(self, timeout_s: float) -> list[str]:
        with self._database.lock:
            self._database.lock.wait_for(
                lambda: self._woken or self._texts or not self._database.up,
                max(0.0, timeout_s),
            )
            texts, self._woken, self._texts = self._texts, False, []
        if not self._database.up:
            self._connected = False
        self._check()
        return texts

    def receives_notifications(self, timeout_s: float) -> bool:
        self._check()
        return self._database.notifies

    def notify(self, text: str = "") -> None:
        self._check()
        with self._database.lock:
            self._database.notified += 1
            if self._database.notifies:
                for each in self._database.listeners - {self}:
                    each._texts.append(text)
                self._database.lock.notify_all()

    def beat(self, own: TrackerRow) -> Beat:
        self._check()
        known = self._database.trackers.get(own.tracker)
        generation = known.generation if known else own.generation
        self._database.trackers[own.tracker] = replace(own, generation=generation)
        self._database.seen_at[own.tracker] = monotonic()
        return Beat(EPOCH_MS + round(monotonic() * 1000), known is None)

    def trackers(self) -> list[TrackerRow]:
        self._check()
        now = monotonic()
        return [
            replace(row, silent_ms=round((now - self._database.seen_at[name]) * 1000))
            for name, row in list(self._database.trackers.items())
        ]

    def size_bytes(self) -> int:
        self._check()
        self.sized += 1
        return 4096

    def forget(self, trackers: Sequence[bytes]) -> None:
        self._check()
        with self._database.lock:
            for name in trackers:
                self._database.trackers.pop(name, None)
                for key in [key for key in self._database.presence if key[0] == name]:
                    del self._database.presence[key]

    def write(self, rows: Sequence[PresenceRow]) -> None:
        self._check()
        with self._database.lock:
            self.writes += 1
            for row in rows:
                self._database.presence[row.tracker, row.device] = row

    def replace(self, own: bytes, generation: bytes, rows: Sequence[PresenceRow]) -> None:
        self._check()
        with self._database.lock:
            for key in [key for key in self._database.presence if key[0] == own]:
                del self._database.presence[key]
            self._database.trackers[own] = replace(
                self._database.trackers[own], generation=generation
            )
        self.write(rows)

    def rows_of(self, tracker: bytes, after: int) -> list[PresenceRow]:
        self._check()
        with self._database.lock:
            rows = [row for row in self._database.presence.values() if row.tracker == tracker]
        return sorted((row for row in rows if row.version > after), key=lambda row: row.version)

    def drop_tombstones(self, own: bytes, before: int) -> None:
        self._check()
        with self._database.lock:
            for key, row in list(self._database.presence.items()):
                if row.tracker == own and row.lease is None and row.version <= before:
                    del self._database.presence[key]
