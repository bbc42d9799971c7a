"""What is asked of whom: the filling of windows, and the moving of requests that wait too long.

Owns the requests of a download, from the choice of a piece for a source to its coming, cancelling
or taking back, and the bounds on all of them together: buffers and rate limits. Which piece is best
is `picker`'s, how much a source may be asked for `window`'s, the books are `flights`'.
"""

from __future__ import annotations

from collections.abc import Iterable

from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import SourceId
from peer.swarm.fetching.inflight import InflightRequests, expected_wait
from peer.swarm.fetching.picker import Picker
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.fetching.sources import LatencyStats, Phase, Source, SourceTable
from peer.swarm.pieces import Pieces, PieceState
from peer.swarm.rate_limit import RateLimit
from peer.swarm.rates import RateMeter

_SHARES = 16
"""Nobody waits for more than this part of the buffers."""
_MISSING = int(PieceState.MISSING)
_IN_FLIGHT = int(PieceState.IN_FLIGHT)


class RequestScheduler:
    """The requests of one download."""

    def __init__(
        self,
        pieces: Pieces,
        picker: Picker[SourceId],
        roster: SourceTable,
        out: EffectBuffer,
        limit: RateLimit,
        settings: DownloadSettings,
    ) -> None:
        self._pieces = pieces
        self._layout = pieces.layout
        self._picker = picker
        self._roster = roster
        self._out = out
        self._limit = limit
        self._settings = settings
        self.flights = InflightRequests(pieces.layout)
        self.pace = LatencyStats()
        self.paused = False
        self.finished = False
        self.quiet_until = 0.0
        """Nothing is asked for before: storage is in trouble."""
        self.throttled_until: float | None = None
        """When a rate limit allows more, if one is in the way."""
        self._waiting_for_buffer: dict[SourceId, None] = {}
        """Sources that could be asked for more, were it not for a bound on the whole."""
        self.meter = RateMeter()
        """Verified bytes, for display."""
        self._rate_sum = 0.0
        self._open_count = 1

    # -- what came, and what will not come --------------------------------------------------------

    def came(self, source: Source, index: int, size: int, now: float) -> None:
        """A piece came."""
        asked_at = source.asked.get(index)
        if asked_at is None:
            source.withdrawn.discard(index)
        else:
            self.flights.remove(source, index)
        source.window.arrived(size, now)
        self.pace.came(now - source.owes_since, None if asked_at is None else now - asked_at)
        source.owes_since = now

    def forget(self, source: Source) -> None:
        """The connection is gone, and all that was asked on it."""
        if source.asked:
            self.take_back(source, tuple(source.asked))
        self._waiting_for_buffer.pop(source.id, None)

    def pause(self) -> None:
        """Cancel everything, and ask for nothing until `paused` is taken back."""
        self.paused = True
        for source in self._roster.open():
            for index in tuple(source.asked):
                self.withdraw(source, index)
        self._waiting_for_buffer.clear()

    def finish(self) -> None:
        """Nothing more is needed."""
        self.finished = True
        self.throttled_until = None
        self._waiting_for_buffer.clear()

    def withdraw(self, source: Source, index: int) -> None:
        """Cancel one request; the piece is missing again when nobody else is asked for it."""
        alone = self.flights.remove(source, index)
        source.withdrawn.add(index)
        self._out.cancel(source.id, index)
        if alone and self._pieces.states[index] == _IN_FLIGHT:
            self._pieces.release(index)
            self._picker.put_back((index,))

    def take_back(self, source: Source, indexes: Iterable[int]) -> None:
        """The source is not going to answer these requests: nothing needs to be cancelled."""
        for index in indexes:
            if index in source.asked and self.flights.remove(source, index):
                self._pieces.release(index)
                self._picker.put_back((index,))

    # -- asking -----------------------------------------------------------------------------------

    def request_more(self, source: Source, now: float, *, search: bool = True) -> None:
        """Ask a source for as much as its window and the bounds of the whole allow.

        With `search`, when it has nothing missing to give, look for requests that it could answer
        sooner than those who are asked.
        """
        room = self._room(source, now)
        piece_length = self._layout.piece_length
        while room >= piece_length and self._allowed(source, now):
            index = self._picker.pick(source.id)
            if index is None:
                index = self._find_steal(source, now) if search else None
                if index is None:
                    return
            elif source.stalled and now < source.trial_at and self._others_offer(source, index):
                self._picker.unpick(source.id, index)
                return
            self._ask(source, index, now)
            room -= piece_length

    def request_more_from_all(self, now: float) -> None:
        """Ask everybody."""
        for source in self._roster.open():
            self.request_more(source, now)

    def feed(self, now: float) -> None:
        """There may be room again: in turn, until there is none."""
        if not self._waiting_for_buffer:
            return
        for source_id in list(self._waiting_for_buffer):
            del self._waiting_for_buffer[source_id]
            source = self._roster.used.get(source_id)
            if source is not None:
                self.request_more(source, now)
                if source_id in self._waiting_for_buffer:
                    return

    def _ask(self, source: Source, index: int, now: float) -> None:
        if self._pieces.states[index] == _MISSING:
            self._pieces.reserve(index)  # else it moves from another source, or is doubled
        if not source.asked:
            source.meter.began(now)
            self.meter.began(now)
        self.flights.add(source, index, now)
        if not self._limit.unlimited:
            self._limit.take(source.user, self._layout.size_of(index), now)
        self._out.request(source.id, index)

    def _room(self, source: Source, now: float) -> int:
        """Bytes that a source may be asked for; 0 when it is not worth a message."""
        if self.paused or self.finished or source.phase is not Phase.OPEN:
            return 0
        if now < source.resume_at or now < self.quiet_until:
            return 0
        if source.stalled:
            return 0 if source.asked else self._layout.piece_length
        room = source.window.limit(self._share(source)) - source.asked_bytes
        if not source.asked:
            return room
        worth = source.window.quantum()
        if room < worth:
            return 0
        # The bound on the whole makes room piece by piece. Who is quick waits for several, which
        # are then adjacent and come in one message, while others are asked for others.
        if self._buffer_left() < min(worth, self._settings.buffer_bytes // _SHARES):
            self._waiting_for_buffer[source.id] = None
            return 0
        return room

    def _buffer_left(self) -> int:
        """Bytes that may be asked for yet, of everybody together."""
        busy = self.flights.asked_bytes + self._pieces.verifying_bytes
        return self._settings.buffer_bytes - busy

    def _allowed(self, source: Source, now: float) -> bool:
        """Whether the bounds of the whole allow one more request; if not, the source waits."""
        left = self._buffer_left()
        if left < min(self._layout.piece_length, self._settings.buffer_bytes):
            self._waiting_for_buffer[source.id] = None
            return False
        if self._limit.unlimited:
            return True
        ready_at = max(self._limit.ready_at(now), self._limit.user_ready_at(source.user, now))
        if ready_at <= now:
            return True
        if self.throttled_until is None or ready_at < self.throttled_until:
            self.throttled_until = ready_at
        self._waiting_for_buffer[source.id] = None
        return False

    def _share(self, source: Source) -> float:
        """The part of the buffers that a source may fill: by its rate, and never too little."""
        part = 0.5 / self._open_count
        if self._rate_sum > 0.0:
            part = max(part, source.window.rate / self._rate_sum)
        elif self._open_count == 1:
            part = 1.0
        return part * self._settings.buffer_bytes

    def rebalance_buffers(self, now: float) -> None:
        """Share the buffers among the sources anew."""
        sources = self._roster.open()
        self._open_count = max(1, len(sources))
        self._rate_sum = sum(s.window.current_rate(now) for s in sources if s.asked)

    # -- moving ------------------------------------------------------------------------------------

    def _find_steal(self, source: Source, now: float) -> int | None:
        """Work for a source that has nothing missing to give: what waits too long elsewhere.

        While something is missing yet, the request moves. In the end game it is doubled, by a
        source that is idle, and whoever is slower is cancelled when the piece has come.
        """
        endgame = not self._pieces.missing_count
        if source.stalled or not len(self.flights) or (endgame and source.asked):
            return None
        own_s = self._own_wait(source, now)
        found = self.flights.steal_candidate(source, self._roster.used.values(), own_s, now)
        if found is None:
            return None
        index, owner = found
        if not endgame:
            self._move(owner, index)
        return index

    def offer_relief(self, source: Source, indexes: list[int], now: float) -> None:
        """A source has got pieces that others are asked for: it takes over what it has room for."""
        room = self._room(source, now)
        if source.stalled or room < self._layout.piece_length:
            return
        endgame = not self._pieces.missing_count
        own_s = self._own_wait(source, now)
        for index in indexes:
            if room < self._layout.piece_length or (endgame and source.asked):
                return
            owner = self.flights.can_steal(index, source, own_s, now)
            if owner is not None and self._allowed(source, now):
                if not endgame:
                    self._move(owner, index)
                self._ask(source, index, now)
                room -= self._layout.piece_length

    def _own_wait(self, source: Source, now: float) -> float:
        """Seconds until it would have given one piece more than it is asked for."""
        if source.window.rate or source.asked:
            return expected_wait(source, self._layout.piece_length, now)
        return self.pace.gap_s  # it has given nothing yet: as the others do

    def _move(self, owner: Source, index: int) -> None:
        """Take a request from its only owner; the caller asks another at once."""
        self.flights.remove(owner, index)
        owner.withdrawn.add(index)
        self._out.cancel(owner.id, index)

    def reassign(self, source: Source, patience_s: float, now: float) -> None:
        """It is silent: what others have as well is fetched there."""
        self._roster.stall(source, patience_s, now)
        source.progress_at = now
        for index in tuple(source.asked):
            if self._others_offer(source, index):
                self.withdraw(source, index)

    def _others_offer(self, source: Source, index: int) -> bool:
        """Whether the piece could be had elsewhere, of a source that works."""
        return any(
            other.phase is Phase.OPEN
            and not other.stalled
            and other is not source
            and other.offers(index)
            for other in self._roster.used.values()
        )
