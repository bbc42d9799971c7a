"""Sources of one download: the table, their ranking, stall timeouts and backoff.

Owns: each source's record, the choice of the next source to open and the next to give up, and the
backoff after a failure. Not here: the choice of pieces (see requests) and connection events (see
source_lifecycle).

A source is judged by what it gives, and by its silence while requests are in flight. The normal
latency is learnt from all sources together (`LatencyStats`: mean and three standard deviations of
the times from request to piece, and from piece to piece), so that a slow network does not look like
a dead one. Only a piece with a wrong digest is evidence of malice, and only that bans at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, unique
from math import inf, sqrt
from typing import TYPE_CHECKING

from common.ids import UserId
from peer.swarm.fetching.events import SourceId, Verdict
from peer.swarm.fetching.window import Window
from peer.swarm.pieces import Bitfield
from peer.swarm.rates import RateMeter

if TYPE_CHECKING:
    from random import Random

STRIKES_MAX = 8
"""Invalid messages after which a source counts as hostile."""

_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0
_STALL_TIMEOUT_MIN_S = 1.0
_STALL_TIMEOUT_MAX_S = 4.0
_STALL_TIMEOUT_FIRST_S = 15.0
_GAP_MAX_S = 120.0
"""Longest gap between two pieces that is tolerated, however slow the other sources are."""


@unique
class Phase(Enum):
    """State of the connection to a source."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    BANNED = "banned"


@dataclass(slots=True)
class Stall:
    """A source's stall: it gave no piece within the stall timeout, once or more often in a row."""

    since: float
    """Time of the first stall of the row."""
    wait_from: float
    """Start of the next timeout: the last stall, or a later request."""
    trial_at: float
    """Time of its next request for a piece that other sources offer as well."""
    count: int = 1


@dataclass(slots=True, eq=False)
class Source:
    """One source of one download. The download writes these fields; the table ranks by them."""

    id: SourceId
    user: UserId
    complete: bool
    window: Window
    listed: bool = True
    """The tracker lists it: online, and offering the content."""
    phase: Phase = Phase.IDLE
    phase_since: float = 0.0
    have: Bitfield | None = None
    """Pieces that it holds, while open; None: every piece."""
    in_flight: dict[int, float] = field(default_factory=dict)
    """Requested pieces that may arrive, with the time of the request, oldest first."""
    in_flight_bytes: int = 0
    cancelled: set[int] = field(default_factory=set)
    """Pieces of cancelled requests: they may still arrive."""
    promised: dict[int, float] = field(default_factory=dict)
    """Pieces that it reported as on their way, and the time until which it is believed."""
    last_progress_at: float = 0.0
    """Time of its last piece or, if later, of the first request after it had none in flight."""
    stall: Stall | None = None
    """Set while it is stalled: it gets one request at a time, and only for a piece that no other
    source offers, or as a trial."""
    silent_since: float = 0.0
    """While requests are in flight: start of the time in which nothing at all has arrived."""
    moved_at: float = 0.0
    """Last time at which the driver saw bytes of it arrive, whole pieces or not."""
    silences: int = 0
    """Number of times its connection was replaced for silence, since its last piece."""
    resume_at: float = 0.0
    """End of the time for which it declared itself busy: open, but not sent requests."""
    retry_at: float = 0.0
    """Earliest time of the next attempt to open it."""
    failures: int = 0
    """Failures in a row since its last piece."""
    strikes: int = 0
    got_pieces: int = 0
    got_bytes: int = 0
    meter: RateMeter = field(default_factory=RateMeter)
    verdict: Verdict | None = None
    """Reason of its last close."""
    note: str = ""
    """Its explanation of a refusal, for display."""

    def offers(self, index: int) -> bool:
        return self.have is None or index in self.have

    def promises(self, index: int, now: float) -> bool:
        """Return whether the piece is on its way, as far as it is believed."""
        return self.stall is None and now < self.promised.get(index, 0.0)

    @property
    def stalled(self) -> bool:
        return self.stall is not None

    @property
    def waited_from(self) -> float:
        """Start of the current wait for its next piece."""
        return self.last_progress_at if self.stall is None else self.stall.wait_from


class MeanDeviation:
    """Running mean and deviation of a time, over at most the last 64 samples or so. Seconds."""

    __slots__ = ("_count", "_variance", "mean")

    def __init__(self) -> None:
        self._count = 0
        self._variance = 0.0
        self.mean = 0.0

    def add(self, elapsed_s: float) -> None:
        self._count = min(self._count + 1, 64)
        weight = 1.0 / self._count
        off = elapsed_s - self.mean
        self.mean += weight * off
        self._variance = (1.0 - weight) * (self._variance + weight * off * off)

    def upper_bound_s(self) -> float:
        """Return a bound that samples hardly ever exceed: mean plus three deviations.

        Infinite without a sample. Why the second term: few samples say little about the deviation.
        It is taken as no less than the deviation of their mean would be if a single sample deviated
        by as much as the mean itself.
        """
        if not self._count:
            return inf
        return self.mean + 3.0 * max(sqrt(self._variance), self.mean / sqrt(self._count))


class LatencyStats:
    """Latency of all sources of a download together: the normal values in this swarm."""

    __slots__ = ("_gap", "_latency")

    def __init__(self) -> None:
        self._latency = MeanDeviation()
        """From request to piece."""
        self._gap = MeanDeviation()
        """From piece to piece of one source, while requests are in flight."""

    def add(self, gap_s: float, latency_s: float | None) -> None:
        """Record a piece: the time since the source's last one, and since its request.

        `latency_s` is None if the request was cancelled.
        """
        # Why the cap: a trend of longer gaps is followed, one gap out of all proportion is not.
        gap_max_s = 4.0 * max(self._gap.upper_bound_s(), _STALL_TIMEOUT_MIN_S)
        self._gap.add(min(gap_s, gap_max_s if self._gap.mean else _STALL_TIMEOUT_FIRST_S))
        if latency_s is not None:
            self._latency.add(latency_s)

    @property
    def gap_s(self) -> float:
        """Mean time from piece to piece of one source; 0 before the first piece."""
        return self._gap.mean

    def stall_timeout_s(self) -> float:
        """Return the seconds without a piece, with requests in flight, after which a source stalls.

        A frozen source is noticed within a few seconds, however long its queue is. Where links are
        so slow that working sources are silent for as long, silence proves nothing, and the timeout
        follows the gaps.
        """
        if not self._gap.mean:
            return _STALL_TIMEOUT_FIRST_S  # no source has given a piece yet: blame none
        latency_s = self._latency.upper_bound_s()
        quick_s = min(max(latency_s, _STALL_TIMEOUT_MIN_S), _STALL_TIMEOUT_MAX_S)
        return max(quick_s, self.long_gap_s())

    def long_gap_s(self) -> float:
        """Return a gap that is hardly ever exceeded, at most 2 min; 0 before the first piece."""
        return min(self._gap.upper_bound_s(), _GAP_MAX_S) if self._gap.mean else 0.0


class SourceTable:
    """The known sources of one download: at most `known_max`, of which `used_max` at a time."""

    def __init__(
        self, rng: Random, piece_length: int, horizon_s: float, known_max: int, used_max: int
    ) -> None:
        self._rng = rng
        self._piece_length = piece_length
        self._horizon_s = horizon_s
        self._known_max = known_max
        self._used_max = used_max
        self._known: dict[SourceId, Source] = {}
        self._banned: dict[SourceId, None] = {}
        self.used: dict[SourceId, Source] = {}
        """Opening or open."""

    def __iter__(self) -> Iterator[Source]:
        return iter(self._known.values())

    def get(self, source: SourceId) -> Source | None:
        return self._known.get(source)

    def open(self) -> list[Source]:
        return [s for s in self.used.values() if s.phase is Phase.OPEN]

    # -- known sources ----------------------------------------------------------------------------

    def learn(self, source: SourceId, user: UserId, complete: bool) -> Source | None:
        """Add or update a source that the tracker lists. Return None if the table is full."""
        known = self._known.get(source)
        if known is not None:
            known.user = user
            known.complete = complete
            known.listed = True
            if known.phase is Phase.IDLE:
                known.retry_at = 0.0  # at once; the number of failures stays
            return known
        if len(self._known) >= self._known_max and not self._evict(user):
            return None
        known = Source(source, user, complete, Window(self._piece_length, self._horizon_s))
        if source in self._banned:
            known.phase = Phase.BANNED
            known.verdict = Verdict.WRONG
        self._known[source] = known
        return known

    def unlist(self, source: Source) -> None:
        """Remove a source that the tracker no longer lists; keep a used one until it closes."""
        source.listed = False
        if source.phase in (Phase.IDLE, Phase.BANNED):
            del self._known[source.id]

    def _evict(self, user: UserId) -> bool:
        """Make room for a source of ``user``.

        Evicts a source that failed, else one of the user with the most entries, else, if the used
        ones stall and none has given a piece, any unused one.
        """
        idle = [s for s in self._known.values() if s.phase in (Phase.IDLE, Phase.BANNED)]
        if not idle:
            return False
        entries = Counter(s.user for s in self._known.values())
        worst = max(idle, key=lambda s: (s.phase is Phase.BANNED, s.failures, entries[s.user]))
        failed = worst.phase is Phase.BANNED or worst.failures > 0
        crowd = entries[worst.user] > entries[user] + 1
        if not failed and not crowd:
            used = self.used.values()
            if not any(s.stalled for s in used) or any(s.got_pieces for s in used):
                return False
            worst = self._rng.choice(idle)
        del self._known[worst.id]
        return True

    # -- choice of the next one -------------------------------------------------------------------

    def next_to_open(self, now: float) -> Source | None:
        """Return the best source to open, or None if `used_max` sources are in use."""
        if len(self.used) >= self._used_max:
            return None
        return self.best_spare(now)

    def best_spare(self, now: float) -> Source | None:
        """Return the best unused source: of the user with the fewest used ones; ties at random."""
        complete = any(source.complete for source in self.used.values())
        entries = Counter(source.user for source in self.used.values())
        best, best_rank = None, (False, 0, 0, False, 0.0)
        for source in self._known.values():
            if source.phase is not Phase.IDLE or not source.listed or source.retry_at > now:
                continue
            alone = source.complete and not complete
            # Different users first: the devices of one member may all be silent.
            rank = (
                alone,
                -entries[source.user],
                -source.failures - source.silences,
                source.complete,
                self._rng.random(),
            )
            if best is None or rank > best_rank:
                best, best_rank = source, rank
        return best

    def next_retry(self) -> float | None:
        """Return the time at which an unused source may be opened; None if none ever may."""
        waiting = (s.retry_at for s in self._known.values() if s.phase is Phase.IDLE and s.listed)
        first = min(waiting, default=inf)
        return None if first == inf else first

    # -- phases -----------------------------------------------------------------------------------

    def opening(self, source: Source, now: float) -> None:
        source.phase, source.phase_since = Phase.OPENING, now
        self.used[source.id] = source

    def opened(self, source: Source, have: Bitfield | None, now: float) -> None:
        source.phase, source.phase_since = Phase.OPEN, now
        source.have = have
        source.last_progress_at = source.silent_since = now
        source.stall = None
        source.resume_at = 0.0
        source.window.shrink()

    def mark_stalled(self, source: Source, stall_timeout_s: float, now: float) -> None:
        """Record that the source gave no piece for the stall timeout."""
        stall = source.stall
        if stall is None:
            source.stall = Stall(since=now, wait_from=now, trial_at=now + stall_timeout_s)
        else:
            stall.wait_from = now
            stall.trial_at = now + stall_timeout_s * 2.0 ** min(stall.count, 5)
            stall.count += 1
        source.window.shrink()

    def closed(self, source: Source, verdict: Verdict, now: float) -> None:
        """Record that the connection is gone. Its requests must have been requeued before."""
        self.used.pop(source.id, None)
        source.phase, source.phase_since = Phase.IDLE, now
        source.have = None
        source.cancelled.clear()
        source.promised.clear()
        source.verdict = verdict
        if verdict is Verdict.WRONG:
            source.phase = Phase.BANNED
            self._banned[source.id] = None
        elif verdict is Verdict.SILENT:
            source.silences += 1
            source.retry_at = now
        elif verdict not in (Verdict.FINISHED, Verdict.GONE):
            source.retry_at = now + self._backoff_s(source)
        if not source.listed:
            del self._known[source.id]

    def _backoff_s(self, source: Source) -> float:
        source.failures += 1
        wait_s = min(_BACKOFF_FIRST_S * 2.0 ** (source.failures - 1), _BACKOFF_MAX_S)
        return wait_s * (0.5 + self._rng.random())

    # -- judgement --------------------------------------------------------------------------------

    def strike(self, source: Source) -> bool:
        """Count an invalid message; return True once `STRIKES_MAX` are reached."""
        source.strikes += 1
        return source.strikes >= STRIKES_MAX

    def worst(self, now: float, settle_s: float) -> tuple[Source, Verdict] | None:
        """Return the open source that a spare one should replace, with the reason; None if none.

        Stalled sources first, then those far slower than the rest: below a tenth of the mean. The
        only source with the whole content is never given up for slowness: it may be the last one
        that holds some piece.
        """
        settled = [s for s in self.open() if now - s.phase_since > settle_s]
        complete = sum(1 for s in settled if s.have is None)
        judged = [s for s in settled if s.have is not None or complete > 1]
        stalled = [s for s in judged if s.stalled]
        if stalled:
            return min(stalled, key=lambda s: s.waited_from), Verdict.SLOW
        if len(settled) < 3:
            return None
        mean = sum(s.window.rate for s in settled) / len(settled)
        slow = [s for s in judged if s.in_flight and s.window.current_rate(now) < mean / 10]
        if slow:
            return min(slow, key=lambda s: s.window.current_rate(now)), Verdict.SLOW
        idle = [s for s in judged if not s.in_flight and now - s.waited_from > settle_s]
        if idle:
            return min(idle, key=lambda s: s.waited_from), Verdict.USELESS
        return None

    def check_invariants(self) -> None:
        """Raise AssertionError if the table contradicts itself. For tests."""
        assert len(self._known) <= self._known_max
        assert len(self.used) <= self._used_max
        for source in self._known.values():
            assert (source.id in self.used) == (source.phase in (Phase.OPENING, Phase.OPEN))
            assert source.phase is Phase.OPEN or not source.in_flight
            assert (source.phase is Phase.BANNED) == (source.id in self._banned)
            assert source.listed or source.id in self.used
