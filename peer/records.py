"""What a peer must remember over a restart: its shares and its downloads.

Owns the records' form and their files: one small file a record, replaced whole, so that a crash
leaves the old or the new one and a damaged one costs nobody else anything. Each has a copy, for
disks that lose what they said was written. The contents of the records are ``peer.shares``' and
``peer.downloads``'.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Condition
from typing import Generic, TypeVar

import msgspec

from common.errors import StorageError
from common.host.atomic_files import atomic_write, remove_temp_files, sync_directory
from common.host.clock import wall_ms
from common.ids import ContentId
from common.messages.control import SourceUse
from peer.files.errors import translated
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import Folder

log = logging.getLogger(__name__)


class ShareRecord(msgspec.Struct, frozen=True):
    """``user`` offers ``content``, which lies at ``place``, in ``group`` under ``name``.

    ``topic`` is the group's, which tells it from a later one of that name."""

    user: str
    group: str
    name: str
    content: bytes
    place: SharedLocation
    topic: bytes = b""
    algorithm: str = ""
    piece_length: int = 0
    """Of its manifest, to make it anew; empty and 0 in records that are older than these two."""


class DownloadRecord(msgspec.Struct, frozen=True):
    """A download as it is remembered. ``path`` is the final path as bytes, for not every path is
    text; ``state`` is D, C, P or F; ``topic`` is the group's, as that of a `ShareRecord`."""

    user: str
    group: str
    name: str
    content: bytes
    path: bytes
    size: int
    digest: str
    pick: str
    started_ms: int
    state: str = "D"
    reason: str | None = None
    by_user: bool = False
    """Paused by the user, and so not to be resumed but by the user."""
    elapsed_s: float = 0.0
    sources: list[SourceUse] = []
    topic: bytes = b""
    folder: Folder | None = None
    """That in which the part is; None in records of earlier versions."""
    times: bool = True
    """Whether it gets the times of its manifest."""


R = TypeVar("R", ShareRecord, DownloadRecord)


def record_key(*parts: str) -> str:
    """A file name for what ``parts`` identify together."""
    joined = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=16).hexdigest()


class Records(Generic[R]):
    """The records of one kind, a file each. Every method blocks for as long as the disk does."""

    SUFFIX = ".record"
    COPY = ".copy"

    def __init__(self, directory: Path, kind: type[R]) -> None:
        self._directory = directory
        self._decoder: msgspec.msgpack.Decoder[R] = msgspec.msgpack.Decoder(kind)
        self.damaged: list[Path] = []  # what `load` set aside
        self._changed = Condition()
        self._turns: dict[str, deque[object]] = {}  # the changes to a record, first come first
        directory.mkdir(mode=0o700, exist_ok=True)

    def load(self) -> dict[str, R]:
        """All records by key, to be called before anything is put. A damaged one is set aside and
        named in the log. Raises `StorageError` where the disk gives one back no more: without it we
        would take back what it says that we share."""
        remove_temp_files(self._directory)
        for copy in self._directory.glob(f"*{self.COPY}"):
            if not copy.with_suffix(self.SUFFIX).exists():
                copy.unlink(missing_ok=True)  # of one that was being forgotten
        records: dict[str, R] = {}
        for path in sorted(self._directory.glob(f"*{self.SUFFIX}")):
            with translated(str(path), "read"):
                encoded = path.read_bytes()
            record = self._decoded(path, encoded) or self._from_copy(path)
            if record is None:
                log.error("the record %s cannot be read and is set aside", path)
                self.damaged.append(path.rename(path.with_suffix(".damaged")))
            else:
                records[path.stem] = record
        return records

    def _decoded(self, path: Path, encoded: bytes) -> R | None:
        try:
            return self._decoder.decode(encoded)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            log.info("%s cannot be read: %s", path, error)
            return None

    def _from_copy(self, path: Path) -> R | None:
        """The record again, from its copy; None if that is of no use either."""
        copy = path.with_suffix(self.COPY)
        try:
            encoded = copy.read_bytes()
        except OSError:
            return None
        record = self._decoded(copy, encoded)
        if record is not None:
            log.warning("the record %s was damaged, and is there again from its copy", path)
            atomic_write(path, encoded)
        return record

    def put(self, key: str, record: R) -> None:
        """Remember ``record`` for good. Raises `StorageError`."""
        path, encoded = self._directory / f"{key}{self.SUFFIX}", msgspec.msgpack.encode(record)
        with self._turn(key):
            atomic_write(path, encoded)
            with contextlib.suppress(StorageError):
                atomic_write(path.with_suffix(self.COPY), encoded, durable=False)

    def remove(self, key: str) -> None:
        """Forget a record for good; one that is not there is forgotten already. Raises
        `StorageError`."""
        path = self._directory / f"{key}{self.SUFFIX}"
        with self._turn(key), translated(str(path), "remove"):
            path.unlink(missing_ok=True)
            path.with_suffix(self.COPY).unlink(missing_ok=True)
            sync_directory(self._directory)  # or a power failure brings it back

    def remove_all(self, keys: Sequence[str]) -> None:
        """`remove` for many: the folder is synced once, for that takes the longest."""
        for key in keys:
            path = self._directory / f"{key}{self.SUFFIX}"
            with self._turn(key), translated(str(path), "remove"):
                path.unlink(missing_ok=True)
                path.with_suffix(self.COPY).unlink(missing_ok=True)
        with translated(str(self._directory), "sync"):
            sync_directory(self._directory)

    @contextlib.contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """Wait until the changes to this record that came earlier are made.

        A lock lets in whichever it likes of those who wait, and the one that ends last would stay.
        """
        mine = object()
        with self._changed:
            turns = self._turns.setdefault(key, deque())
            turns.append(mine)
            self._changed.wait_for(lambda: turns[0] is mine)
        try:
            yield
        finally:
            with self._changed:
                turns.popleft()
                if not turns:
                    del self._turns[key]
                self._changed.notify_all()


class Manifests:
    """Encoded manifests by content id, a file each; those that nobody names are removed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def put(self, content: ContentId, encoded: bytes) -> None:
        """Keep a manifest. Raises `StorageError`."""
        path = self._path(content)
        if self.get(content) != encoded:  # there is none, or the disk has lost some of it
            atomic_write(path, encoded)
            return
        with contextlib.suppress(OSError):
            os.utime(path)  # it is wanted again

    def get(self, content: ContentId) -> bytes | None:
        """The encoded manifest, not checked; None when there is none."""
        try:
            return self._path(content).read_bytes()
        except OSError:
            return None

    def keep_only(self, wanted: set[ContentId], spared_s: float = 0.0) -> None:
        """Remove the manifests of all other contents, and what a crash left of any.

        What was put less than ``spared_s`` ago stays: for what it is may not be recorded yet.
        """
        names = {self._path(content).name for content in wanted}
        before = wall_ms() / 1000 - spared_s
        for path in self._directory.iterdir():
            if path.name in names:
                continue
            with contextlib.suppress(FileNotFoundError):
                if not spared_s or path.stat().st_mtime < before:
                    path.unlink()

    def _path(self, content: ContentId) -> Path:
        return self._directory / f"{content.hex()}.manifest"
