"""Counts of all downloads of a peer since its start.

Plain numbers that the parts of downloads add to. Not here: their text (see peer.metrics).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from common.ids import GroupId
from common.metrics.histogram import Histogram
from peer.swarm.fetching.events import DiscardReason

DURATIONS_S = (1.0, 3.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1_800.0, 3_600.0, 10_800.0, 36_000.0)
VERIFIED, CORRUPT, DUPLICATE, UNWANTED = "verified", "corrupt", "duplicate", "unwanted"
PIECE_RESULTS = (VERIFIED, CORRUPT, DUPLICATE, UNWANTED)
COMPLETE, FAILED, CANCELLED = "complete", "failed", "cancelled"
ENDS = (COMPLETE, FAILED, CANCELLED)


@dataclass(slots=True)
class DownloadCounts:
    """All methods run in the event loop."""

    received_bytes: Counter[GroupId] = field(default_factory=Counter)
    """Bytes of pieces that arrived, whether right or wrong."""
    pieces: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    durations: Histogram = field(default_factory=lambda: Histogram(DURATIONS_S))
    written_bytes: int = 0
    waiting_bytes: int = 0
    """Bytes of pieces that are in memory until they are written."""
    disk_errors: Counter[str] = field(default_factory=Counter)
    """Failed writes by `peer.files.errors.errno_word`."""

    def discarded(self, why: DiscardReason) -> None:
        """Count a piece that was dropped unread."""
        self.pieces[DUPLICATE if why is DiscardReason.DUPLICATE else UNWANTED] += 1

    def completed(self, elapsed_s: float) -> None:
        """Count a complete download; 0 s: nothing was fetched."""
        self.ends[COMPLETE] += 1
        if elapsed_s > 0:
            self.durations.observe(elapsed_s)
