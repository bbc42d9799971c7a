"""A tracker's home: its keys, its database, and the lock that keeps a second tracker out.

Owns the names of the keys' files. Everything in it is 0600 in a 0700 directory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import nacl.signing

from common.crypto import keys
from common.errors import StorageError
from common.host.home import HomeLock, open_home
from tracker.admin import staged_restore
from tracker.admin.staged_restore import DATABASE

log = logging.getLogger(__name__)

CURVE_KEY = "curve.key"
SIGNING_KEY = "signing.key"
INBOX_SECRET = "inbox.key"
KEY_FILES = (CURVE_KEY, SIGNING_KEY, INBOX_SECRET)
LAST_LINK = "link"  # where it was last found: a free port is known to nobody else
LAST_OPTIONS = "options"  # with which `run` takes it there again
KEPT_FILES = (*KEY_FILES, LAST_LINK, LAST_OPTIONS)  # what a backup holds beside the database


@dataclass(frozen=True, slots=True)
class Secrets:
    """What makes this tracker itself to its peers, whatever its address."""

    pair: keys.KeyPair
    signing: list[nacl.signing.SigningKey] = field(repr=False)
    inbox: bytes = field(repr=False)


class Home:
    """An open and locked home. A restore that was cut short is finished first.

    Raises `MiniTorrentError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = open_home(path)
        self._lock = HomeLock(self.path)
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
        """The keys, made on first start."""
        return Secrets(
            keys.load_or_make_pair(self.path / CURVE_KEY),
            keys.load_or_make_signing_keys(self.path / SIGNING_KEY),
            keys.load_or_make_secret(self.path / INBOX_SECRET),
        )

    def release(self) -> None:
        """Let another process use it."""
        self._lock.release()
