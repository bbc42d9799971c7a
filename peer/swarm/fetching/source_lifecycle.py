"""Lifecycle of the sources: listed, opened, reviewed, replaced, closed.

Owns: the answer to each event of the tracker or of a source that is not a piece, and the periodic
review. Not here: the sources' records and ranking (see sources), their requests (see requests), the
pieces (see machine).
"""

from __future__ import annotations

from math import inf

from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import (
    HaveMore,
    OnItsWay,
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
_STALL_MAX_S = 60.0
"""A source that stalls again and again for this time is given up."""
_CROWDED_OPEN_S = 2.0
"""Timeout of an open if other sources wait for the place and no used one gives anything."""
_SILENCE_S = 2.0
"""Silence, with requests in flight, after which the driver is asked whether bytes arrive."""
_SILENCE_MAX_S = 10.0
"""Silence, with requests in flight, after which the connection is replaced: a message may be lost.
The limit doubles with each replacement in a row, since the source may serve others first."""
_SILENCE_DOUBLINGS = 2
_STARVED_S = 30.0
"""If no source offers the missing pieces, one that was opened earlier than this is opened again, to
learn what it holds now."""
_GAPS = 4.0
"""In a slow swarm both limits are this many times the longest usual gap between two pieces."""


class SourceLifecycle:
    """Transitions of all sources of one download."""

    def __init__(
        self,
        pieces: Pieces,
        picker: Picker[SourceId],
        sources: SourceTable,
        requests: RequestScheduler,
        out: EffectBuffer,
        settings: DownloadSettings,
    ) -> None:
        self._pieces = pieces
        self._picker = picker
        self._sources = sources
        self._requests = requests
        self._out = out
        self._settings = settings
        self.next_review_at = 0.0
        """Time of the next review."""
        self._replace_at = 0.0
        self._starved_since: float | None = None

    # -- events of the tracker --------------------------------------------------------------------

    def known(self, event: SourceKnown, now: float) -> None:
        if not event.complete:
            self._picker.enable_random_ties()
        if self._sources.learn(event.source, event.user, event.complete) is not None:
            self.open_more(now)

    def gone(self, event: SourceGone, now: float) -> None:
        source = self._sources.get(event.source)
        if source is None:
            return
        self._sources.unlist(source)
        if source.phase is Phase.OPENING or (source.phase is Phase.OPEN and not source.in_flight):
            self.close(source, Verdict.GONE, now)
            self.open_more(now)

    # -- events of a source -----------------------------------------------------------------------

    def opened(self, event: Opened, now: float) -> None:
        source = self._sources.used.get(event.source)
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
        self._sources.opened(source, have, now)
        source.complete = have is None
        self._picker.add_source(source.id, have)
        self._requests.rebalance_buffers(now)
        self._requests.request_more(source, now)

    def have_more(self, event: HaveMore, now: float) -> None:
        source = self._open(event.source)
        if source is None:
            return
        count, states = self._pieces.layout.count, self._pieces.states
        missing, in_flight = False, []
        for index in event.pieces:
            if not 0 <= index < count:
                if self._sources.strike(source):
                    self.close(source, Verdict.WRONG, now)
                    self._requests.request_more_from_all(now)
                    return
            elif self._picker.have_more(source.id, index):
                state = states[index]
                if state == _MISSING:
                    missing = True
                elif state == _IN_FLIGHT:
                    in_flight.append(index)
        if missing:
            self._requests.request_more(source, now, search=False)
        if in_flight:
            self._requests.steal_for(source, in_flight, now)

    def on_its_way(self, event: OnItsWay, now: float) -> None:
        source = self._open(event.source)
        if source is None:
            return
        count = self._pieces.layout.count
        for index in event.pieces:
            if index in source.in_flight or index in source.cancelled:
                self._requests.promised(source, index, now)
            elif not 0 <= index < count and self._sources.strike(source):
                self.close(source, Verdict.WRONG, now)
                self._requests.request_more_from_all(now)
                return

    def busy(self, event: SourceBusy, now: float) -> None:
        source = self._sources.used.get(event.source)
        if source is None:
            return
        if source.phase is Phase.OPENING:
            self.close(source, Verdict.BUSY, now)
            source.retry_at = max(source.retry_at, now + event.retry_after_s)
            self.open_more(now)
            return
        source.resume_at = now + event.retry_after_s
        source.window.shrink()
        self._requests.requeue(source, event.pieces or tuple(source.in_flight))
        self._requests.request_more_from_all(now)

    def refused(self, event: SourceRefused, now: float) -> None:
        source = self._sources.used.get(event.source)
        if source is None:
            return
        source.note = event.why
        self.close(source, Verdict.REFUSED, now)
        if not event.transient:
            source.retry_at = inf
        self.open_more(now)
        self._requests.request_more_from_all(now)

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
            self._picker.has_not(source.id, index)
        self._requests.requeue(source, indexes)
        # A false offer is as bad as an invalid message.
        if not source.got_pieces and self._sources.strike(source):
            self.close(source, Verdict.USELESS, now)
            self.open_more(now)
        self._requests.request_more_from_all(now)

    def lost(self, source_id: SourceId, now: float) -> None:
        source = self._sources.used.get(source_id)
        if source is not None:
            self._drop(source, Verdict.UNREACHABLE, now)
            self.open_more(now)
            self._requests.request_more_from_all(now)

    def moves(self, event: SourceMoves) -> None:
        source = self._open(event.source)
        if source is not None:
            source.moved_at = max(source.moved_at, event.at)
            source.silent_since = max(source.silent_since, event.at)

    def silent_sources(self, now: float) -> list[SourceId]:
        """Return the sources with requests in flight from which nothing has arrived for 2 s."""
        opened = self._sources.open()
        return [s.id for s in opened if s.in_flight and now - s.silent_since > _SILENCE_S]

    def _open(self, source_id: SourceId) -> Source | None:
        source = self._sources.used.get(source_id)
        return source if source is not None and source.phase is Phase.OPEN else None

    # -- opening and closing ----------------------------------------------------------------------

    def open_more(self, now: float) -> None:
        """Open unused sources until `used_max` are in use."""
        if self._requests.finished or self._requests.paused:
            return
        while (source := self._sources.next_to_open(now)) is not None:
            self._sources.opening(source, now)
            self._out.put(Open(source.id))

    def close(self, source: Source, verdict: Verdict, now: float) -> None:
        """Close a source, with a `Close` effect if it is used."""
        if source.phase in (Phase.OPENING, Phase.OPEN):
            self._out.close(source.id, verdict)
        self._drop(source, verdict, now)

    def close_all(self, now: float) -> None:
        """Close all used sources: the download is complete."""
        for source in list(self._sources.used.values()):
            self.close(source, Verdict.FINISHED, now)

    def _drop(self, source: Source, verdict: Verdict, now: float) -> None:
        self._requests.drop_source(source)
        self._picker.remove_source(source.id)
        self._sources.closed(source, verdict, now)

    # -- review -----------------------------------------------------------------------------------

    def due_at(self) -> float | None:
        """Return the time of the next review; None if it would change nothing."""
        if self._sources.used:
            return self.next_review_at
        if self._requests.paused:
            return None
        retry_at = self._sources.next_retry()
        return None if retry_at is None else max(retry_at, self.next_review_at)

    def review_sources(self, now: float) -> None:
        """Time out, replace and reopen sources, and send requests to the idle ones."""
        late_s = now - self.next_review_at if self.next_review_at else 0.0
        self.next_review_at = now + self._settings.review_s
        latency = self._requests.latency
        stall_timeout_s = latency.stall_timeout_s()
        stall_max_s = max(_STALL_MAX_S, _GAPS * latency.long_gap_s())
        open_timeout_s = self._open_timeout(now)
        for source in list(self._sources.used.values()):
            if late_s > _SILENCE_S:
                # This process was suspended: the silence of that time is not the source's.
                source.silent_since = min(now, source.silent_since + late_s)
            if source.phase is Phase.OPENING:
                if now - source.phase_since > open_timeout_s:
                    self.close(source, Verdict.UNREACHABLE, now)
            elif source.in_flight and now - source.silent_since > self._silence_max_s(source):
                self.close(source, Verdict.SILENT, now)
            elif source.in_flight and now - source.waited_from > stall_timeout_s:
                stall = source.stall
                if stall and now - max(stall.since, source.moved_at) > stall_max_s:
                    self.close(source, Verdict.SLOW, now)
                else:
                    self._requests.reassign(source, stall_timeout_s, now)
        self._reopen_if_starved(now)
        self._requests.rebalance_buffers(now)
        if now >= self._replace_at:
            self._replace_at = now + max(_REPLACE_S, latency.gap_s)
            self._replace_worst(now)
        self.open_more(now)
        self._requests.request_more_from_all(now)

    def _open_timeout(self, now: float) -> float:
        """Return the time that a source may take to open.

        It is shorter if `used_max` sources are in use, none of them gave a piece, and others wait.
        """
        used, settings = self._sources.used, self._settings
        if len(used) < settings.used_max or self._sources.best_spare(now) is None:
            return settings.open_timeout_s
        if any(source.got_pieces for source in used.values()):
            return settings.open_timeout_s
        return min(settings.open_timeout_s, _CROWDED_OPEN_S)

    def _silence_max_s(self, source: Source) -> float:
        """Return the silence, with requests in flight, after which a connection is replaced."""
        min_s = _SILENCE_MAX_S * 2.0 ** min(source.silences, _SILENCE_DOUBLINGS)
        return max(min_s, _GAPS * self._requests.latency.long_gap_s())

    def _reopen_if_starved(self, now: float) -> None:
        """Reopen a source if pieces are missing and none is in flight: a `Have` may be lost."""
        requests, pieces = self._requests, self._pieces
        busy = (
            len(requests.inflight) or pieces.verifying_bytes or requests.throttled_until is not None
        )
        if busy or requests.paused or now < requests.suspended_until or not pieces.missing_count:
            self._starved_since = None
            return
        if self._starved_since is None:
            self._starved_since = now
        if now - self._starved_since < _SILENCE_MAX_S:
            return
        stale = [
            source
            for source in self._sources.open()
            if source.have is not None
            and now - source.phase_since > _STARVED_S
            and source.resume_at <= now
        ]
        if stale:
            self._starved_since = now
            self.close(min(stale, key=lambda s: s.phase_since), Verdict.SILENT, now)

    def _replace_worst(self, now: float) -> None:
        if len(self._sources.used) < self._settings.used_max or self._requests.paused:
            return
        if self._sources.best_spare(now) is None:
            return
        settle_s = max(self._settings.settle_s, self._requests.latency.gap_s)
        worst = self._sources.worst(now, settle_s)
        if worst is not None:
            self.close(worst[0], worst[1], now)
