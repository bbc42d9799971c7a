"""Home of a tracker: its keys, its database, and the lock against a second tracker.

Owns: the names of the key files. Files are 0600 in a 0700 directory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from common.crypto import keys
from common.errors import StorageError
from common.hints import tracker_hint
from common.host.home import HomeBusy, HomeLock, open_home
from tracker.admin import staged_restore
from tracker.admin.staged_restore import DATABASE

if TYPE_CHECKING:
    import nacl.signing

log = logging.getLogger(__name__)

CURVE_KEY = "curve.key"
SIGNING_KEY = "signing.key"
INBOX_SECRET = "inbox.key"
KEY_FILES = (CURVE_KEY, SIGNING_KEY, INBOX_SECRET)
LAST_BACKUP = "last-backup"
LAST_LINK = "link"  # its last link: with port 0 it is written nowhere else
LAST_OPTIONS = "options"  # with which `run` binds the same address again
KEPT_FILES = (*KEY_FILES, LAST_LINK, LAST_OPTIONS)  # in a backup, beside the database


@dataclass(frozen=True, slots=True)
class Secrets:
    """Keys by which peers recognise this tracker, whatever its address."""

    pair: keys.KeyPair
    signing: list[nacl.signing.SigningKey] = field(repr=False)
    inbox: bytes = field(repr=False)


class Home:
    """An open and locked home. Opening it first finishes an interrupted restore.

    Raises `MiniTorrentError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = open_home(path)
        try:
            self._lock = HomeLock(self.path)
        except HomeBusy as error:
            raise HomeBusy(error.message, tracker_hint("stop its tracker", "stop")) from error
        try:
            staged_restore.abandon(self.path)
            if staged_restore.pending(self.path):
                former = staged_restore.swap_in(self.path)
                log.warning("finished a restore; the former database is %s", former or "none")
        except OSError as error:
            self._lock.release()
            raise StorageError(
                f"cannot finish the restore of {self.database}: {error.strerror}",
                "check the disk and the permissions of the home",
            ) from error

    @property
    def database(self) -> Path:
        return self.path / DATABASE

    def secrets(self) -> Secrets:
        """Load the keys; the first start creates them."""
        from common.crypto.signing_keys import load_or_make_signing_keys  # PyNaCl is slow to load

        return Secrets(
            keys.load_or_make_pair(self.path / CURVE_KEY),
            load_or_make_signing_keys(self.path / SIGNING_KEY),
            keys.load_or_make_secret(self.path / INBOX_SECRET),
        )

    def release(self) -> None:
        """Unlock the home."""
        self._lock.release()
