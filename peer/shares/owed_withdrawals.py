"""Withdrawals owed to the tracker: offers of this home that it could not take back yet.

Owns: their records. Invariant: a comparison with the tracker withdraws only offers of this home, by
a record of a share or of an owed withdrawal. Offers of another machine with the same key stay.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from common import names
from common.errors import StorageError
from peer.records import Records, ShareRecord, record_key
from peer.workers import Workers

log = logging.getLogger(__name__)


def share_key(user: str, group: str, name: str, version: int = 1) -> str:
    """The key of the record of a share; that of version 1 is as in earlier releases."""
    parts = user, group, names.fold_name(name)
    return record_key(*parts) if version == 1 else record_key(*parts, str(version))


class OwedWithdrawals:
    """Withdrawals by the key of the share that they end."""

    def __init__(self, home: Path, workers: Workers) -> None:
        self._records = Records(home / "withdrawals", ShareRecord)
        self._workers = workers
        self._all = self._records.load()

    def of_name(self, user: str, group: str, name: str) -> list[ShareRecord]:
        """The owed withdrawals of all versions of a name."""
        folded = names.fold_name(name)
        return [
            record
            for record in self._all.values()
            if (record.user, record.group) == (user, group)
            and names.fold_name(record.name) == folded
        ]

    def keys_of(self, user: str) -> list[str]:
        """The keys of all that is owed in the name of ``user``."""
        return [key for key, record in self._all.items() if record.user == user]

    async def add(self, record: ShareRecord) -> None:
        """Record that the offer of a share must be withdrawn."""
        key = share_key(record.user, record.group, record.name, record.version)
        self._all[key] = record
        try:
            await self._workers.run(self._records.put, key, record)
        except StorageError as error:
            log.warning("a withdrawal is remembered until this peer ends: %s", error)

    async def settle(self, keys: Iterable[str]) -> None:
        """Forget withdrawals: the tracker lists these offers no longer."""
        done = [key for key in keys if self._all.pop(key, None) is not None]
        if not done:
            return
        try:
            await self._workers.run(self._records.remove_all, done)
        except StorageError as error:
            log.warning("a withdrawal that was made is not forgotten yet: %s", error)
