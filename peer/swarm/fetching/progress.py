"""How a download stands, as a picture for people: `show-downloads`, progress bars, `why-slow`.

Owns the picture only; `download` draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.ids import UserId
from peer.swarm.fetching.events import SourceId, Verdict
from peer.swarm.fetching.sources import Phase, Source


@dataclass(frozen=True, slots=True)
class SourceProgress:
    """One source: what it gave, what it is asked for, and what the download thinks of it."""

    source: SourceId
    user: UserId
    phase: Phase
    complete: bool
    rate: float
    """Bytes a second while it is asked for something, else 0."""
    pieces: int
    bytes: int
    asked: int
    """Pieces asked for and not yet come."""
    stalled: bool
    verdict: Verdict | None
    """Why it was last closed; None while it never was."""
    note: str

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
            asked=len(source.asked),
            stalled=source.stalled,
            verdict=source.verdict,
            note=source.note,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """One download."""

    pieces: int
    held_pieces: int
    size: int
    held_bytes: int
    rate: float
    """Verified bytes a second, see `meter`."""
    eta_s: float | None
    """Seconds left at this rate; None when nothing comes."""
    paused: bool
    throttled: bool
    """A rate limit is in the way of asking for more."""
    complete: bool
    verifying_bytes: int
    duplicate_bytes: int
    """Came twice, because two sources were asked or a cancelled one was quicker."""
    corrupt_pieces: int
    sources: tuple[SourceProgress, ...]

    @property
    def sources_used(self) -> int:
        """How many are open."""
        return sum(1 for s in self.sources if s.phase is Phase.OPEN)
