"""Records of shares, and their manifests: kept over restarts, of all users of this device.

Owns: which shares a user wants. Not here: which of them are served (see peer.shares.open_shares)
and listed by the tracker (see peer.shares.agreement).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from common import manifest, names
from common.errors import StorageError
from common.ids import ContentId
from common.manifest import Manifest
from peer.records import Manifests, Records, ShareRecord
from peer.shares.owed_withdrawals import share_key
from peer.workers import Workers

REMOVED_AT_A_TIME = 1_000  # records that one job of a worker removes


class ManifestLost(StorageError):
    """The stored manifest of a share is missing or damaged; it can be restored."""


class ShareRecords:
    """Records by key. Reading is immediate, writing runs on worker threads."""

    def __init__(
        self,
        home: Path,
        workers: Workers,
        manifests: Manifests,
        notify: Callable[[str], None],
    ) -> None:
        self._files = Records(home / "shares", ShareRecord)
        self._workers = workers
        self._manifests = manifests
        self._all = self._files.load()
        for path in self._files.damaged:
            notify(f"a share was forgotten: its record was damaged, and is now {path}")

    @staticmethod
    def key_of(record: ShareRecord) -> str:
        """The key of a record."""
        return share_key(record.user, record.group, record.name, record.version)

    def get(self, key: str) -> ShareRecord | None:
        """The record of a key, if there is one."""
        return self._all.get(key)

    def all(self) -> list[ShareRecord]:
        """The records of all users."""
        return list(self._all.values())

    def of_user(self, user: str) -> list[tuple[str, ShareRecord]]:
        """The records of one user."""
        return [(key, record) for key, record in self._all.items() if record.user == user]

    def of_name(self, user: str, group: str, name: str) -> list[ShareRecord]:
        """The records of all versions of a name, in order."""
        folded = names.fold_name(name)
        found = (
            record
            for record in self._all.values()
            if (record.user, record.group) == (user, group)
            and names.fold_name(record.name) == folded
        )
        return sorted(found, key=lambda record: record.version)

    def contents(self) -> set[ContentId]:
        """All contents that some record names."""
        return {ContentId(record.content) for record in self._all.values()}

    def was_damaged(self, key: str) -> bool:
        """Whether the record of a key was found damaged at the start of this process."""
        return any(path.stem == key for path in self._files.damaged)

    async def put(self, record: ShareRecord) -> None:
        """Write a record."""
        key = self.key_of(record)
        await self._workers.run(self._files.put, key, record)
        self._all[key] = record

    async def put_manifest(self, content: bytes, encoded: bytes) -> None:
        """Write the manifest of a share."""
        await self._workers.run(self._manifests.put, ContentId(content), encoded)

    async def remove(self, key: str) -> None:
        """Remove a record, if there is one."""
        self._all.pop(key, None)
        await self._workers.run(self._files.remove, key)

    async def remove_all(self, keys: Sequence[str]) -> None:
        """Remove many records. Why: removals are cheap if the folder is synced once for many."""
        for key in keys:
            self._all.pop(key, None)
        for at in range(0, len(keys), REMOVED_AT_A_TIME):
            some = keys[at : at + REMOVED_AT_A_TIME]
            await self._workers.run(self._files.remove_all, some)

    async def manifest_of(self, record: ShareRecord) -> tuple[Manifest, bytes]:
        """The manifest of a share, decoded and encoded. Raises `ManifestLost`."""
        content = ContentId(record.content)
        encoded = self._manifests.get(content)
        if encoded is None or manifest.manifest_id(encoded) != content:
            raise ManifestLost(f"the manifest of {names.printable(record.name)} is lost")
        return await self._workers.run(manifest.decode, encoded, content), encoded


def with_pieces(record: ShareRecord, decoded: Manifest) -> ShareRecord:
    """The record, with the fields from which its manifest can be made again."""
    return replace(record, algorithm=decoded.algorithm.value, piece_length=decoded.piece_length)
