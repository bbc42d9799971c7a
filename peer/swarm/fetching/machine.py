"""State machine of one download: events in, effects out.

Theory of operation. `Download.handle(event, now)` changes the state and returns the effects, which
the driver carries out in order. A `Tick` is due at `next_wakeup`.

A *piece* moves like this (`pieces` holds the states):

- MISSING → IN_FLIGHT: the scheduler requests it. `picker` chooses the piece, `window` bounds the
  bytes in flight of one source; buffers and rate limit bound those of all.
- IN_FLIGHT → VERIFYING: `PieceReceived`, answered with `Verify`. Requests for it at other sources
  are cancelled. From MISSING too, if a cancelled request was answered.
- VERIFYING → HELD: `PieceVerified`. It is announced in a batch. The last one ends the download:
  every source is closed, then `Complete` follows.
- IN_FLIGHT → MISSING: cancelled or requeued, because the source stalled, declined or was lost.
- VERIFYING → MISSING: `PieceCorrupt` bans the source; `PieceUnwritten` suspends requests.
- MISSING ↔ LOCAL → HELD: a piece of zeros, a copy of a held one, or one of a local file is made.
- HELD → MISSING: `mark_missing`, for a piece found damaged. UNWANTED: outside a selection.

A *source* moves IDLE → OPENING → OPEN → IDLE (`source_lifecycle`), or to BANNED for good. While
OPEN it can stall: no piece within the stall timeout moves its requests to other sources. Silence,
not a single byte for 10 s or longer, replaces its connection. An idle source steals requests from
slower ones. In the end game, with nothing missing, a request is sent to a second source instead.

Invariants, for any input from the sources:

- No event of a source raises. An invalid one is discarded and counted; eight ban the source.
- No piece is in two states, and none is IN_FLIGHT without a request at an open source.
- The bytes in flight never exceed the buffers (but one piece is always allowed).
- No request is sent while paused, after the end, to a source that is not OPEN, or a banned one.

Only the driver can cause `LocalProtocolError`: by a result for which no piece waits.

Owns: the course of the download and the verdicts on its pieces. Not here: the sources' connections
(see source_lifecycle), requests (see requests), made pieces (see local_pieces).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, assert_never

from common.errors import LocalProtocolError
from peer.swarm.fetching.effects import Announcements, EffectBuffer
from peer.swarm.fetching.events import (
    Announce,
    Complete,
    Discard,
    DiscardReason,
    DownloadEffect,
    DownloadEvent,
    HaveMore,
    HeadEvent,
    OnItsWay,
    Opened,
    Paused,
    PieceCorrupt,
    PieceMade,
    PieceNotFound,
    PieceNotMade,
    PieceReceived,
    PiecesRefused,
    PieceUnwritten,
    PieceVerified,
    Resumed,
    SourceBusy,
    SourceClosed,
    SourceGone,
    SourceId,
    SourceKnown,
    SourceMoves,
    SourceRefused,
    SourceUnreachable,
    Tick,
    Verdict,
    Verify,
)
from peer.swarm.fetching.local_pieces import Alike, LocalPieces
from peer.swarm.fetching.picker import Picker
from peer.swarm.fetching.progress import Progress, SourceProgress
from peer.swarm.fetching.requests import RequestScheduler
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.fetching.source_lifecycle import SourceLifecycle
from peer.swarm.fetching.sources import Phase, Source, SourceTable
from peer.swarm.pieces import Bitfield, PieceLayout, Pieces, PieceState
from peer.swarm.rate_limit import RateLimit

if TYPE_CHECKING:
    from random import Random

_MISSING = int(PieceState.MISSING)
_IN_FLIGHT = int(PieceState.IN_FLIGHT)


class Download:
    """The machine. `have` are the pieces held already; it is copied. The driver looks for those of
    `planned_reuse` in local files, and reports each. `wanted`: a selection of pieces, or None."""

    def __init__(
        self,
        layout: PieceLayout,
        rng: Random,
        *,
        have: Bitfield | None = None,
        settings: DownloadSettings | None = None,
        limit: RateLimit | None = None,
        alike: Alike | None = None,
        planned_reuse: Iterable[int] = (),
        wanted: Iterable[int] | None = None,
    ) -> None:
        self.settings = settings = DownloadSettings() if settings is None else settings
        self.layout = layout
        self.pieces = Pieces(layout, have, wanted)
        self._picker: Picker[SourceId] = Picker(self.pieces.states, rng, settings.order)
        self._sources = SourceTable(
            rng,
            layout.piece_length,
            settings.horizon_s,
            settings.known_max,
            settings.used_max,
        )
        self._out = EffectBuffer()
        self._requests = RequestScheduler(
            self.pieces,
            self._picker,
            self._sources,
            self._out,
            RateLimit() if limit is None else limit,
            settings,
        )
        self._lifecycle = SourceLifecycle(
            self.pieces, self._picker, self._sources, self._requests, self._out, settings
        )
        self._announcements = Announcements(settings.announce_batch_s)
        self._local = LocalPieces(
            self.pieces,
            self._picker,
            self._out,
            Alike() if alike is None else alike,
            settings.make_bytes,
            settings.storage_pause_s,
            planned_reuse,
        )
        self._verifying: dict[int, SourceId] = {}
        """Source of each piece in state VERIFYING."""
        self._buffer_freed = False  # set by a verified piece, for sources that wait for buffers
        self._recalled = False  # set by pieces that are to be fetched after all
        self._duplicate_bytes = 0
        self._corrupt_pieces = 0

    # -- the machine ------------------------------------------------------------------------------

    def handle(self, event: DownloadEvent, now: float) -> list[DownloadEffect]:
        """Apply one event and return the resulting effects, in execution order."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[DownloadEvent], now: float) -> list[DownloadEffect]:
        """Apply events that arrived together and return the resulting effects."""
        for event in events:
            self._apply(event, now)
        return self._settle(now)

    def _apply(self, event: DownloadEvent, now: float) -> None:
        match event:
            case PieceReceived():
                self._piece_received(event, now)
            case PieceVerified():
                self._piece_verified(event, now)
            case HaveMore():
                self._lifecycle.have_more(event, now)
            case OnItsWay():
                self._lifecycle.on_its_way(event, now)
            case Tick():
                pass
            case Opened():
                self._lifecycle.opened(event, now)
            case SourceKnown():
                self._lifecycle.known(event, now)
            case SourceGone():
                self._lifecycle.gone(event, now)
            case PieceCorrupt():
                self._piece_corrupt(event, now)
            case PieceUnwritten():
                self._piece_unwritten(event, now)
            case PieceMade():
                self._piece_made(event)
            case PieceNotMade():
                if not self._local.not_made(event.index, now):
                    raise LocalProtocolError(f"piece {event.index} was not being made")
            case PieceNotFound():
                self._recalled |= self._local.not_found(event.index)
            case SourceBusy():
                self._lifecycle.busy(event, now)
            case SourceRefused():
                self._lifecycle.refused(event, now)
            case PiecesRefused():
                self._lifecycle.pieces_refused(event, now)
            case HeadEvent():
                self._recalled |= self._picker.heads.apply(event)
            case SourceUnreachable() | SourceClosed():
                self._lifecycle.lost(event.source, now)
            case SourceMoves():
                self._lifecycle.moves(event)
            case Paused():
                self._requests.pause()
            case Resumed():
                self._requests.paused = False
                self._lifecycle.open_more(now)
                self._requests.request_more_from_all(now)
            case _:
                assert_never(event)

    def next_wakeup(self, now: float) -> float | None:
        """Return the time of the next `Tick`; None if only events can change anything."""
        due = self._announcements.due_at()
        if not self._requests.finished:
            local = None if self._requests.paused else self._local.due_at()
            for other in (self._requests.throttled_until, self._lifecycle.due_at(), local):
                if other is not None and (due is None or other < due):
                    due = other
        return None if due is None else max(due, now)

    def silent_sources(self, now: float) -> list[SourceId]:
        """Return the silent sources with requests in flight.

        The driver reports with `SourceMoves` whether bytes of them arrive.
        """
        return self._lifecycle.silent_sources(now)

    def mark_missing(self, indexes: Iterable[int], now: float) -> list[DownloadEffect]:
        """Fetch held pieces again that turned out damaged or gone."""
        for index in indexes:
            if self.pieces.state(index) is PieceState.HELD:
                self.pieces.forget(index)
                self._announcements.remove(index)
                if not self._local.lost(index):
                    self._picker.requeue((index,))
        if not self.pieces.complete():
            self._requests.finished = False
            self._lifecycle.next_review_at = now
        return self._settle(now)

    def _settle(self, now: float) -> list[DownloadEffect]:
        if self.pieces.complete():
            if not self._requests.finished:
                self._finish(now)
        else:
            if not self._requests.paused:
                self._local.step(now)
            if self._recalled:
                self._recalled = False
                self._requests.request_more_from_all(now)
            if self._buffer_freed:
                self._buffer_freed = False
                self._requests.resume_waiting(now)
            self._requests.resume_throttled(now)
            if now >= self._lifecycle.next_review_at:
                self._lifecycle.review_sources(now)
                self._announcements.batch_s = self._requests.announce_s
        if batch := self._announcements.take(now):
            self._out.put(Announce(batch))
        return self._out.take()

    def _finish(self, now: float) -> None:
        self._requests.finish()
        self._lifecycle.close_all(now)
        if batch := self._announcements.take(now, at_once=True):
            self._out.put(Announce(batch))
        self._out.put_last(Complete())

    # -- pieces -----------------------------------------------------------------------------------

    def _piece_received(self, event: PieceReceived, now: float) -> None:
        index, size = event.index, event.size
        source = self._sources.used.get(event.source)
        if source is None or source.phase is not Phase.OPEN:
            known = self._sources.get(event.source)
            banned = known is not None and known.phase is Phase.BANNED
            why = DiscardReason.BANNED if banned else DiscardReason.UNREQUESTED
            self._out.put(Discard(event.source, index, why))
            return
        requested = index in source.in_flight
        if not requested and index not in source.cancelled:
            self._reject(source, index, DiscardReason.UNREQUESTED, now)
            return
        if size != self.layout.size_of(index):
            if requested:
                self._requests.requeue(source, (index,))
            source.cancelled.discard(index)
            self._reject(source, index, DiscardReason.WRONG_SIZE, now)
            return
        self._requests.arrived(source, index, size, now)
        if self._requests.paused:
            self._out.put(Discard(source.id, index, DiscardReason.PAUSED))
        elif self.pieces.states[index] in (_MISSING, _IN_FLIGHT):
            self.pieces.arrived(index)
            self._verifying[index] = source.id
            source.got_pieces += 1
            source.got_bytes += size
            source.meter.add(size, now)
            self._out.put(Verify(source.id, index))
            losers = tuple(self._requests.inflight.owners(index))
            for other in losers:
                self._requests.cancel(other, index)
            for other in losers:
                self._requests.request_more(other, now)
        else:
            self._duplicate_bytes += size
            self._out.put(Discard(source.id, index, DiscardReason.DUPLICATE))
        self._requests.request_more(source, now)

    def _reject(self, source: Source, index: int, why: DiscardReason, now: float) -> None:
        self._out.put(Discard(source.id, index, why))
        if self._sources.strike(source):
            self._lifecycle.close(source, Verdict.WRONG, now)
        else:
            self._requests.request_more_from_all(now)

    def _verdict_on(self, index: int, source: SourceId) -> None:
        if self._verifying.get(index) != source:
            raise LocalProtocolError(f"piece {index} was not being verified for that source")
        del self._verifying[index]

    def _piece_verified(self, event: PieceVerified, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self.pieces.mark_verified(event.index)
        self._picker.fetched(event.index)
        self._requests.meter.add(self.layout.size_of(event.index), now)
        self._announcements.add(event.index)
        self._buffer_freed = True
        self._local.held(event.index)

    def _piece_made(self, event: PieceMade) -> None:
        if not self._local.made(event.index):
            raise LocalProtocolError(f"piece {event.index} was not being made")
        self._picker.fetched(event.index)
        self._announcements.add(event.index)

    def _piece_corrupt(self, event: PieceCorrupt, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self._corrupt_pieces += 1
        self.pieces.release(event.index)
        self._picker.requeue((event.index,))
        source = self._sources.get(event.source)
        if source is not None and source.phase is not Phase.BANNED:
            self._lifecycle.close(source, Verdict.WRONG, now)
        self._requests.request_more_from_all(now)

    def _piece_unwritten(self, event: PieceUnwritten, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self.pieces.release(event.index)
        self._picker.requeue((event.index,))
        self._requests.suspended_until = now + self.settings.storage_pause_s

    def planned_reuse(self) -> list[int]:
        return sorted(self._local.planned_reuse)

    # -- for display and tests --------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every wanted piece is held."""
        return self.pieces.complete()

    def progress(self, now: float) -> Progress:
        """Return a snapshot for display."""
        pieces, rate = self.pieces, self._requests.meter.rate(now)
        left = pieces.wanted_bytes - pieces.held_bytes
        return Progress(
            pieces=self.layout.count,
            held_pieces=pieces.held.count,
            size=pieces.wanted_bytes,
            held_bytes=pieces.held_bytes,
            rate=rate,
            eta_s=left / rate if rate > 1.0 else (0.0 if not left else None),
            paused=self._requests.paused,
            throttled=self._requests.throttled_until is not None,
            complete=pieces.complete(),
            verifying_bytes=pieces.verifying_bytes,
            duplicate_bytes=self._duplicate_bytes,
            corrupt_pieces=self._corrupt_pieces,
            sources=tuple(SourceProgress.of(s, now) for s in self._sources),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError if the state contradicts itself. For tests: O(pieces × sources)."""
        pieces, inflight = self.pieces, self._requests.inflight
        pieces.check_invariants()
        self._sources.check_invariants()
        inflight.check_invariants(self._sources.open())
        for index, state in enumerate(pieces.states):
            assert (state == PieceState.IN_FLIGHT) == bool(inflight.owners(index))
            assert (state == PieceState.VERIFYING) == (index in self._verifying)
        self._local.check_invariants(pieces.states)
        for source in self._sources.open():
            assert all(source.offers(i) for i in source.in_flight)
        assert inflight.total_bytes <= max(self.settings.buffer_bytes, self.layout.piece_length)
        assert not (self._requests.paused and inflight.total_bytes)
        assert not (self._requests.finished and (inflight.total_bytes or self._sources.used))
