"""Request scheduler: fills the sources' windows, and moves requests that wait too long.

Owns: each request, from the choice of a piece for a source until the piece arrives or the request
is cancelled or requeued, and the bounds on all requests together: buffers and rate limits. Not
here: the order of pieces (see picker), the size of a source's window (see window), the books (see
inflight).

Two words for the end of a request without its piece: *cancel* tells the source; *requeue* does not,
since the source is not going to answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.limits import RUN_BYTES
from peer.swarm.fetching.effects import EffectBuffer
from peer.swarm.fetching.events import SourceId
from peer.swarm.fetching.inflight import InflightRequests, expected_wait_s
from peer.swarm.fetching.picker import Picker
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.fetching.sources import LatencyStats, Phase, Source, SourceTable
from peer.swarm.pieces import Pieces, PieceState
from peer.swarm.rate_limit import RateLimit
from peer.swarm.rates import RateMeter, Throughput

_SHARES = 16
"""A source waits until at most this part of the buffers is free."""
_MISSING = int(PieceState.MISSING)
_IN_FLIGHT = int(PieceState.IN_FLIGHT)


class RequestScheduler:
    """The requests of one download, in flight and to come."""

    def __init__(
        self,
        pieces: Pieces,
        picker: Picker[SourceId],
        sources: SourceTable,
        out: EffectBuffer,
        limit: RateLimit,
        settings: DownloadSettings,
    ) -> None:
        self._pieces = pieces
        self._layout = pieces.layout
        self._picker = picker
        self._sources = sources
        self._out = out
        self._limit = limit
        self._settings = settings
        self.inflight = InflightRequests(pieces.layout)
        self.latency = LatencyStats()
        self.paused = False
        self.finished = False
        self.suspended_until = 0.0
        """No request is sent before: a piece could not be stored."""
        self.throttled_until: float | None = None
        """Time at which the rate limit allows the next request, if it prevents one now."""
        self._waiting_for_buffer: dict[SourceId, None] = {}
        """Sources with headroom in their window that the buffers or the rate limit hold up."""
        self.meter = RateMeter()
        """Verified bytes, for display."""
        self._throughput = Throughput()
        """Of all sources together."""
        self._rate_sum = 0.0
        self._open_count = 1

    # -- end of requests --------------------------------------------------------------------------

    def arrived(self, source: Source, index: int, size: int, now: float) -> None:
        """End the request that a piece answers, and measure the source."""
        requested_at = source.in_flight.get(index)
        if requested_at is None:
            source.cancelled.discard(index)
        else:
            self.inflight.remove(source, index)
        source.promised.pop(index, None)
        source.window.add(size, now)
        self._throughput.add(size, now)
        latency_s = None if requested_at is None else now - requested_at
        self.latency.add(now - source.last_progress_at, latency_s)
        source.last_progress_at = source.silent_since = now
        source.stall = None
        source.silences = source.failures = 0

    def promised(self, source: Source, index: int, now: float) -> None:
        """Record that a piece is on its way, and cancel its requests at other sources.

        The request may have moved to another source meanwhile: then it moves back. Only the first
        notice of a request counts, and none of a source that is stalled. It is believed for the
        stall timeout, so a false notice costs no more than silence.
        """
        state, owners = self._pieces.states[index], tuple(self.inflight.owners(index))
        if index in source.promised or source.stalled or self.paused:
            return
        if state not in (_MISSING, _IN_FLIGHT) or any(o.promises(index, now) for o in owners):
            return
        if source not in owners:
            if self._buffer_left() < self._layout.piece_length:
                return
            source.cancelled.discard(index)
            if state == _MISSING:
                self._pieces.reserve(index)
            self.inflight.add(source, index, now)
        source.promised[index] = now + self.latency.stall_timeout_s()
        for other in owners:
            if other is not source:
                self.cancel(other, index)

    def drop_source(self, source: Source) -> None:
        """Requeue all requests of a source whose connection is gone."""
        if source.in_flight:
            self.requeue(source, tuple(source.in_flight))
        self._waiting_for_buffer.pop(source.id, None)

    def pause(self) -> None:
        """Cancel all requests, and send none until `paused` is cleared."""
        self.paused = True
        for source in self._sources.open():
            for index in tuple(source.in_flight):
                self.cancel(source, index)
        self._waiting_for_buffer.clear()

    def finish(self) -> None:
        """Send no more requests: every piece is held."""
        self.finished = True
        self.throttled_until = None
        self._waiting_for_buffer.clear()

    def cancel(self, source: Source, index: int) -> None:
        """Cancel one request. The piece is missing again unless another source has it in flight."""
        was_last = self.inflight.remove(source, index)
        source.cancelled.add(index)
        self._out.cancel(source.id, index)
        if was_last and self._pieces.states[index] == _IN_FLIGHT:
            self._pieces.release(index)
            self._picker.requeue((index,))

    def requeue(self, source: Source, indexes: Iterable[int]) -> None:
        """End requests that the source is not going to answer."""
        for index in indexes:
            if index in source.in_flight and self.inflight.remove(source, index):
                self._pieces.release(index)
                self._picker.requeue((index,))

    # -- requests ---------------------------------------------------------------------------------

    def request_more(self, source: Source, now: float, *, search: bool = True) -> None:
        """Request as many pieces from a source as its window, the buffers and the rate limit allow.

        With `search`, if the source offers no missing piece, steal requests that it would answer
        sooner than their owners.
        """
        headroom = self._headroom(source, now)
        piece_length = self._layout.piece_length
        together = max(piece_length, RUN_BYTES) if self.fast else piece_length
        while headroom >= piece_length and self._allowed(source, now, together):
            index = self._picker.pick(source.id)
            if index is None:
                index = self._find_steal(source, now) if search else None
                if index is None:
                    return
            elif source.stall and now < source.stall.trial_at and self._others_offer(source, index):
                self._picker.unpick(source.id, index)
                return
            self._request(source, index, now)
            headroom -= piece_length
            for more in self._rest_of_run(source, index):
                if self._allowed(source, now, piece_length):
                    self._request(source, more, now)
                    headroom -= piece_length

    @property
    def fast(self) -> bool:
        """Whether pieces arrive so fast that the work for each is what takes time."""
        return self._throughput.rate >= self._settings.fast_rate

    @property
    def announce_s(self) -> float:
        """Time between two announcements."""
        settings, small = self._settings, self._layout.piece_length < RUN_BYTES
        return settings.announce_fast_s if self.fast and small else settings.announce_batch_s

    def _rest_of_run(self, source: Source, index: int) -> list[int]:
        """Return the pieces to be requested with one, if pieces arrive fast: those of its run."""
        if not self.fast:
            return []
        return self._picker.pick_with(source.id, self._layout.run_of(index, RUN_BYTES))

    def request_more_from_all(self, now: float) -> None:
        """Call `request_more` for every open source."""
        for source in self._sources.open():
            self.request_more(source, now)

    def resume_waiting(self, now: float) -> None:
        """Request from the sources that wait for buffers or the limit, until one must wait."""
        if not self._waiting_for_buffer:
            return
        for source_id in list(self._waiting_for_buffer):
            del self._waiting_for_buffer[source_id]
            source = self._sources.used.get(source_id)
            if source is not None:
                self.request_more(source, now)
                if source_id in self._waiting_for_buffer:
                    return

    def resume_throttled(self, now: float) -> None:
        """Resume waiting sources once the rate limit allows the next request."""
        if self.throttled_until is not None and now >= self.throttled_until:
            self.throttled_until = None
            self.resume_waiting(now)

    def _request(self, source: Source, index: int, now: float) -> None:
        if self._pieces.states[index] == _MISSING:
            self._pieces.reserve(index)  # else it is stolen, or requested twice
        if not source.in_flight:
            source.meter.start(now)
            self.meter.start(now)
        if not len(self.inflight):
            self._throughput.start(now)
        self.inflight.add(source, index, now)
        if not self._limit.unlimited:
            self._limit.take(source.user, self._layout.size_of(index), now)
        self._out.request(source.id, index)

    def _headroom(self, source: Source, now: float) -> int:
        """Return the bytes that may be requested from a source; 0 if not worth a message."""
        if self.paused or self.finished or source.phase is not Phase.OPEN:
            return 0
        if now < source.resume_at or now < self.suspended_until:
            return 0
        if source.stalled:
            return 0 if source.in_flight else self._layout.piece_length
        headroom = source.window.limit(self._buffer_share(source)) - source.in_flight_bytes
        if not source.in_flight:
            return headroom
        worth = source.window.quantum(RUN_BYTES if self.fast else 0)
        if headroom < worth:
            return 0
        # Buffers are freed piece by piece. A fast source waits until several are free: its pieces
        # are then adjacent and arrive in one message, while other sources get other pieces.
        if self._buffer_left() < min(worth, self._settings.buffer_bytes // _SHARES):
            self._waiting_for_buffer[source.id] = None
            return 0
        return headroom

    def _buffer_left(self) -> int:
        """Return the bytes that may still be requested, from all sources together."""
        busy = self.inflight.total_bytes + self._pieces.verifying_bytes
        return self._settings.buffer_bytes - busy

    def _allowed(self, source: Source, now: float, size: int) -> bool:
        """Return whether buffers and rate limit allow requests for `size` bytes; else it waits."""
        left = self._buffer_left()
        if left < min(size, self._settings.buffer_bytes):
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

    def _buffer_share(self, source: Source) -> float:
        """Return the bytes of the buffers that a source may fill: by its rate, with a minimum."""
        part = 0.5 / self._open_count
        if self._rate_sum > 0.0:
            part = max(part, source.window.rate / self._rate_sum)
        elif self._open_count == 1:
            part = 1.0
        return part * self._settings.buffer_bytes

    def rebalance_buffers(self, now: float) -> None:
        """Recompute the shares of the buffers from the sources' rates."""
        sources = self._sources.open()
        self._open_count = max(1, len(sources))
        self._rate_sum = sum(s.window.current_rate(now) for s in sources if s.in_flight)

    # -- stealing and stalls ----------------------------------------------------------------------

    def _find_steal(self, source: Source, now: float) -> int | None:
        """Steal a request for a source that offers no missing piece; return the piece, or None.

        While pieces are missing, the request moves to the source. In the end game the owner keeps
        it too, only idle sources steal, and the slower request is cancelled when the piece arrives.
        """
        endgame = not self._pieces.missing_count
        if source.stalled or not len(self.inflight) or (endgame and source.in_flight):
            return None
        own_s = self._own_eta_s(source, now)
        found = self.inflight.steal_candidate(source, self._sources.used.values(), own_s, now)
        if found is None:
            return None
        index, owner = found
        if not endgame:
            self._steal_from(owner, index)
        return index

    def steal_for(self, source: Source, indexes: list[int], now: float) -> None:
        """Let a source steal requests for pieces that it has just announced, within its window."""
        headroom = self._headroom(source, now)
        if source.stalled or headroom < self._layout.piece_length:
            return
        endgame = not self._pieces.missing_count
        own_s = self._own_eta_s(source, now)
        for index in indexes:
            if headroom < self._layout.piece_length or (endgame and source.in_flight):
                return
            owner = self.inflight.can_steal(index, source, own_s, now)
            if owner is not None and self._allowed(source, now, self._layout.piece_length):
                if not endgame:
                    self._steal_from(owner, index)
                self._request(source, index, now)
                headroom -= self._layout.piece_length

    def _own_eta_s(self, source: Source, now: float) -> float:
        """Return the seconds until it would have given all in flight and one piece more."""
        if source.window.rate or source.in_flight:
            return expected_wait_s(source, self._layout.piece_length, now)
        return self.latency.gap_s  # it has given nothing yet: assume what others take

    def _steal_from(self, owner: Source, index: int) -> None:
        """Cancel a request of its only owner; the caller must request the piece elsewhere."""
        self.inflight.remove(owner, index)
        owner.cancelled.add(index)
        self._out.cancel(owner.id, index)

    def reassign(self, source: Source, stall_timeout_s: float, now: float) -> None:
        """Mark a source as stalled, and cancel its requests for pieces that other sources offer."""
        self._sources.mark_stalled(source, stall_timeout_s, now)
        for index in tuple(source.in_flight):
            if self._others_offer(source, index):
                self.cancel(source, index)

    def _others_offer(self, source: Source, index: int) -> bool:
        """Return whether another open source that is not stalled offers the piece."""
        return any(
            other.phase is Phase.OPEN
            and not other.stalled
            and other is not source
            and other.offers(index)
            for other in self._sources.used.values()
        )
