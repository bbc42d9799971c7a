"""Snapshot of a download for display: `show-downloads`, progress bars, `why-slow`."""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import UserId
from peer.swarm.fetching.events import SourceId, Verdict
from peer.swarm.fetching.sources import Phase, Source
from peer.swarm.pieces import Bitfield

GOOD, WAITING, IDLE, UNUSED = "good", "waiting", "idle", "unused"
PAUSED, THROTTLED = "paused", "throttled"
VERDICTS = (GOOD, WAITING, IDLE, UNUSED, PAUSED, THROTTLED, *(each.value for each in Verdict))
"""The verdicts on a source, for lists and metrics: see `Progress.verdict_on`."""


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

    def verdict_on(self, source: SourceProgress) -> str:
        """Return one word for the state of a source; reasons that are not its fault come first.

        An open source is good while bytes arrive from it. Else it is waiting if it is to send some,
        and idle if nothing is requested from it. A closed one has the reason of its last close.
        """
        if self.paused:
            return PAUSED
        if source.phase is not Phase.OPEN:
            return UNUSED if source.verdict is None else source.verdict.value
        if not source.in_flight:
            return THROTTLED if self.throttled else GOOD if source.rate else IDLE
        if source.stalled:
            return Verdict.SILENT.value
        return GOOD if source.rate else WAITING
