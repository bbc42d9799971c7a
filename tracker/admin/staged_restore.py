"""Crash-safe swap of the database for `restore`.

Owns: the names of the restored and the former database during the swap. Not here: the content of
the restored one (see tracker.admin.backup).

Invariant: one rename (`stage`) commits a restore. Until then an interruption leaves the database
unchanged. From then on each opening of the home finishes the swap before it uses the database.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from common.host.atomic_files import sync_directory

DATABASE = "tracker.db"
_PART, _NEXT, _FORMER = f"{DATABASE}.part", f"{DATABASE}.next-", f"{DATABASE}.before-"
_JOURNALS = ("-wal", "-journal")  # hold writes that may not be in the database file yet


def prepare(home: Path) -> Path:
    """Return a free path for the restored database. Raise OSError. ``home`` must be locked."""
    abandon(home)
    return home / _PART


def abandon(home: Path) -> None:
    """Remove an unfinished file of `prepare` and its journals. Raise OSError.

    Why the journals: SQLite would apply them to the next file of that name.
    """
    for suffix in ("", *_JOURNALS, "-shm"):
        (home / (_PART + suffix)).unlink(missing_ok=True)


def stage(home: Path) -> None:
    """Commit the prepared file as the next database of ``home``, also against a loss of power.

    Raise OSError.
    """
    with (home / _PART).open("rb") as file:
        os.fsync(file.fileno())
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
    free, count = stamp, 1
    while (home / (_FORMER + free)).exists():
        free, count = f"{stamp}-{count}", count + 1
    os.replace(home / _PART, home / (_NEXT + free))
    sync_directory(home)


def pending(home: Path) -> list[Path]:
    """Return the staged databases that are not in place yet: one, or none."""
    return sorted(home.glob(f"{_NEXT}*"))


def swap_in(home: Path) -> Path | None:
    """Put the staged database in place, from where the last attempt ended.

    Return the path of the former database, if any. ``home`` must be locked. Raise OSError; the call
    may then be repeated.
    """
    former = None
    for staged in pending(home):
        # Named after the staged file: a repeated attempt uses the same name for the rest.
        former = home / (_FORMER + staged.name.removeprefix(_NEXT))
        for suffix in ("", *_JOURNALS):
            with contextlib.suppress(FileNotFoundError):
                os.replace(home / (DATABASE + suffix), home / (former.name + suffix))
        (home / f"{DATABASE}-shm").unlink(missing_ok=True)  # an index of the journal
        # A journal left behind would be taken for that of the staged database.
        sync_directory(home)
        os.replace(staged, home / DATABASE)
        sync_directory(home)
    return former if former is not None and former.exists() else None
