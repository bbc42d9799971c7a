"""Rows about the trackers on one database, as values.

Owns: the types. Not here: the statements (see tracker.store.cluster_tables).
"""

from __future__ import annotations

from dataclasses import dataclass

ROWS_MAX = 10_000  # of presence in one answer; the next one brings more


@dataclass(frozen=True, slots=True)
class TrackerRow:
    """A tracker on this database. ``generation``: that of its rows of presence.

    ``format``: of the journal that it reads. ``position``: the last commit that it has applied.
    ``online``: devices with a lease there; ``received``, ``sent``: sums of their rates. ``keys``:
    marks of the keys that its devices accept tickets of, that of its own tickets first
    (`common.crypto.signing_keys.marks`). ``silent_ms``: since its last sign of life.
    """

    tracker: bytes
    generation: bytes
    endpoint: str
    release: str
    format: int
    position: int
    online: int
    received: int = 0
    sent: int = 0
    keys: bytes = b""
    silent_ms: int = 0


@dataclass(frozen=True, slots=True)
class Beat:
    """Answer to a sign of life: the time of the database, and whether this tracker was unknown."""

    now_ms: int
    is_new: bool
