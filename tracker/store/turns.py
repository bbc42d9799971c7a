"""Interface of the tracker's database: turns at writing, and the order of commits.

Owns: the types between the command loop and a store. Not here: the stores (see
tracker.store.sqlite_store and tracker.store.postgres_store), and the journal that other trackers
read (see tracker.store.journal).

Theory of operation. All commits of a database have one order; ``position`` is the number of the
last one that a mirror has. A tracker decides only on a mirror that is at the head: it takes a turn,
which waits until no other tracker has one, applies the commits that it has missed (`Turn.news`),
decides, and commits. A store of one tracker has no other commits: its turns wait for nothing, and
its position stays 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from common.errors import StorageError
from common.ids import ContentId, DeviceKey, GroupId, TrackerId
from tracker.core.changes.base import Change
from tracker.core.state import State


class StoredEntry(NamedTuple):
    """An entry of a log, encoded as it is stored and sent."""

    seq: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit of any tracker: its changes, and the devices that it nudges.

    ``tracker``: whose it is, 16 bytes. ``at_ms``: by the database's clock.
    """

    position: int
    tracker: bytes
    at_ms: int
    changes: tuple[Change, ...]
    nudged: tuple[DeviceKey, ...]


class LogConflict(StorageError):
    """Another writer continued a log. Turns exclude it; the guard against defects and strangers."""


class OldReader(StorageError):
    """A tracker of an earlier release serves, which cannot read these changes: write them later."""


class FellBehind(StorageError):
    """The journal no longer has the next commit, or this release cannot read it: load anew."""


class InDoubt(StorageError):
    """The connection ended during a commit. `Store.happened` says later whether it took place."""

    def __init__(self, message: str, position: int, batch: bytes) -> None:
        super().__init__(message)
        self.position = position
        self.batch = batch


class Turn(Protocol):
    """Right to write next. It ends with `commit` or `release`, also when these raise.

    ``news``: commits after the caller's position, in order.
    """

    news: Sequence[Commit]

    def commit(self, changes: Sequence[Change], nudged: Sequence[DeviceKey]) -> int:
        """Write all ``changes``, or none; return the new position.

        Raise `StorageError` if none is written, `InDoubt` if that is not known.
        """
        ...

    def release(self) -> None:
        """Write nothing. Raises nothing."""
        ...


class Store(Protocol):
    """Database of one tracker, or of several.

    ``shared``: others may write too; ``turn`` then waits, and may fail. Thread safety: methods
    block; ``turn`` and ``happened`` are called by one thread, ``interrupt`` by another one. All
    raise `StorageError`.
    """

    shared: bool

    def load(self) -> State:
        """Return the mirror, with its position: both are of one snapshot."""
        ...

    def turn(self, position: int) -> Turn:
        """Wait for the turn. Raise `FellBehind` if the mirror must be loaded anew."""
        ...

    def news(self, position: int) -> Sequence[Commit]:
        """Return the commits after ``position`` without waiting for a turn."""
        ...

    def happened(self, doubt: InDoubt) -> bool:
        """Return whether a commit in doubt took place."""
        ...

    def reach(self) -> None:
        """Raise `StorageError` unless the database can be written now."""
        ...

    def interrupt(self) -> None:
        """Make all calls that wait for the database fail soon."""
        ...

    def tracker_id(self, fresh: bytes) -> TrackerId:
        """Return the id of this installation; at the first start ``fresh`` becomes it."""
        ...

    def manifest_part(self, content: ContentId, offset: int) -> bytes:
        """Return up to one part of a manifest from ``offset``; empty if it is deleted."""
        ...

    def put_parts(self, content: ContentId, body: bytes) -> None:
        """Write the parts of a manifest before its turn, if that is of use."""
        ...

    def entries(self, group: GroupId, after: int, head: int, rows: int) -> list[StoredEntry]:
        """Return the log's entries after ``after`` and up to ``head``, at most ``rows``."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
