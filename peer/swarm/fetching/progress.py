"""Snapshot of a download for display: `show-downloads`, progress bars, `why-slow`."""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import UserId
from peer.swarm.fetching.events import SourceId, Verdict
from peer.swarm.fetching.sources import Phase, Source
from peer.swarm.pieces import Bitfield


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One source: pieces given and in flight, and its state."""

    source: SourceId
    user: UserId
    phase: Phase
    complete: bool
    rate: float
    """Bytes a second; 0 if it is silent."""
    pieces: int
    bytes: int
    in_flight: int
    """Requested pieces that have not arrived."""
    stalled: bool
    verdict: Verdict | None
    """Reason of its last close; None if it never was closed."""
    note: str
    have: Bitfield | None
    """Its pieces; None if it has all, or is not open. Not a copy."""

    @classmethod
    def of(cls, source: Source, now: float) -> SourceProgress:
        return cls(
            source=source.id,
            user=source.user,
            phase=source.phase,
            complete=source.complete,
            rate=source.meter.rate(now),
            pieces=source.got_pieces,
            bytes=source.got_bytes,
            in_flight=len(source.in_flight),
            stalled=source.stalled,
            verdict=source.verdict,
            note=source.note,
            have=source.have,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """One download."""

    pieces: int
    held_pieces: int
    size: int
    """Bytes of the wanted pieces."""
    held_bytes: int
    rate: float
    """Verified bytes a second."""
    eta_s: float | None
    """Seconds left at this rate; None if nothing arrives."""
    paused: bool
    throttled: bool
    """The rate limit delays the next request."""
    complete: bool
    verifying_bytes: int
    duplicate_bytes: int
    """Bytes that arrived twice: from two owners, or after a request was cancelled."""
    corrupt_pieces: int
    sources: tuple[SourceProgress, ...]

    @property
    def sources_used(self) -> int:
        """Number of open sources."""
        return sum(1 for s in self.sources if s.phase is Phase.OPEN)
