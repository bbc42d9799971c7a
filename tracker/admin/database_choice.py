"""Choice of a tracker's database: the SQLite file of its home, or a PostgreSQL database by URL.

Owns: the URL that a home remembers, and opening either. Not here: the stores (see tracker.store).

Why it is remembered: without it a tracker that was moved to PostgreSQL, and is started without its
option, would begin with an empty file under the same link.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING

from common.errors import ConfigError, StorageError
from common.hints import tracker_hint
from common.host.atomic_files import atomic_write
from common.host.clock import monotonic
from common.host.home import open_home
from tracker.admin.staged_restore import DATABASE
from tracker.store import postgres_connections as pg
from tracker.store.sqlite_store import SqliteStore

if TYPE_CHECKING:
    from tracker.admin.home import Home, Secrets
    from tracker.store.postgres_store import PostgresStore

log = logging.getLogger("tracker")

REMEMBERED = "database"  # in the home; 0600, since a URL may hold a password
WAIT_S = 60.0  # for a database that starts, perhaps with this machine
SAY_S = 10.0
TRY_S = 0.5


def chosen(home: Path, url: str | None) -> str | None:
    """Return the URL that was given or is remembered; None for the file of ``home``."""
    if not url:
        try:
            url = (home / REMEMBERED).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
    pg.parsed(url)
    return url


def remember(home: Path, url: str) -> None:
    """Make the tracker of ``home`` use ``url`` from the next start on."""
    if url != chosen(home, None):
        atomic_write(home / REMEMBERED, url.encode() + b"\n")


def choose_database(home: Path, url: str | None) -> None:
    """Make the tracker that is started next use ``url``, if any; its home must have no database."""
    if url is None:
        return
    home = open_home(home)
    if not (home / DATABASE).exists():
        remember(home, url)
    elif url != chosen(home, None):
        raise other_database(home)


def other_database(home: Path) -> ConfigError:
    """Return the error of a home that has a file, and a URL as well."""
    return ConfigError(
        f"{home} has a database of its own, and another one is named",
        tracker_hint("move it there", "migrate-to", "URL"),
    )


def digest_of(secrets: Secrets) -> bytes:
    """Return what tells the keys of one cluster from those of another; no key can be found by it.

    Without the keys for signing, which may be rotated.
    """
    return hashlib.blake2b(secrets.pair.public + secrets.inbox, digest_size=16).digest()


def open_store(
    home: Home, url: str | None, secrets: Secrets, stopped: Callable[[], bool]
) -> SqliteStore | PostgresStore:
    """Open the database of a tracker, unless it is ``stopped``. Raise `MiniTorrentError`."""
    if url is None:
        return SqliteStore(home.database)
    from tracker.admin import rotation  # PyNaCl is slow to load

    if home.database.exists():
        raise other_database(home.path)
    store = open_shared(url, WAIT_S, stopped)
    try:
        if not store.claim(digest_of(secrets)):
            raise ConfigError(
                f"the database {pg.shown(url)} belongs to trackers with other keys",
                tracker_hint("take their keys, from export-keys at one of them", "join", "FILE"),
            )
        rotation.check(rotation.keys_of_serving(url), secrets.signing)
        remember(home.path, url)
    except BaseException:
        store.close()
        raise
    return store


def open_shared(
    url: str, wait_s: float = 0.0, stopped: Callable[[], bool] = lambda: False
) -> PostgresStore:
    """Open a PostgreSQL database, and wait up to ``wait_s`` until it answers."""
    from tracker.store.postgres_store import PostgresStore

    began = said = monotonic()
    while True:
        try:
            with pg.translated(f"reach the database {pg.shown(url)}"):
                pg.connect(url).close()
            return PostgresStore(url)
        except pg.Unreachable as error:
            now = monotonic()
            if now - began >= wait_s or stopped():
                raise StorageError(
                    error.message, "check that PostgreSQL runs, and the URL of the database"
                ) from error
            if now - said >= SAY_S or said == began:
                log.warning("%s; waiting up to %.0f s", error.message, wait_s)
                said = now
            sleep(TRY_S)
