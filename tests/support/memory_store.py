"""Store in memory that can fail and block, for tests of its users.

The contract suite of stores covers it too.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence

from common import limits
from common.errors import StorageError
from common.ids import ContentId, DeviceKey, GroupId, TrackerId
from common.messages.events import LogEntry
from common.net.codec import encode
from tracker.core.changes.accounts import AccountCreated
from tracker.core.changes.base import Change
from tracker.core.changes.groups import GroupDissolved, Logged, LogTrimmed
from tracker.core.changes.shares import ManifestDropped, ManifestStored
from tracker.core.state import State
from tracker.store.turns import Commit, FellBehind, InDoubt, LogConflict, StoredEntry


class MemoryStore:
    """Store of one tracker, or of several if ``shared`` is set.

    ``others`` writes as another tracker does. ``lost``: the next commit's answer is lost, and it
    took place or not. ``gone``: the database does not answer.
    """

    def __init__(self) -> None:
        self.shared = False
        self._state = State()
        self._log: dict[str, list[LogEntry]] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._id: TrackerId | None = None
        self._journal: list[Commit] = []
        self.forgotten = 0  # commits that the journal no longer has
        self.fails_with: StorageError | None = None
        self.gone: StorageError | None = None
        self.lost: bool | None = None
        self.open = threading.Event()  # while it is not set, commits wait
        self.open.set()
        self.turn_is_free = threading.Event()  # while it is not set, another tracker has the turn
        self.turn_is_free.set()

    def turn(self, position: int) -> MemoryTurn:
        assert self.turn_is_free.wait(20.0)
        return MemoryTurn(self, self.news(position))

    def others(self, changes: Sequence[Change], nudged: Sequence[DeviceKey] = ()) -> None:
        """Commit as another tracker."""
        self.commit(changes)
        position = self.forgotten + len(self._journal) + 1
        self._journal.append(Commit(position, b"other", 1, tuple(changes), tuple(nudged)))

    def forget_journal(self) -> None:
        self.forgotten += len(self._journal)
        self._journal.clear()

    def commit(self, changes: Sequence[Change]) -> None:
        assert self.open.wait(20.0)
        if self.fails_with is not None:
            raise self.fails_with
        state, log, bodies = copy.deepcopy((self._state, self._log, self._bodies))
        for change in changes:
            match change:
                case Logged(entry):
                    if entry.seq != state.groups[change.group].seq + 1:
                        raise LogConflict(f"entry {entry.seq} is not the next one")
                    log.setdefault(entry.group, []).append(entry)
                case LogTrimmed(group, count):
                    del log[group][:count]
                case GroupDissolved(group):
                    log.pop(group, None)
                case ManifestStored(summary, body):
                    bodies[summary.content] = body
                case ManifestDropped(content):
                    del bodies[content]
                case AccountCreated(user) if user in state.accounts:
                    raise StorageError("UNIQUE constraint failed")
                case _:
                    pass
            change.apply(state)
        self._state, self._log, self._bodies = state, log, bodies

    def load(self) -> State:
        self.reach()
        loaded = copy.deepcopy(self._state)
        loaded.position = self.forgotten + len(self._journal)
        return loaded

    def tracker_id(self, fresh: bytes) -> TrackerId:
        self._id = self._id or TrackerId(fresh)
        return self._id

    def manifest_part(self, content: ContentId, offset: int) -> bytes:
        length = limits.MANIFEST_PART_BYTES
        end = (offset // length + 1) * length
        return self._bodies.get(content, b"")[offset:end]

    def entries(self, group: GroupId, after: int, head: int, rows: int) -> list[StoredEntry]:
        log = [entry for entry in self._log.get(group, []) if after < entry.seq <= head]
        return [StoredEntry(entry.seq, encode(entry)) for entry in log[:rows]]

    def news(self, position: int) -> Sequence[Commit]:
        self.reach()
        if position < self.forgotten:
            raise FellBehind("the journal begins later")
        return self._journal[position - self.forgotten :]

    def happened(self, doubt: InDoubt) -> bool:
        self.reach()
        return any(commit.position == doubt.position for commit in self._journal)

    def reach(self) -> None:
        if self.gone is not None:
            raise self.gone

    def interrupt(self) -> None:
        self.turn_is_free.set()

    def close(self) -> None:
        pass


class MemoryTurn:
    def __init__(self, store: MemoryStore, news: Sequence[Commit]) -> None:
        self._store = store
        self.news = news

    def commit(self, changes: Sequence[Change], nudged: Sequence[DeviceKey]) -> int:
        store = self._store
        if not store.shared:
            store.commit(changes)
            return 0
        store.reach()
        position = store.forgotten + len(store._journal) + 1
        lost, store.lost = store.lost, None
        if lost is not False:
            store.others(changes, nudged)
        if lost is not None:
            raise InDoubt("the connection ended during a commit", position, b"b" * 16)
        return position

    def release(self) -> None:
        pass
