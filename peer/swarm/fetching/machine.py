"""The fetching of one content: what becomes of the pieces that come, and when it is done.

Owns the course of a download and the way of each piece from its coming to its being held. The life
of the sources is `contacts`', what is asked of whom is `demand`'s.

`Download.handle(event, now)` returns the effects that the shell carries out. Nothing a source
sends can make it fail: what makes no sense is dropped and counted. What only the shell can get
wrong (a piece verified that was never to be verified) raises `LocalProtocolError`.
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
    Opened,
    Paused,
    PieceCorrupt,
    PieceMade,
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
from peer.swarm.fetching.local_pieces import Alike, Local
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
    """The machine. `have` is what is held already, and is copied."""

    def __init__(
        self,
        layout: PieceLayout,
        rng: Random,
        *,
        have: Bitfield | None = None,
        settings: DownloadSettings | None = None,
        limit: RateLimit | None = None,
        alike: Alike | None = None,
    ) -> None:
        self.settings = settings = DownloadSettings() if settings is None else settings
        self.layout = layout
        self.pieces = Pieces(layout, have)
        self._picker: Picker[SourceId] = Picker(self.pieces.states, rng, settings.order)
        self._roster = SourceTable(
            rng,
            layout.piece_length,
            settings.horizon_s,
            settings.known_max,
            settings.used_max,
        )
        self._out = EffectBuffer()
        self._demand = RequestScheduler(
            self.pieces,
            self._picker,
            self._roster,
            self._out,
            RateLimit() if limit is None else limit,
            settings,
        )
        self._contacts = SourceLifecycle(
            self.pieces, self._picker, self._roster, self._demand, self._out, settings
        )
        self._announcements = Announcements(settings.announce_batch_s)
        self._local = Local(
            self.pieces,
            self._picker,
            self._out,
            Alike() if alike is None else alike,
            settings.make_bytes,
            settings.storage_pause_s,
        )
        self._verifying: dict[int, SourceId] = {}
        """Which source each piece in state verifying came from."""
        self._room_made = False
        """Whether pieces were verified since somebody was last asked for more."""
        self._duplicate_bytes = 0
        self._corrupt_pieces = 0

    # -- the machine ------------------------------------------------------------------------------

    def handle(self, event: DownloadEvent, now: float) -> list[DownloadEffect]:
        """Take an event in and say what is to be done, in order."""
        return self.handle_all((event,), now)

    def handle_all(self, events: Iterable[DownloadEvent], now: float) -> list[DownloadEffect]:
        """The same for events that came together."""
        for event in events:
            self._take(event, now)
        return self._settle(now)

    def _take(self, event: DownloadEvent, now: float) -> None:
        match event:
            case PieceReceived():
                self._piece_received(event, now)
            case PieceVerified():
                self._piece_verified(event, now)
            case HaveMore():
                self._contacts.have_more(event, now)
            case Tick():
                pass
            case Opened():
                self._contacts.opened(event, now)
            case SourceKnown():
                self._contacts.known(event, now)
            case SourceGone():
                self._contacts.gone(event, now)
            case PieceCorrupt():
                self._piece_corrupt(event, now)
            case PieceUnwritten():
                self._piece_unwritten(event, now)
            case PieceMade():
                self._piece_made(event)
            case PieceNotMade():
                if not self._local.not_made(event.index, now):
                    raise LocalProtocolError(f"piece {event.index} was not being made")
            case SourceBusy():
                self._contacts.busy(event, now)
            case SourceRefused():
                self._contacts.refused(event, now)
            case PiecesRefused():
                self._contacts.pieces_refused(event, now)
            case SourceUnreachable():
                self._contacts.lost(event.source, now)
            case SourceClosed():
                self._contacts.lost(event.source, now)
            case SourceMoves():
                self._contacts.moves(event)
            case Paused():
                self._demand.pause()
            case Resumed():
                self._demand.paused = False
                self._contacts.open_more(now)
                self._demand.request_more_from_all(now)
            case _:
                assert_never(event)

    def next_wakeup(self, now: float) -> float | None:
        """When a `Tick` is due; None when only events can change anything."""
        due = self._announcements.due_at()
        if not self._demand.finished:
            local = None if self._demand.paused else self._local.due_at()
            for other in (self._demand.throttled_until, self._contacts.due_at(), local):
                if other is not None and (due is None or other < due):
                    due = other
        return None if due is None else max(due, now)

    def quiet(self, now: float) -> list[SourceId]:
        """The sources that owe something and of which nothing came for a while: the shell tells
        with `SourceMoves` whether bytes come in."""
        return self._contacts.quiet(now)

    def mark_missing(self, indexes: Iterable[int], now: float) -> list[DownloadEffect]:
        """Held pieces turned out damaged or gone: they are fetched again."""
        for index in indexes:
            if self.pieces.state(index) is PieceState.HELD:
                self.pieces.forget(index)
                self._announcements.withdraw(index)
                if not self._local.lost(index):
                    self._picker.put_back((index,))
        if not self.pieces.complete():
            self._demand.finished = False
            self._contacts.next_review_at = now
        return self._settle(now)

    def forget(self, index: int, now: float) -> list[DownloadEffect]:
        """A held piece turned out damaged or gone: it is fetched again."""
        return self.mark_missing((index,), now)

    def _settle(self, now: float) -> list[DownloadEffect]:
        if self.pieces.complete():
            if not self._demand.finished:
                self._finish(now)
        else:
            if not self._demand.paused:
                self._local.step(now)
            if self._room_made:
                self._room_made = False
                self._demand.feed(now)
            throttled = self._demand.throttled_until
            if throttled is not None and now >= throttled:
                self._demand.throttled_until = None
                self._demand.feed(now)
            if now >= self._contacts.next_review_at:
                self._contacts.review_sources(now)
        batch = self._announcements.take(now)
        if batch:
            self._out.put(Announce(batch))
        return self._out.take()

    def _finish(self, now: float) -> None:
        self._demand.finish()
        self._contacts.close_all(now)
        batch = self._announcements.take(now, at_once=True)
        if batch:
            self._out.put(Announce(batch))
        self._out.put_last(Complete())

    # -- pieces -----------------------------------------------------------------------------------

    def _piece_received(self, event: PieceReceived, now: float) -> None:
        index, size = event.index, event.size
        source = self._roster.used.get(event.source)
        if source is None or source.phase is not Phase.OPEN:
            known = self._roster.get(event.source)
            banned = known is not None and known.phase is Phase.BANNED
            why = DiscardReason.BANNED if banned else DiscardReason.UNREQUESTED
            self._out.put(Discard(event.source, index, why))
            return
        asked_at = source.asked.get(index)
        if asked_at is None and index not in source.withdrawn:
            self._senseless(source, index, DiscardReason.UNREQUESTED, now)
            return
        if size != self.layout.size_of(index):
            if asked_at is not None:
                self._demand.take_back(source, (index,))
            source.withdrawn.discard(index)
            self._senseless(source, index, DiscardReason.WRONG_SIZE, now)
            return
        self._demand.came(source, index, size, now)
        source.progress_at = source.quiet_since = now
        source.stalled = False
        source.stalls = source.silences = 0
        source.failures = 0
        if self._demand.paused:
            self._out.put(Discard(source.id, index, DiscardReason.PAUSED))
        elif self.pieces.states[index] in (_MISSING, _IN_FLIGHT):
            self.pieces.arrived(index)
            self._verifying[index] = source.id
            source.got_pieces += 1
            source.got_bytes += size
            source.meter.add(size, now)
            self._out.put(Verify(source.id, index))
            losers = tuple(self._demand.flights.owners(index))
            for other in losers:
                self._demand.withdraw(other, index)
            for other in losers:
                self._demand.request_more(other, now)
        else:
            self._duplicate_bytes += size
            self._out.put(Discard(source.id, index, DiscardReason.DUPLICATE))
        self._demand.request_more(source, now)

    def _senseless(self, source: Source, index: int, why: DiscardReason, now: float) -> None:
        self._out.put(Discard(source.id, index, why))
        if self._roster.strike(source):
            self._contacts.close(source, Verdict.WRONG, now)
        else:
            self._demand.request_more_from_all(now)

    def _verdict_on(self, index: int, source: SourceId) -> None:
        if self._verifying.get(index) != source:
            raise LocalProtocolError(f"piece {index} was not being verified for that source")
        del self._verifying[index]

    def _piece_verified(self, event: PieceVerified, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self.pieces.mark_verified(event.index)
        self._picker.fetched(event.index)
        self._demand.meter.add(self.layout.size_of(event.index), now)
        self._announcements.add(event.index)
        self._room_made = True
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
        self._picker.put_back((event.index,))
        source = self._roster.get(event.source)
        if source is not None and source.phase is not Phase.BANNED:
            self._contacts.close(source, Verdict.WRONG, now)
        self._demand.request_more_from_all(now)

    def _piece_unwritten(self, event: PieceUnwritten, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self.pieces.release(event.index)
        self._picker.put_back((event.index,))
        self._demand.quiet_until = now + self.settings.storage_pause_s

    # -- for people and tests ---------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every piece is held."""
        return self.pieces.complete()

    def progress(self, now: float) -> Progress:
        """How it stands."""
        pieces = self.pieces
        rate = self._demand.meter.rate(now)
        left = self.layout.size - pieces.held_bytes
        return Progress(
            pieces=self.layout.count,
            held_pieces=pieces.held.count,
            size=self.layout.size,
            held_bytes=pieces.held_bytes,
            rate=rate,
            eta_s=left / rate if rate > 1.0 else (0.0 if not left else None),
            paused=self._demand.paused,
            throttled=self._demand.throttled_until is not None,
            complete=pieces.complete(),
            verifying_bytes=pieces.verifying_bytes,
            duplicate_bytes=self._duplicate_bytes,
            corrupt_pieces=self._corrupt_pieces,
            sources=tuple(SourceProgress.of(s, now) for s in self._roster),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError when something contradicts. For tests: O(pieces × sources)."""
        pieces, flights = self.pieces, self._demand.flights
        pieces.check_invariants()
        self._roster.check_invariants()
        flights.check_invariants(self._roster.open())
        for index, state in enumerate(pieces.states):
            assert (state == PieceState.IN_FLIGHT) == bool(flights.owners(index))
            assert (state == PieceState.VERIFYING) == (index in self._verifying)
        self._local.check_invariants(pieces.states)
        for source in self._roster.open():
            assert all(source.offers(i) for i in source.asked)
        assert flights.asked_bytes <= max(self.settings.buffer_bytes, self.layout.piece_length)
        assert not (self._demand.paused and flights.asked_bytes)
        assert not (self._demand.finished and (flights.asked_bytes or self._roster.used))
