"""Process set-up of the serving processes.

Owns: allocator tuning, garbage collection, the limit of file descriptors, core dumps, the format of
the log, and the mark that distinguishes a machine from its copies.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import gc
import hashlib
import json
import logging
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.names import printable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_KEEP_BYTES = 256 * 1024 * 1024
_POOLS = 2  # of memory for all threads together; eight for each core are glibc's own choice
GIVE_BACK_S = 60.0
_THRESHOLDS = (10_000, 10, 2)  # Python's own, 700, takes a tenth of a busy tracker's event loop


def instance_mark(home: Path) -> bytes:
    """16 bytes that stay the same over restarts with ``home`` while this machine runs.

    A copy of the machine, or of the home, has others. Empty where the system does not tell.
    """
    try:
        boot, status = _BOOT_ID.read_bytes(), home.stat()
    except OSError:
        return b""
    place = f"{status.st_dev} {status.st_ino}".encode()
    return hashlib.blake2b(boot.strip() + b" " + place, digest_size=16).digest()


def tune_allocator() -> bool:
    """Keep the memory of freed pieces instead of returning each to the system, in few pools.

    With glibc's defaults every buffer of a piece's size is a fresh mapping with a page fault for
    each 4 KiB of it, which costs more than encrypting it. And each thread gets a pool of its own,
    which grows to the most that it ever held: for hours, with as many threads as we have. Returns
    False where the C library has no ``mallopt``; nothing is lost then but speed.
    """
    mallopt = _of_c_library("mallopt")
    if mallopt is None:
        return False
    # 32 MiB is the largest threshold that glibc accepts on 64 bits.
    done = bool(mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024))
    done = bool(mallopt(_M_ARENA_MAX, _POOLS)) and done
    return bool(mallopt(_M_TRIM_THRESHOLD, _KEEP_BYTES)) and done


def give_back_memory() -> bool:
    """Return what the allocator keeps of freed memory to the system; of all threads' pools.

    Takes some milliseconds for a hundred MiB. Returns False where the C library cannot.
    """
    malloc_trim = _of_c_library("malloc_trim")
    if malloc_trim is None:
        return False
    malloc_trim(0)
    return True


async def keep_memory_small() -> None:
    """Give memory back once a minute, until cancelled.

    Why: the memory that `tune_allocator` keeps for the next piece would otherwise stay for ever.
    """
    while True:
        await asyncio.sleep(GIVE_BACK_S)
        if not await asyncio.to_thread(give_back_memory):
            return


def _of_c_library(name: str) -> Any:
    """A function of the C library; None where it has none of that name."""
    try:
        return getattr(ctypes.CDLL(None), name)
    except (OSError, AttributeError):
        return None


def raise_descriptor_limit() -> int:
    """Allow as many open files as the administrator lets us; returns how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def forbid_core_dumps() -> None:
    """A core dump would hold the secret keys."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Lines(logging.Formatter):
    """One line an event, for people. Nothing that a stranger typed can break the line, or do
    anything to the terminal on which it is read."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"    {printable(line)}" for line in lines)


class _JsonLines(logging.Formatter):
    """One JSON object a line, for machines."""

    def format(self, record: logging.LogRecord) -> str:
        row = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            row["exception"] = self.formatException(record.exc_info)
        return json.dumps(row)


def set_up_logging(level: int = logging.INFO, *, as_json: bool = False) -> None:
    """Log to standard error, one line an event."""
    handler = logging.StreamHandler(sys.stderr)
    if as_json:
        handler.setFormatter(_JsonLines())
    else:
        handler.setFormatter(_Lines("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)


def start_up(level: int = logging.INFO, *, log_json: bool = False) -> None:
    """All of the above, in the order in which a serving process wants it."""
    set_up_logging(level, as_json=log_json)
    if sys.stderr is not None:
        faulthandler.enable()  # a crash of compiled code leaves words in the log
    forbid_core_dumps()
    raise_descriptor_limit()
    tune_allocator()


def settle() -> None:
    """End the start of a process: what lives now is taken to live for ever.

    Python's search for unreachable cycles leaves it out from here on. In a tracker with a million
    offers each full search would otherwise take seconds.
    """
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
