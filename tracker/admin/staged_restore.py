"""The database that is to come: how a restored one takes the place of the one before it.

Owns the names of both on the way, and that a process which dies in between leaves nothing half
done. A successor counts from one rename on; from there every opening of the home finishes what is
left to do, before it looks at the database. What is in a successor is ``tracker.admin.backup``'s.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from common.host.atomic_files import sync_directory

DATABASE = "tracker.db"
_PART, _NEXT, _FORMER = f"{DATABASE}.part", f"{DATABASE}.next-", f"{DATABASE}.before-"
_JOURNALS = ("-wal", "-journal")  # a database's writes that may not be in its file yet


def prepare(home: Path) -> Path:
    """Where a successor is made; nothing is there. Raises OSError. ``home`` must be locked."""
    abandon(home)
    return home / _PART


def abandon(home: Path) -> None:
    """Remove a prepare that was not finished, and its journals: SQLite would undo the next one's
    beginning by them. Raises OSError."""
    for suffix in ("", *_JOURNALS, "-shm"):
        (home / (_PART + suffix)).unlink(missing_ok=True)


def stage(home: Path) -> None:
    """The prepare is what the database of ``home`` is to be, also after a loss of power.

    Raises OSError.
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
    """Successors whose place is still taken: one, or none."""
    return sorted(home.glob(f"{_NEXT}*"))


def swap_in(home: Path) -> Path | None:
    """Put what waits in place, from wherever the last try ended; where the former database is now.

    ``home`` must be locked. Raises OSError, and may then be tried again.
    """
    former = None
    for successor in pending(home):
        # By the successor's name: the next try puts the rest where this one put the beginning.
        former = home / (_FORMER + successor.name.removeprefix(_NEXT))
        for suffix in ("", *_JOURNALS):
            with contextlib.suppress(FileNotFoundError):
                os.replace(home / (DATABASE + suffix), home / (former.name + suffix))
        (home / f"{DATABASE}-shm").unlink(missing_ok=True)  # an index of the journal
        # A journal that was left behind would be taken for that of the successor.
        sync_directory(home)
        os.replace(successor, home / DATABASE)
        sync_directory(home)
    return former if former is not None and former.exists() else None
