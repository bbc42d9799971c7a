"""Whom a download fetches from, and what it thinks of them.

Owns what is known of each source, the choice of whom to open next and whom to give up, and how long
to leave a failed one alone. Which piece is asked of whom is decided in `download`.

A source is patient work: it is judged by what it gave, and by its silence while it owes something.
What is normal is learnt from all of them together (`Pace`: mean and three standard deviations of
the times from request to piece, and from piece to piece), so that a slow network does not look like
a dead one. Only a piece that is wrong is evidence of malice, and only that bans at once.
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
"""Messages that make no sense before a source counts as hostile."""

_BACKOFF_FIRST_S = 1.0
_BACKOFF_MAX_S = 60.0
_PATIENCE_MIN_S = 1.0
_PATIENCE_MAX_S = 4.0
_PATIENCE_FIRST_S = 15.0
_GAP_MAX_S = 120.0
"""Who gives less than a piece in so long is not waited for, whatever the others do."""


@unique
class Phase(Enum):
    """Where the connection to a source stands."""

    IDLE = "idle"
    OPENING = "opening"
    OPEN = "open"
    BANNED = "banned"


@dataclass(slots=True, eq=False)
class Source:
    """One source of one download. The download writes these fields; the roster judges by them."""

    id: SourceId
    user: UserId
    complete: bool
    window: Window
    listed: bool = True
    """The tracker believes it online and offering."""
    phase: Phase = Phase.IDLE
    phase_since: float = 0.0
    have: Bitfield | None = None
    """While open: what it holds; None is everything."""
    asked: dict[int, float] = field(default_factory=dict)
    """Pieces asked for and neither come nor withdrawn, with the time of asking, oldest first."""
    asked_bytes: int = 0
    withdrawn: set[int] = field(default_factory=set)
    """Requests that were cancelled: their pieces may still come."""
    progress_at: float = 0.0
    """When it last gave something, or was asked after having owed nothing, or was found silent."""
    owes_since: float = 0.0
    """The same, but for being found silent: since when it works on its next piece."""
    quiet_since: float = 0.0
    """While it is asked for something: since when nothing at all came of it."""
    moved_at: float = 0.0
    """When bytes of it were last seen to come in, whole pieces or not."""
    silences: int = 0
    """How often its connection began anew for that, since it last gave a piece."""
    stalled: bool = False
    """It let its requests lie for longer than is normal: it is asked for one piece at a time, and
    only for what nobody else offers, or as a trial."""
    stalls: int = 0
    """How often in a row."""
    silent_since: float = 0.0
    """When it stalled first of these times."""
    trial_at: float = 0.0
    """When it is asked, while stalled, for a piece that others offer as well."""
    resume_at: float = 0.0
    """It is busy until then: open, and not asked."""
    retry_at: float = 0.0
    """It is not opened before."""
    failures: int = 0
    """In a row, since it last gave a piece."""
    strikes: int = 0
    got_pieces: int = 0
    got_bytes: int = 0
    meter: RateMeter = field(default_factory=RateMeter)
    verdict: Verdict | None = None
    """Why it was last closed."""
    note: str = ""
    """What it said when it refused, for people."""

    def offers(self, index: int) -> bool:
        return self.have is None or index in self.have


class MeanDeviation:
    """Mean and deviation of a time, over the last of it. Seconds."""

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

    def late(self) -> float:
        """What is hardly ever longer: the mean and three deviations; infinite without a sample.

        Few samples say little about the deviation: it is thought no less than that of their mean
        would be if it were as large as the mean itself.
        """
        if not self._count:
            return inf
        return self.mean + 3.0 * max(sqrt(self._variance), self.mean / sqrt(self._count))


class LatencyStats:
    """How long sources take, of all of them together: what is normal in this swarm."""

    __slots__ = ("_gap", "_latency")

    def __init__(self) -> None:
        self._latency = MeanDeviation()
        """From request to piece."""
        self._gap = MeanDeviation()
        """From piece to piece of one source, while it owes any."""

    def came(self, gap_s: float, latency_s: float | None) -> None:
        """A piece came so long after the source's last; `latency_s` is None if it was cancelled."""
        # Longer and longer gaps are believed, a single one that is out of all proportion is not.
        late_s = 4.0 * max(self._gap.late(), _PATIENCE_MIN_S)
        self._gap.add(min(gap_s, late_s if self._gap.mean else _PATIENCE_FIRST_S))
        if latency_s is not None:
            self._latency.add(latency_s)

    @property
    def gap_s(self) -> float:
        """The mean time from piece to piece of one source; 0 while nothing came."""
        return self._gap.mean

    def stall_timeout_s(self) -> float:
        """Seconds of silence after which a source that owes something counts as stalled.

        A source that is frozen is to be noticed within some seconds, however long its queue is; but
        where links are so slow that those who work are silent for as long, silence means nothing.
        """
        if not self._gap.mean:
            return _PATIENCE_FIRST_S  # nobody gave anything yet: it is not this one that is silent
        quick = min(max(self._latency.late(), _PATIENCE_MIN_S), _PATIENCE_MAX_S)
        return max(quick, self.long_gap())

    def long_gap(self) -> float:
        """A gap that is hardly ever longer, within reason; 0 while nothing came."""
        return min(self._gap.late(), _GAP_MAX_S) if self._gap.mean else 0.0


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

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Source]:
        return iter(self._known.values())

    def get(self, source: SourceId) -> Source | None:
        return self._known.get(source)

    def open(self) -> list[Source]:
        return [s for s in self.used.values() if s.phase is Phase.OPEN]

    # -- who is known -----------------------------------------------------------------------------

    def learn(self, source: SourceId, user: UserId, complete: bool) -> Source | None:
        """The tracker lists a source. None when there is no place for it."""
        known = self._known.get(source)
        if known is not None:
            known.user = user
            known.complete = complete
            known.listed = True
            if known.phase is Phase.IDLE:
                known.retry_at = 0.0  # at once; how often it failed is kept in mind
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
        """The tracker says that it is gone. One that still gives is kept while it does."""
        source.listed = False
        if source.phase in (Phase.IDLE, Phase.BANNED):
            del self._known[source.id]

    def _evict(self, user: UserId) -> bool:
        """Make place for a source of ``user``: of one that failed, else of the user who has most
        places, else, while those in use are silent, of any that is unused."""
        idle = [s for s in self._known.values() if s.phase in (Phase.IDLE, Phase.BANNED)]
        if not idle:
            return False
        places = Counter(s.user for s in self._known.values())
        worst = max(idle, key=lambda s: (s.phase is Phase.BANNED, s.failures, places[s.user]))
        failed = worst.phase is Phase.BANNED or worst.failures > 0
        crowd = places[worst.user] > places[user] + 1
        if not failed and not crowd:
            used = self.used.values()
            if not any(s.stalled for s in used) or any(s.got_pieces for s in used):
                return False
            worst = self._rng.choice(idle)
        del self._known[worst.id]
        return True

    # -- whom to use ------------------------------------------------------------------------------

    def next_to_open(self, now: float) -> Source | None:
        """The best source to open, if there is place for one more."""
        if len(self.used) >= self._used_max:
            return None
        return self.best_spare(now)

    def best_spare(self, now: float) -> Source | None:
        """The known and unused source that promises most, of a user who is used least; equals at
        random."""
        complete = any(source.complete for source in self.used.values())
        places = Counter(source.user for source in self.used.values())
        best, best_rank = None, (False, 0, 0, False, 0.0)
        for source in self._known.values():
            if source.phase is not Phase.IDLE or not source.listed or source.retry_at > now:
                continue
            alone = source.complete and not complete
            # Different users first: the devices of one member may all be silent.
            rank = (
                alone,
                -places[source.user],
                -source.failures - source.silences,
                source.complete,
                self._rng.random(),
            )
            if best is None or rank > best_rank:
                best, best_rank = source, rank
        return best

    def next_retry(self) -> float | None:
        """When an unused source may be tried again; None when no time is set."""
        waiting = (s.retry_at for s in self._known.values() if s.phase is Phase.IDLE and s.listed)
        first = min(waiting, default=inf)
        return None if first == inf else first

    def opening(self, source: Source, now: float) -> None:
        source.phase, source.phase_since = Phase.OPENING, now
        self.used[source.id] = source

    def opened(self, source: Source, have: Bitfield | None, now: float) -> None:
        source.phase, source.phase_since = Phase.OPEN, now
        source.have = have
        source.progress_at = source.quiet_since = now
        source.stalled = False
        source.stalls = 0
        source.resume_at = 0.0
        source.window.shrink()

    def stall(self, source: Source, patience_s: float, now: float) -> None:
        """It has been silent for too long."""
        source.stalled = True
        if not source.stalls:
            source.silent_since = now
        source.trial_at = now + patience_s * 2.0 ** min(source.stalls, 5)
        source.stalls += 1
        source.window.shrink()

    def closed(self, source: Source, verdict: Verdict, now: float) -> None:
        """The connection is gone. Its requests must have been taken back before."""
        self.used.pop(source.id, None)
        source.phase, source.phase_since = Phase.IDLE, now
        source.have = None
        source.withdrawn.clear()
        source.verdict = verdict
        if verdict is Verdict.WRONG:
            source.phase = Phase.BANNED
            self._banned[source.id] = None
        elif verdict is Verdict.SILENT:
            source.silences += 1
            source.retry_at = now
        elif verdict not in (Verdict.FINISHED, Verdict.GONE):
            source.retry_at = now + self._backoff(source)
        if not source.listed:
            del self._known[source.id]

    def _backoff(self, source: Source) -> float:
        source.failures += 1
        wait_s = min(_BACKOFF_FIRST_S * 2.0 ** (source.failures - 1), _BACKOFF_MAX_S)
        return wait_s * (0.5 + self._rng.random())

    # -- judgement --------------------------------------------------------------------------------

    def strike(self, source: Source) -> bool:
        """It sent something senseless; True when that was once too often."""
        source.strikes += 1
        return source.strikes >= STRIKES_MAX

    def worst(self, now: float, settle_s: float) -> tuple[Source, Verdict] | None:
        """The open source that a spare one should replace, if any deserves it.

        Stalled ones first, then those far slower than the rest: below a tenth of the mean. The only
        source with the whole content is never given up for being slow: it may be the last to have
        some piece.
        """
        settled = [s for s in self.open() if now - s.phase_since > settle_s]
        complete = sum(1 for s in settled if s.have is None)
        judged = [s for s in settled if s.have is not None or complete > 1]
        stalled = [s for s in judged if s.stalled]
        if stalled:
            return min(stalled, key=lambda s: s.progress_at), Verdict.SLOW
        if len(settled) < 3:
            return None
        mean = sum(s.window.rate for s in settled) / len(settled)
        slow = [s for s in judged if s.asked and s.window.current_rate(now) < mean / 10]
        if slow:
            return min(slow, key=lambda s: s.window.current_rate(now)), Verdict.SLOW
        idle = [s for s in judged if not s.asked and now - s.progress_at > settle_s]
        if idle:
            return min(idle, key=lambda s: s.progress_at), Verdict.USELESS
        return None

    def check_invariants(self) -> None:
        """Raise AssertionError when the books do not agree. For tests."""
        assert len(self._known) <= self._known_max
        assert len(self.used) <= self._used_max
        for source in self._known.values():
            assert (source.id in self.used) == (source.phase in (Phase.OPENING, Phase.OPEN))
            assert source.phase is Phase.OPEN or not source.asked
            assert (source.phase is Phase.BANNED) == (source.id in self._banned)
            assert source.listed or source.id in self.used
