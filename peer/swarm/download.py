"""The fetching of one content: what is asked of whom, and what becomes of what comes.

Owns the course of a download. Which piece comes next is `picker`'s, how much is asked of a source
is `window`'s, whom to use is `sources`'s, the books of requests are `flights`'s.

`Download.handle(event, now)` returns the effects that the shell carries out. Nothing a source
sends can make it fail: what makes no sense is dropped and counted. What only the shell can get
wrong (a piece verified that was never to be verified) raises `LocalProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from common.errors import LocalProtocolError
from common.limits import BUFFER_BYTES, SOURCES_MAX, SOURCES_USED
from peer.swarm.announce import Announcements
from peer.swarm.events import (
    Announce,
    Complete,
    Discard,
    DiscardReason,
    DownloadEffect,
    DownloadEvent,
    HaveMore,
    Open,
    Opened,
    Paused,
    PieceCame,
    PieceCorrupt,
    PiecesRefused,
    PieceUnwritten,
    PieceVerified,
    Resumed,
    SourceBusy,
    SourceClosed,
    SourceGone,
    SourceId,
    SourceKnown,
    SourceRefused,
    SourceUnreachable,
    Tick,
    Verdict,
    Verify,
)
from peer.swarm.flights import Flights, expected_wait
from peer.swarm.limits import Limit
from peer.swarm.outbox import Outbox
from peer.swarm.picker import Order, Picker
from peer.swarm.pieces import Bitfield, Layout, Pieces, PieceState
from peer.swarm.progress import Progress, RateMeter, SourceProgress
from peer.swarm.sources import Latency, Phase, Roster, Source

if TYPE_CHECKING:
    from random import Random

_MISSING = int(PieceState.MISSING)
_IN_FLIGHT = int(PieceState.IN_FLIGHT)


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """What may be chosen for a download. The defaults are right unless something is measured."""

    order: Order = Order.RAREST
    buffer_bytes: int = BUFFER_BYTES
    """Asked for, received and not yet verified, in all; at least one piece is always asked for."""
    horizon_s: float = 2.0
    """A window holds what its source gives in this time."""
    known_max: int = SOURCES_MAX
    used_max: int = SOURCES_USED
    announce_batch_s: float = 0.05
    open_timeout_s: float = 15.0
    settle_s: float = 10.0
    """A source is not replaced before it was open for so long."""
    look_s: float = 0.25
    """How often sources are judged and idle ones looked after."""
    storage_pause_s: float = 1.0
    """After a piece could not be written, nothing is asked for that long."""


class Download:
    """The machine. `have` is what is held already, and is copied."""

    def __init__(
        self,
        layout: Layout,
        rng: Random,
        *,
        have: Bitfield | None = None,
        settings: DownloadSettings | None = None,
        limit: Limit | None = None,
    ) -> None:
        self.settings = settings = DownloadSettings() if settings is None else settings
        self.layout = layout
        self.pieces = Pieces(layout, have)
        self._limit = Limit() if limit is None else limit
        self._picker: Picker[SourceId] = Picker(self.pieces.states, rng, settings.order)
        self._roster = Roster(
            rng,
            layout.piece_length,
            settings.horizon_s,
            settings.known_max,
            settings.used_max,
        )
        self._flights = Flights(layout)
        self._latency = Latency()
        self._announcements = Announcements(settings.announce_batch_s)
        self._meter = RateMeter()
        self._out = Outbox()
        self._verifying: dict[int, SourceId] = {}
        """Which source each piece in state verifying came from."""
        self._hungry: dict[SourceId, None] = {}
        """Sources that could be asked for more, were it not for a bound on the whole."""
        self._uncredited: dict[SourceId, int] = {}
        self._rate_sum = 0.0
        self._open_count = 1
        self._paused = False
        self._finished = False
        self._quiet_until = 0.0
        self._throttled_until: float | None = None
        self._look_at = 0.0
        self._replace_at = 0.0
        self._duplicate_bytes = 0
        self._corrupt_pieces = 0
        self._unrequested_pieces = 0

    # -- the machine ------------------------------------------------------------------------------

    def handle(self, event: DownloadEvent, now: float) -> list[DownloadEffect]:
        """Take an event in and say what is to be done, in order."""
        match event:
            case PieceCame():
                self._piece_came(event, now)
            case PieceVerified():
                self._piece_verified(event, now)
            case HaveMore():
                self._have_more(event, now)
            case Tick():
                pass
            case Opened():
                self._opened(event, now)
            case SourceKnown():
                self._source_known(event, now)
            case SourceGone():
                self._source_gone(event, now)
            case PieceCorrupt():
                self._piece_corrupt(event, now)
            case PieceUnwritten():
                self._piece_unwritten(event, now)
            case SourceBusy():
                self._source_busy(event, now)
            case SourceRefused():
                self._source_refused(event, now)
            case PiecesRefused():
                self._pieces_refused(event, now)
            case SourceUnreachable():
                self._lost(event.source, now)
            case SourceClosed():
                self._lost(event.source, now)
            case Paused():
                self._pause()
            case Resumed():
                self._paused = False
                self._fill_all(now)
            case _:
                assert_never(event)
        return self._settle(now)

    def next_wakeup(self, now: float) -> float | None:
        """When a `Tick` is due; None when only events can change anything."""
        due = self._announcements.due_at()
        if self._throttled_until is not None and (due is None or self._throttled_until < due):
            due = self._throttled_until
        if self._finished:
            return due
        if self._roster.used:
            look_at: float | None = self._look_at
        else:
            look_at = self._roster.next_retry()
        if look_at is not None and (due is None or look_at < due):
            due = look_at
        return None if due is None else max(due, now)

    def mark_missing(self, indexes: Iterable[int], now: float) -> list[DownloadEffect]:
        """Held pieces turned out damaged or gone: they are fetched again."""
        for index in indexes:
            if self.pieces.state(index) is PieceState.HELD:
                self.pieces.forget(index)
                self._announcements.withdraw(index)
                self._picker.put_back((index,))
        if not self.pieces.complete():
            self._finished = False
            self._look_at = now
        return self._settle(now)

    def forget(self, index: int, now: float) -> list[DownloadEffect]:
        """A held piece turned out damaged or gone: it is fetched again."""
        return self.mark_missing((index,), now)

    def _settle(self, now: float) -> list[DownloadEffect]:
        if self.pieces.complete():
            if not self._finished:
                self._finish(now)
        else:
            throttled = self._throttled_until
            if throttled is not None and now >= throttled:
                self._throttled_until = None
                self._feed_hungry(now)
            if now >= self._look_at:
                self._look_around(now)
        batch = self._announcements.take(now)
        if batch:
            self._out.put(Announce(batch))
        return self._out.take()

    def _finish(self, now: float) -> None:
        self._finished = True
        self._throttled_until = None
        self._hungry.clear()
        for source in list(self._roster.used.values()):
            self._close(source, Verdict.FINISHED, now)
        batch = self._announcements.take(now, at_once=True)
        if batch:
            self._out.put(Announce(batch))
        self._out.put_last(Complete())

    # -- pieces -----------------------------------------------------------------------------------

    def _piece_came(self, event: PieceCame, now: float) -> None:
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
                self._take_back(source, (index,))
            source.withdrawn.discard(index)
            self._senseless(source, index, DiscardReason.WRONG_SIZE, now)
            return
        if asked_at is None:
            source.withdrawn.discard(index)
        else:
            self._flights.remove(source, index)
            self._latency.add(now - asked_at)
        source.progress_at = now
        source.stalled = False
        source.stalls = 0
        source.failures = 0
        source.window.arrived(size, now)
        self._uncredited[source.id] = self._uncredited.get(source.id, 0) + size
        state = self.pieces.states[index]
        if self._paused:
            if asked_at is not None and state == _IN_FLIGHT and not self._flights.owners(index):
                self.pieces.release(index)
                self._picker.put_back((index,))
            self._out.put(Discard(source.id, index, DiscardReason.PAUSED))
        elif state in (_MISSING, _IN_FLIGHT):
            self.pieces.arrived(index)
            self._verifying[index] = source.id
            source.got_pieces += 1
            source.got_bytes += size
            self._out.put(Verify(source.id, index))
            losers = tuple(self._flights.owners(index))
            for other in losers:
                self._withdraw(other, index)
            for other in losers:
                self._fill(other, now)
        else:
            self._duplicate_bytes += size
            self._out.put(Discard(source.id, index, DiscardReason.DUPLICATE))
        self._fill(source, now)
        if self._uncredited[source.id] >= source.window.quantum() or not source.asked:
            self._uncredited[source.id] = 0
            self._out.credit(source.id)

    def _senseless(self, source: Source, index: int, why: DiscardReason, now: float) -> None:
        self._unrequested_pieces += 1
        self._out.put(Discard(source.id, index, why))
        if self._roster.strike(source):
            self._close(source, Verdict.WRONG, now)
        else:
            self._fill_all(now)

    def _verdict_on(self, index: int, source: SourceId) -> None:
        if self._verifying.get(index) != source:
            raise LocalProtocolError(f"piece {index} was not being verified for that source")
        del self._verifying[index]

    def _piece_verified(self, event: PieceVerified, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self.pieces.mark_verified(event.index)
        self._picker.fetched(event.index)
        self._meter.add(self.layout.size_of(event.index), now)
        self._announcements.add(event.index)
        if self._hungry:
            self._feed_hungry(now)

    def _piece_corrupt(self, event: PieceCorrupt, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self._corrupt_pieces += 1
        self.pieces.release(event.index)
        self._picker.put_back((event.index,))
        source = self._roster.get(event.source)
        if source is not None and source.phase is not Phase.BANNED:
            self._close(source, Verdict.WRONG, now)
        self._fill_all(now)

    def _piece_unwritten(self, event: PieceUnwritten, now: float) -> None:
        self._verdict_on(event.index, event.source)
        self.pieces.release(event.index)
        self._picker.put_back((event.index,))
        self._quiet_until = now + self.settings.storage_pause_s
        self._look_at = min(self._look_at, self._quiet_until)

    # -- sources ----------------------------------------------------------------------------------

    def _source_known(self, event: SourceKnown, now: float) -> None:
        if not event.complete:
            self._picker.mix()
        if self._roster.learn(event.source, event.user, event.complete) is not None:
            self._open_more(now)

    def _source_gone(self, event: SourceGone, now: float) -> None:
        source = self._roster.get(event.source)
        if source is None:
            return
        self._roster.unlist(source)
        if source.phase is Phase.OPENING or (source.phase is Phase.OPEN and not source.asked):
            self._close(source, Verdict.GONE, now)
            self._open_more(now)

    def _opened(self, event: Opened, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None or source.phase is not Phase.OPENING:
            return
        have = event.have
        if have is not None:
            if len(have) != self.layout.count:
                self._senseless_offer(source, now)
                return
            if have.complete():
                have = None
            else:
                self._picker.mix()
        self._roster.opened(source, have, now)
        source.complete = have is None
        self._picker.add_source(source.id, have)
        self._open_count = max(1, len(self._roster.used))
        self._fill(source, now)

    def _senseless_offer(self, source: Source, now: float) -> None:
        source.note = "its bitfield has another length than the content"
        self._close(source, Verdict.WRONG, now)
        self._open_more(now)

    def _have_more(self, event: HaveMore, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None or source.phase is not Phase.OPEN:
            return
        count, states = self.layout.count, self.pieces.states
        missing, waiting = False, []
        for index in event.pieces:
            if not 0 <= index < count:
                if self._roster.strike(source):
                    self._close(source, Verdict.WRONG, now)
                    self._fill_all(now)
                    return
            elif self._picker.have_more(source.id, index):
                state = states[index]
                if state == _MISSING:
                    missing = True
                elif state == _IN_FLIGHT:
                    waiting.append(index)
        if missing:
            self._fill(source, now, search=False)
        if waiting:
            self._offer_relief(source, waiting, now)

    def _source_busy(self, event: SourceBusy, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None:
            return
        if source.phase is Phase.OPENING:
            self._close(source, Verdict.BUSY, now)
            source.retry_at = max(source.retry_at, now + event.retry_after_s)
            self._open_more(now)
            return
        source.resume_at = now + event.retry_after_s
        source.window.shrink()
        self._take_back(source, event.pieces or tuple(source.asked))
        self._fill_all(now)

    def _source_refused(self, event: SourceRefused, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None:
            return
        source.note = event.why
        self._close(source, Verdict.REFUSED, now)
        if not event.transient:
            source.retry_at = float("inf")
        self._open_more(now)
        self._fill_all(now)

    def _pieces_refused(self, event: PiecesRefused, now: float) -> None:
        source = self._roster.used.get(event.source)
        if source is None or source.phase is not Phase.OPEN:
            return
        indexes = [i for i in event.pieces if 0 <= i < self.layout.count]
        if source.have is None:
            source.have = Bitfield.full(self.layout.count)
            self._picker.add_source(source.id, source.have)
        source.complete = False
        for index in indexes:
            self._picker.have_not(source.id, index)
        self._take_back(source, indexes)
        # A source that offers what it has not got is no better than one that sends nonsense.
        if not source.got_pieces and self._roster.strike(source):
            self._close(source, Verdict.USELESS, now)
            self._open_more(now)
        self._fill_all(now)

    def _lost(self, source_id: SourceId, now: float) -> None:
        source = self._roster.used.get(source_id)
        if source is None:
            return
        self._drop(source, Verdict.UNREACHABLE, now)
        self._open_more(now)
        self._fill_all(now)

    def _close(self, source: Source, verdict: Verdict, now: float) -> None:
        """Give a source up, telling the shell."""
        if source.phase in (Phase.OPENING, Phase.OPEN):
            self._out.close(source.id, verdict)
        self._drop(source, verdict, now)

    def _drop(self, source: Source, verdict: Verdict, now: float) -> None:
        """Take back everything from a source whose connection is gone."""
        if source.asked:
            self._take_back(source, tuple(source.asked))
        self._picker.remove_source(source.id)
        self._hungry.pop(source.id, None)
        self._uncredited.pop(source.id, None)
        self._roster.closed(source, verdict, now)

    def _open_more(self, now: float) -> None:
        if self._finished or self._paused:
            return
        while (source := self._roster.next_to_open(now)) is not None:
            self._roster.opening(source, now)
            self._out.put(Open(source.id))

    def _pause(self) -> None:
        self._paused = True
        for source in self._roster.open():
            for index in tuple(source.asked):
                self._withdraw(source, index)
        self._hungry.clear()

    # -- requests ---------------------------------------------------------------------------------

    def _withdraw(self, source: Source, index: int) -> None:
        """Cancel one request; the piece is missing again when nobody else is asked for it."""
        alone = self._flights.remove(source, index)
        source.withdrawn.add(index)
        self._out.cancel(source.id, index)
        if alone and self.pieces.states[index] == _IN_FLIGHT:
            self.pieces.release(index)
            self._picker.put_back((index,))

    def _take_back(self, source: Source, indexes: Iterable[int]) -> None:
        """The source is not going to answer these requests: nothing needs to be cancelled."""
        for index in indexes:
            if index in source.asked and self._flights.remove(source, index):
                self.pieces.release(index)
                self._picker.put_back((index,))

    def _ask(self, source: Source, index: int, now: float) -> None:
        if self.pieces.states[index] == _MISSING:
            self.pieces.reserve(index)  # else it moves from another source, or is doubled
        self._flights.add(source, index, now)
        if not self._limit.unlimited:
            self._limit.take(source.user, self.layout.size_of(index), now)
        self._out.request(source.id, index)
        self._uncredited[source.id] = 0

    def _room(self, source: Source, now: float) -> int:
        """Bytes that a source may be asked for; 0 when it is not worth a message."""
        if self._paused or self._finished or source.phase is not Phase.OPEN:
            return 0
        if now < source.resume_at or now < self._quiet_until:
            return 0
        if source.stalled:
            return 0 if source.asked else self.layout.piece_length
        room = source.window.limit(self._share(source)) - source.asked_bytes
        return room if not source.asked or room >= source.window.quantum() else 0

    def _allowed(self, source: Source, now: float) -> bool:
        """Whether the bounds of the whole allow one more request; if not, the source waits."""
        busy = self._flights.asked_bytes + self.pieces.verifying_bytes
        if busy and busy + self.layout.piece_length > self.settings.buffer_bytes:
            self._hungry[source.id] = None
            return False
        if self._limit.unlimited:
            return True
        ready_at = max(self._limit.ready_at(now), self._limit.user_ready_at(source.user, now))
        if ready_at <= now:
            return True
        if self._throttled_until is None or ready_at < self._throttled_until:
            self._throttled_until = ready_at
        self._hungry[source.id] = None
        return False

    def _fill(self, source: Source, now: float, *, search: bool = True) -> None:
        """Ask a source for as much as its window and the bounds of the whole allow.

        With `search`, when it has nothing missing to give, look for requests that it could answer
        sooner than those who are asked.
        """
        room = self._room(source, now)
        piece_length = self.layout.piece_length
        while room >= piece_length and self._allowed(source, now):
            index = self._picker.pick(source.id)
            if index is None:
                index = self._relieve(source, now) if search else None
                if index is None:
                    return
            elif source.stalled and now < source.trial_at and self._others_offer(source, index):
                self._picker.unpick(source.id, index)
                return
            self._ask(source, index, now)
            room -= piece_length

    def _relieve(self, source: Source, now: float) -> int | None:
        """Work for a source that has nothing missing to give: what waits too long elsewhere.

        While something is missing yet, the request moves. In the end game it is doubled, by a
        source that is idle, and whoever is slower is cancelled when the piece has come.
        """
        endgame = not self.pieces.missing_count
        if source.stalled or not len(self._flights) or (endgame and source.asked):
            return None
        own_s = expected_wait(source, self.layout.piece_length, now)
        found = self._flights.relief(source, self._roster.used.values(), own_s, now)
        if found is None:
            return None
        index, owner = found
        if not endgame:
            self._move(owner, index)
        return index

    def _offer_relief(self, source: Source, indexes: list[int], now: float) -> None:
        """A source has got pieces that others are asked for: it takes over what it has room for."""
        room = self._room(source, now)
        if source.stalled or room < self.layout.piece_length:
            return
        endgame = not self.pieces.missing_count
        own_s = expected_wait(source, self.layout.piece_length, now)
        for index in indexes:
            if room < self.layout.piece_length or (endgame and source.asked):
                return
            owner = self._flights.relievable(index, source, own_s, now)
            if owner is not None and self._allowed(source, now):
                if not endgame:
                    self._move(owner, index)
                self._ask(source, index, now)
                room -= self.layout.piece_length

    def _move(self, owner: Source, index: int) -> None:
        """Take a request from its only owner; the caller asks another at once."""
        self._flights.remove(owner, index)
        owner.withdrawn.add(index)
        self._out.cancel(owner.id, index)

    def _share(self, source: Source) -> float:
        """The part of the buffers that a source may fill: by its rate, and never too little."""
        part = 0.5 / self._open_count
        if self._rate_sum > 0.0:
            part = max(part, source.window.rate / self._rate_sum)
        elif self._open_count == 1:
            part = 1.0
        return part * self.settings.buffer_bytes

    def _fill_all(self, now: float) -> None:
        for source in self._roster.open():
            self._fill(source, now)

    def _feed_hungry(self, now: float) -> None:
        """There may be room again: in turn, until there is none."""
        for source_id in list(self._hungry):
            del self._hungry[source_id]
            source = self._roster.used.get(source_id)
            if source is not None:
                self._fill(source, now)
                if source_id in self._hungry:
                    return

    # -- looking after the sources ----------------------------------------------------------------

    def _look_around(self, now: float) -> None:
        settings = self.settings
        self._look_at = now + settings.look_s
        patience_s = self._latency.patience()
        for source in list(self._roster.used.values()):
            if source.phase is Phase.OPENING:
                if now - source.phase_since > settings.open_timeout_s:
                    self._close(source, Verdict.UNREACHABLE, now)
            elif source.asked and now - source.progress_at > patience_s:
                self._relocate(source, patience_s, now)
        still_open = self._roster.open()
        self._open_count = max(1, len(still_open))
        self._rate_sum = sum(s.window.current_rate(now) for s in still_open if s.asked)
        if now >= self._replace_at:
            self._replace_at = now + 1.0
            self._replace_worst(now)
        self._open_more(now)
        self._fill_all(now)

    def _relocate(self, source: Source, patience_s: float, now: float) -> None:
        """It is silent: what others have as well is fetched there."""
        self._roster.stall(source, patience_s, now)
        source.progress_at = now
        for index in tuple(source.asked):
            if self._others_offer(source, index):
                self._withdraw(source, index)

    def _others_offer(self, source: Source, index: int) -> bool:
        """Whether the piece could be had elsewhere, of a source that works."""
        return any(
            other.phase is Phase.OPEN
            and not other.stalled
            and other is not source
            and other.offers(index)
            for other in self._roster.used.values()
        )

    def _replace_worst(self, now: float) -> None:
        if len(self._roster.used) < self.settings.used_max or self._paused:
            return
        if self._roster.best_spare(now) is None:
            return
        worst = self._roster.worst(now, self.settings.settle_s)
        if worst is not None:
            self._close(worst[0], worst[1], now)

    # -- for people and tests ---------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether every piece is held."""
        return self.pieces.complete()

    def progress(self, now: float) -> Progress:
        """How it stands."""
        pieces = self.pieces
        rate = self._meter.rate(now)
        left = self.layout.size - pieces.held_bytes
        return Progress(
            pieces=self.layout.count,
            held_pieces=pieces.held.count,
            size=self.layout.size,
            held_bytes=pieces.held_bytes,
            rate=rate,
            eta_s=left / rate if rate > 1.0 else (0.0 if not left else None),
            paused=self._paused,
            complete=pieces.complete(),
            asked_pieces=len(self._flights),
            verifying_bytes=pieces.verifying_bytes,
            duplicate_bytes=self._duplicate_bytes,
            corrupt_pieces=self._corrupt_pieces,
            unrequested_pieces=self._unrequested_pieces,
            sources=tuple(SourceProgress.of(s, now) for s in self._roster),
        )

    def check_invariants(self) -> None:
        """Raise AssertionError when something contradicts. For tests: O(pieces × sources)."""
        pieces, flights = self.pieces, self._flights
        pieces.check_invariants()
        self._roster.check_invariants()
        flights.check_invariants(self._roster.open())
        for index, state in enumerate(pieces.states):
            assert (state == PieceState.IN_FLIGHT) == bool(flights.owners(index))
            assert (state == PieceState.VERIFYING) == (index in self._verifying)
        for source in self._roster.open():
            assert all(source.offers(i) for i in source.asked)
        assert flights.asked_bytes <= max(self.settings.buffer_bytes, self.layout.piece_length)
        assert not (self._paused and flights.asked_bytes)
        assert not (self._finished and (flights.asked_bytes or self._roster.used))
