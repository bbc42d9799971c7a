"""Records of follows, and of the versions that each has settled: kept over restarts.

Owns: their form, their keys and the order of writes. Not here: what follows from them (see
peer.follows.plan).
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from common.names import fold_name
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import Folder
from peer.follows.plan import Mark, Settled
from peer.records import Records, record_key
from peer.workers import Workers


class FollowRecord(msgspec.Struct, frozen=True):
    """Follow of ``group`` by ``user`` into the folder ``path``, a real path as bytes.

    ``folder`` is its identity: another folder at that path is a mount point without its disk.
    ``topic`` is that of the group, which tells it from a later group of the same name.
    """

    user: str
    group: str
    path: bytes
    folder: Folder
    globs: list[str] = []
    keep_versions: int = 0
    topic: bytes = b""
    since_ms: int = 0

    @property
    def text(self) -> str:
        """The path as text."""
        return os.fsdecode(self.path)

    @property
    def key(self) -> str:
        """The name of its file."""
        return record_key(self.user, self.group, self.text)


class KeptVersion(msgspec.Struct, frozen=True):
    """An earlier version that stands beside the current one as ``NAME@VERSION``."""

    version: int
    content: bytes


class MarkRecord(msgspec.Struct, frozen=True):
    """A version of ``name`` that the follow with the key ``follow`` has settled.

    ``place``: where it was placed, and how its files looked then. ``kept``: earlier versions that
    are kept beside it, the oldest first.
    """

    follow: str
    name: str
    version: int
    content: bytes
    how: Settled
    place: SharedLocation | None = None
    kept: list[KeptVersion] = []

    @property
    def key(self) -> str:
        """The name of its file."""
        return record_key(self.follow, fold_name(self.name))

    @property
    def mark(self) -> Mark:
        """The mark without its names."""
        return Mark(self.version, self.content, self.how)


class FollowRecords:
    """Follows and marks in memory, written through to one file each on worker threads."""

    def __init__(self, home: Path, workers: Workers) -> None:
        self._follows = Records(home / "follows", FollowRecord)
        self._marks = Records(home / "followed", MarkRecord)
        self._workers = workers
        self.follows = self._follows.load()
        self.marks: dict[str, dict[str, MarkRecord]] = {key: {} for key in self.follows}
        for key, record in self._marks.load().items():
            if record.follow in self.follows:
                self.marks[record.follow][fold_name(record.name)] = record
            else:
                self._marks.remove(key)  # its follow ended, and then the process

    async def put(self, record: FollowRecord) -> None:
        """Write a follow, durable on return. Raises `StorageError`."""
        await self._workers.run(self._follows.put, record.key, record)
        self.follows[record.key] = record
        self.marks.setdefault(record.key, {})

    async def mark(self, record: MarkRecord) -> None:
        """Write a mark, durable on return. Raises `StorageError`."""
        await self._workers.run(self._marks.put, record.key, record)
        if record.follow in self.marks:
            self.marks[record.follow][fold_name(record.name)] = record

    async def unmark(self, follow: str, names: list[str]) -> None:
        """Remove the marks of some folded names."""
        marks = self.marks.get(follow, {})
        gone = [marks.pop(name) for name in names if name in marks]
        await self._workers.run(self._marks.remove_all, [record.key for record in gone])

    async def remove(self, key: str) -> None:
        """Remove a follow and its marks; the follow first, so that no mark outlives a crash."""
        self.follows.pop(key, None)
        await self._workers.run(self._follows.remove, key)
        marks = self.marks.pop(key, {})
        await self._workers.run(self._marks.remove_all, [record.key for record in marks.values()])
