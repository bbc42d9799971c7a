"""The life of each source of a download: listed, opened, heard, judged, closed.

Owns what follows from what the tracker and the sources say of themselves. What is thought of a
source is kept in `sources`, what is asked of it in `demand`; the pieces that come are `download`'s.
"""

from __future__ import annotations

from math import inf

from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import (
    HaveMore,
    Open,
    Opened,
    PiecesRefused,
    SourceBusy,
    SourceGone,
    SourceId,
    SourceKnown,
    SourceMoves,
    SourceRefused,
    Verdict,
)
from peer.swarm.fetching.picker import Picker
from peer.swarm.fetching.requests import RequestScheduler
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.fetching.sources import Phase, Source, SourceTable
from peer.swarm.pieces import Bitfield, Pieces, PieceState

_MISSING = int(PieceState.MISSING)
_IN_FLIGHT = int(PieceState.IN_FLIGHT)
_REPLACE_S = 1.0
_SILENT_MAX_S = 60.0
"""A source that was found silent again and again for so long is given up."""
_CROWDED_OPEN_S = 2.0
"""To open a source, where others wait for its place and none gives anything."""
_QUIET_S = 2.0
"""When it is looked at whether bytes come in from who owes something."""
_QUIET_MAX_S = 10.0
"""Nothing at all came for so long from a source that owes something: a message may be lost, and its
connection begins anew. Twice as long the next time, for it may serve others first."""
_QUIET_DOUBLINGS = 2
_STARVED_S = 30.0
"""Nobody offers what is missing: who was opened before that long is asked anew what it holds."""
_GAPS = 4.0
"""In a slow swarm: so many times what is long there between two pieces of a source."""


class SourceLifecycle:
    """The sources of one download, as connections."""

    def __init__(
        self,
        pieces: Pieces,
        picker: Picker[SourceId],
        roster: SourceTable,
        demand: RequestScheduler,
        out: EffectBuffer,
        settings: DownloadSettings,
    ) -> None:
        self._pieces = pieces
        self._picker = picker
        self._roster = roster
        self._demand = demand
        self._out = out
        self._settings = settings
        self.next_review_at = 0.0
        """When sources are judged next."""
        self._replace_at = 0.0
        self._starved_since: float | None = None

    # -- what the tracker says --------------------------------------------------------------------

    def known(self, event: SourceKnown, now: float) -> None:
        if not event.complete:
            self._picker.enable_random_ties()
        if self._roster.learn(event.source, event.user, event.complete) is not None:
            self.open_more(now)

    def gone(self, event: SourceGone, now: float) -> None:
        source = self._roster.get(event.source)
        if source is None:
            return
        self._roster.unlist(source)
        if source.phase is Phase.OPENING or (source.phase is Phase.OPEN and not source.asked):
            self.close(source, Verdict.GONE, now)
            self.open_more(now)

    # -- what a source says -----------------------------------------------------------------------

    def opened(self, event: Opened, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None or source.phase is not Phase.OPENING:
            return
        have = event.have
        if have is not None and len(have) != self._pieces.layout.count:
            source.note = "its bitfield has another length than the content"
            self.close(source, Verdict.WRONG, now)
            self.open_more(now)
            return
        if have is not None and have.complete():
            have = None
        if have is not None:
            self._picker.enable_random_ties()
        self._roster.opened(source, have, now)
        source.complete = have is None
        self._picker.add_source(source.id, have)
        self._demand.rebalance_buffers(now)
        self._demand.request_more(source, now)

    def have_more(self, event: HaveMore, now: float) -> None:
        source = self._open(event.source)
        if source is None:
            return
        count, states = self._pieces.layout.count, self._pieces.states
        missing, waiting = False, []
        for index in event.pieces:
            if not 0 <= index < count:
                if self._roster.strike(source):
                    self.close(source, Verdict.WRONG, now)
                    self._demand.request_more_from_all(now)
                    return
            elif self._picker.have_more(source.id, index):
                state = states[index]
                if state == _MISSING:
                    missing = True
                elif state == _IN_FLIGHT:
                    waiting.append(index)
        if missing:
            self._demand.request_more(source, now, search=False)
        if waiting:
            self._demand.offer_relief(source, waiting, now)

    def busy(self, event: SourceBusy, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None:
            return
        if source.phase is Phase.OPENING:
            self.close(source, Verdict.BUSY, now)
            source.retry_at = max(source.retry_at, now + event.retry_after_s)
            self.open_more(now)
            return
        source.resume_at = now + event.retry_after_s
        source.window.shrink()
        self._demand.take_back(source, event.pieces or tuple(source.asked))
        self._demand.request_more_from_all(now)

    def refused(self, event: SourceRefused, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None:
            return
        source.note = event.why
        self.close(source, Verdict.REFUSED, now)
        if not event.transient:
            source.retry_at = inf
        self.open_more(now)
        self._demand.request_more_from_all(now)

    def pieces_refused(self, event: PiecesRefused, now: float) -> None:
        source = self._open(event.source)
        if source is None:
            return
        count = self._pieces.layout.count
        indexes = [i for i in event.pieces if 0 <= i < count]
        if source.have is None:
            source.have = Bitfield.full(count)
            self._picker.add_source(source.id, source.have)
        source.complete = False
        for index in indexes:
            self._picker.have_not(source.id, index)
        self._demand.take_back(source, indexes)
        # A source that offers what it has not got is no better than one that sends nonsense.
        if not source.got_pieces and self._roster.strike(source):
            self.close(source, Verdict.USELESS, now)
            self.open_more(now)
        self._demand.request_more_from_all(now)

    def lost(self, source_id: SourceId, now: float) -> None:
        source = self._roster.used.get(source_id)
        if source is not None:
            self._drop(source, Verdict.UNREACHABLE, now)
            self.open_more(now)
            self._demand.request_more_from_all(now)

    def moves(self, event: SourceMoves) -> None:
        source = self._open(event.source)
        if source is not None:
            source.moved_at = max(source.moved_at, event.at)
            source.quiet_since = max(source.quiet_since, event.at)

    def quiet(self, now: float) -> list[SourceId]:
        """Those that owe something, and of which nothing came for a while."""
        return [s.id for s in self._roster.open() if s.asked and now - s.quiet_since > _QUIET_S]

    def _open(self, source_id: SourceId) -> Source | None:
        source = self._roster.used.get(source_id)
        return source if source is not None and source.phase is Phase.OPEN else None

    # -- opening and closing ----------------------------------------------------------------------

    def open_more(self, now: float) -> None:
        """Open spare sources while there is place for them."""
        if self._demand.finished or self._demand.paused:
            return
        while (source := self._roster.next_to_open(now)) is not None:
            self._roster.opening(source, now)
            self._out.put(Open(source.id))

    def close(self, source: Source, verdict: Verdict, now: float) -> None:
        """Give a source up, telling the shell."""
        if source.phase in (Phase.OPENING, Phase.OPEN):
            self._out.close(source.id, verdict)
        self._drop(source, verdict, now)

    def close_all(self, now: float) -> None:
        """Nothing is needed of anybody any longer."""
        for source in list(self._roster.used.values()):
            self.close(source, Verdict.FINISHED, now)

    def _drop(self, source: Source, verdict: Verdict, now: float) -> None:
        self._demand.forget(source)
        self._picker.remove_source(source.id)
        self._roster.closed(source, verdict, now)

    # -- judging ----------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """When `review_sources` should be called; None when it would change nothing."""
        if self._roster.used:
            return self.next_review_at
        if self._demand.paused:
            return None
        retry_at = self._roster.next_retry()
        return None if retry_at is None else max(retry_at, self.next_review_at)

    def review_sources(self, now: float) -> None:
        """Judge the sources, replace the worst, and give the idle ones something to do."""
        late_s = now - self.next_review_at if self.next_review_at else 0.0
        self.next_review_at = now + self._settings.look_s
        pace = self._demand.pace
        patience_s = pace.stall_timeout_s()
        silent_max_s = max(_SILENT_MAX_S, _GAPS * pace.long_gap())
        open_timeout_s = self._open_timeout(now)
        for source in list(self._roster.used.values()):
            if late_s > _QUIET_S:
                source.quiet_since = min(now, source.quiet_since + late_s)  # we were, not they
            if source.phase is Phase.OPENING:
                if now - source.phase_since > open_timeout_s:
                    self.close(source, Verdict.UNREACHABLE, now)
            elif source.asked and now - source.quiet_since > self._quiet_max_s(source):
                self.close(source, Verdict.SILENT, now)
            elif source.asked and now - source.progress_at > patience_s:
                silent_since = max(source.silent_since, source.moved_at)
                if source.stalls and now - silent_since > silent_max_s:
                    self.close(source, Verdict.SLOW, now)
                else:
                    self._demand.reassign(source, patience_s, now)
        self._ask_again_what_is_held(now)
        self._demand.rebalance_buffers(now)
        if now >= self._replace_at:
            self._replace_at = now + max(_REPLACE_S, pace.gap_s)
            self._replace_worst(now)
        self.open_more(now)
        self._demand.request_more_from_all(now)

    def _open_timeout(self, now: float) -> float:
        """How long a source may take to open: less where all places are taken by sources that gave
        nothing while others wait."""
        used, settings = self._roster.used, self._settings
        if len(used) < settings.used_max or self._roster.best_spare(now) is None:
            return settings.open_timeout_s
        if any(source.got_pieces for source in used.values()):
            return settings.open_timeout_s
        return min(settings.open_timeout_s, _CROWDED_OPEN_S)

    def _quiet_max_s(self, source: Source) -> float:
        """For how long nothing may come of a source that owes something."""
        at_least_s = _QUIET_MAX_S * 2.0 ** min(source.silences, _QUIET_DOUBLINGS)
        return max(at_least_s, _GAPS * self._demand.pace.long_gap())

    def _ask_again_what_is_held(self, now: float) -> None:
        """Nobody is asked for anything, and pieces are missing: a `have` may have been lost."""
        demand, pieces = self._demand, self._pieces
        busy = len(demand.flights) or pieces.verifying_bytes or demand.throttled_until is not None
        if busy or demand.paused or now < demand.quiet_until or not pieces.missing_count:
            self._starved_since = None
            return
        if self._starved_since is None:
            self._starved_since = now
        if now - self._starved_since < _QUIET_MAX_S:
            return
        stale = [
            source
            for source in self._roster.open()
            if source.have is not None
            and now - source.phase_since > _STARVED_S
            and source.resume_at <= now
        ]
        if stale:
            self._starved_since = now
            self.close(min(stale, key=lambda s: s.phase_since), Verdict.SILENT, now)

    def _replace_worst(self, now: float) -> None:
        if len(self._roster.used) < self._settings.used_max or self._demand.paused:
            return
        if self._roster.best_spare(now) is None:
            return
        settle_s = max(self._settings.settle_s, self._demand.pace.gap_s)
        worst = self._roster.worst(now, settle_s)
        if worst is not None:
            self.close(worst[0], worst[1], now)
