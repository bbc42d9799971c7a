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
from tracker.core import changes as c
from tracker.core.state import State
from tracker.store.turns import Commit, InDoubt, LogConflict


class MemoryStore:
    shared = False

    def __init__(self) -> None:
        self._state = State()
        self._log: dict[str, list[LogEntry]] = {}
        self._bodies: dict[bytes, bytes] = {}
        self._id: TrackerId | None = None
        self.fails_with: StorageError | None = None
        self.open = threading.Event()  # while it is not set, commits wait
        self.open.set()

    def turn(self, position: int) -> MemoryTurn:
        return MemoryTurn(self)

    def commit(self, changes: Sequence[c.Change]) -> None:
        assert self.open.wait(20.0)
        if self.fails_with is not None:
            raise self.fails_with
        state, log, bodies = copy.deepcopy((self._state, self._log, self._bodies))
        for change in changes:
            match change:
                case c.Logged(entry):
                    if entry.seq != state.groups[change.group].seq + 1:
                        raise LogConflict(f"entry {entry.seq} is not the next one")
                    log.setdefault(entry.group, []).append(entry)
                case c.LogTrimmed(group, count):
                    del log[group][:count]
                case c.GroupDissolved(group):
                    log.pop(group, None)
                case c.ManifestStored(summary, body):
                    bodies[summary.content] = body
                case c.ManifestDropped(content):
                    del bodies[content]
                case c.AccountCreated(user) if user in state.accounts:
                    raise StorageError("UNIQUE constraint failed")
                case _:
                    pass
            state.apply(change)
        self._state, self._log, self._bodies = state, log, bodies

    def load(self) -> State:
        return copy.deepcopy(self._state)

    def tracker_id(self, fresh: bytes) -> TrackerId:
        self._id = self._id or TrackerId(fresh)
        return self._id

    def manifest_part(self, content: ContentId, offset: int) -> bytes:
        length = limits.MANIFEST_PART_BYTES
        end = (offset // length + 1) * length
        return self._bodies.get(content, b"")[offset:end]

    def entries(self, group: GroupId, after: int, head: int, rows: int) -> list[LogEntry]:
        return [entry for entry in self._log.get(group, []) if after < entry.seq <= head][:rows]

    def news(self, position: int) -> Sequence[Commit]:
        return ()

    def happened(self, doubt: InDoubt) -> bool:
        raise AssertionError

    def reach(self) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class MemoryTurn:
    news: Sequence[Commit] = ()

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def commit(self, changes: Sequence[c.Change], nudged: Sequence[DeviceKey]) -> int:
        self._store.commit(changes)
        return 0

    def give_up(self) -> None:
        pass
