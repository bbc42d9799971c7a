"""Records that survive a restart: shares, downloads, and the manifests of both.

Owns: the form of the records and their files. Each record is one small file that is replaced
atomically, so that a crash leaves the old or the new one, and a damaged one harms no other. Each
has a copy, for disks that lose data after a sync. Not here: the meaning of the records (see
peer.shares and peer.downloads).
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections import deque
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from threading import Condition
from typing import Generic, TypeVar

import msgspec

from common.errors import StorageError
from common.host.atomic_files import atomic_write, remove_temp_files, sync_directory
from common.host.clock import wall_ms
from common.ids import ContentId
from peer.files.errors import translated
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import Folder
from peer.files.sharing_rule import SharingRule

log = logging.getLogger(__name__)


class ShareRecord(msgspec.Struct, frozen=True):
    """Share of ``user``: ``content``, which lies at ``place``, in ``group`` under ``name``.

    ``topic`` is that of the group, which tells it from a later group of the same name.
    """

    user: str
    group: str
    name: str
    content: bytes
    place: SharedLocation
    topic: bytes = b""
    algorithm: str = ""
    piece_length: int = 0
    """Of its manifest, to make that again; empty and 0 in records older than these two fields."""
    rule: SharingRule = SharingRule()
    """Selection among the files at ``place``."""
    version: int = 1
    """Of the name; 1 in records older than this field, as at the tracker."""
    expires_ms: int = 0
    """Time at which it ends, by this device's clock; 0 if it does not."""
    fetched: bool = False
    """Whether a download placed it; false in records older than this field."""


class DownloadState(StrEnum):
    """State of a download, by its letter in records and rows."""

    ACTIVE = "D"
    """It fetches, or waits for its turn."""
    PAUSED = "P"
    FAILED = "F"
    COMPLETE = "C"


class SourceUse(msgspec.Struct, frozen=True):
    """Number of pieces that a source gave to a download."""

    user: str
    endpoint: str
    pieces: int


class EarlierVersion(msgspec.Struct, frozen=True, array_like=True):
    """Earlier version of a name, at the path of a download: its content, and the digest of its
    files' fingerprints (`replacement.looks_of`)."""

    content: bytes
    looks: bytes


class DownloadRecord(msgspec.Struct, frozen=True):
    """Download of ``user``. ``path`` is the final path as bytes, because not every path is text;
    ``state`` is a `DownloadState`; ``topic`` as in `ShareRecord`.
    """

    user: str
    group: str
    name: str
    content: bytes
    path: bytes
    size: int
    digest: str
    pick: str
    started_ms: int
    state: str = DownloadState.ACTIVE
    reason: str | None = None
    by_user: bool = False
    """Paused by the user, so that only the user resumes it."""
    elapsed_s: float = 0.0
    sources: list[SourceUse] = []
    topic: bytes = b""
    folder: Folder | None = None
    """The folder of the part; None in records of earlier versions."""
    times: bool = True
    """Whether the files get the times of its manifest."""
    made: list[bytes] = []
    """Folders that were made for it, the uppermost first; they go with it if it is cancelled."""
    reuse: list[bytes] = []
    """Files and folders of this device that are looked through for pieces."""
    fetched_bytes: int = 0
    """Bytes of a complete download that came from other devices."""
    algorithm: str = ""
    """The one of ``digest``; empty while it is not complete."""
    overwrite: bool = False
    """Whether it replaces what stands at its path."""
    in_place: bool = False
    """Whether its content was at its path before."""
    files: list[str] = []
    """Patterns of the files that are at its path in the end; empty for all. ``size`` is theirs."""
    present: list[str] = []
    """Patterns of those that were there when it began, by an earlier download; empty for none."""
    kept: bytes = b""
    """The path of what is kept of a folder that it replaced."""
    version: int = 1
    """As in `ShareRecord`."""
    replaces: EarlierVersion | None = None
    """The earlier version whose place it takes, as long as that is unchanged."""
    on_complete: list[str] = []
    """Command that runs when it is complete, as words."""
    hooks_owed: bool = False
    """Whether it is complete and its hooks have not ended yet."""
    follow: bool = False
    """Begun by a follow (see peer.follows): only into this very ``folder``."""


R = TypeVar("R", bound=msgspec.Struct)


def record_key(*parts: str) -> str:
    """A file name for the thing that ``parts`` identify together."""
    joined = "\x00".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=16).hexdigest()


class Records(Generic[R]):
    """Records of one kind, one file each. Every method blocks as long as the disk does."""

    SUFFIX = ".record"
    COPY = ".copy"

    def __init__(self, directory: Path, kind: type[R]) -> None:
        self._directory = directory
        self._decoder: msgspec.msgpack.Decoder[R] = msgspec.msgpack.Decoder(kind)
        self.damaged: list[Path] = []  # set aside by `load`
        self._changed = Condition()
        self._turns: dict[str, deque[object]] = {}  # the changes to a record, in order of arrival
        directory.mkdir(mode=0o700, exist_ok=True)

    def load(self) -> dict[str, R]:
        """All records by key, to be called before the first `put`.

        A damaged record is set aside and logged. Raises `StorageError` if the disk does not return
        one. Why: without the record this device would withdraw a share that it still has.
        """
        remove_temp_files(self._directory)
        for copy in self._directory.glob(f"*{self.COPY}"):
            if not copy.with_suffix(self.SUFFIX).exists():
                copy.unlink(missing_ok=True)  # of a record that was being removed
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
        """The record from its copy; None if that is damaged or missing too."""
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
        """Write ``record``, durable on return. Raises `StorageError`."""
        path, encoded = self._directory / f"{key}{self.SUFFIX}", msgspec.msgpack.encode(record)
        with self._turn(key):
            atomic_write(path, encoded)
            with contextlib.suppress(StorageError):
                atomic_write(path.with_suffix(self.COPY), encoded, durable=False)

    def put_again(self, key: str, record: R) -> None:
        """`put`, unless the record was removed meanwhile. Raises `StorageError`."""
        path, encoded = self._directory / f"{key}{self.SUFFIX}", msgspec.msgpack.encode(record)
        with self._turn(key):
            if path.exists():
                atomic_write(path, encoded)
                with contextlib.suppress(StorageError):
                    atomic_write(path.with_suffix(self.COPY), encoded, durable=False)

    def remove(self, key: str) -> None:
        """Remove a record, durable on return; a missing one is no error. Raises `StorageError`."""
        path = self._directory / f"{key}{self.SUFFIX}"
        with self._turn(key), translated(str(path), "remove"):
            path.unlink(missing_ok=True)
            path.with_suffix(self.COPY).unlink(missing_ok=True)
            sync_directory(self._directory)  # or a power failure brings it back

    def remove_all(self, keys: Sequence[str]) -> None:
        """`remove` for many. Why: the sync of the folder takes the longest, and one is enough."""
        for key in keys:
            path = self._directory / f"{key}{self.SUFFIX}"
            with self._turn(key), translated(str(path), "remove"):
                path.unlink(missing_ok=True)
                path.with_suffix(self.COPY).unlink(missing_ok=True)
        with translated(str(self._directory), "sync"):
            sync_directory(self._directory)

    @contextlib.contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        """Wait until all earlier changes to this record are made.

        Why: a lock admits waiting threads in any order, and the change that ends last would stay.
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
    """Encoded manifests by content id, one file each; unused ones are removed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)

    def put(self, content: ContentId, encoded: bytes) -> None:
        """Keep a manifest. Raises `StorageError`."""
        path = self._path(content)
        if self.get(content) != encoded:  # it is missing, or the disk has lost some of it
            atomic_write(path, encoded)
            return
        with contextlib.suppress(OSError):
            os.utime(path)  # it is in use again

    def get(self, content: ContentId) -> bytes | None:
        """The encoded manifest, not verified; None if there is none."""
        try:
            return self._path(content).read_bytes()
        except OSError:
            return None

    def keep_only(self, wanted: set[ContentId], spared_s: float = 0.0) -> None:
        """Remove the manifests of all other contents, and the remains of a crash.

        A manifest that was put less than ``spared_s`` ago stays: its record may not be written yet.
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
