"""Buffer of effects: gathers, merges and orders the effects of one step.

Owns: their order, and the batches of announcements. Effects that free something (discards, closes,
cancellations) come before requests, and all requests to one source travel together.
"""

from __future__ import annotations

from common.limits import PIECES_PER_REQUEST_MAX
from peer.swarm.fetching.events import (
    CancelRequest,
    Close,
    DownloadEffect,
    Request,
    SourceId,
    Verdict,
)


class EffectBuffer:
    """Effects of one step, until `take`."""

    __slots__ = ("_cancels", "_effects", "_last", "_requests")

    def __init__(self) -> None:
        self._effects: list[DownloadEffect] = []
        self._cancels: dict[SourceId, list[int]] = {}
        self._requests: dict[SourceId, list[int]] = {}
        self._last: list[DownloadEffect] = []

    def put(self, effect: DownloadEffect) -> None:
        self._effects.append(effect)

    def put_last(self, effect: DownloadEffect) -> None:
        """Add an effect that comes after all others."""
        self._last.append(effect)

    def close(self, source: SourceId, verdict: Verdict) -> None:
        """Close the source, and drop all other messages to it."""
        self._cancels.pop(source, None)
        self._requests.pop(source, None)
        self._effects.append(Close(source, verdict))

    def request(self, source: SourceId, index: int) -> None:
        self._requests.setdefault(source, []).append(index)

    def cancel(self, source: SourceId, index: int) -> None:
        """Cancel a request; one that is still in this buffer is removed instead."""
        wanted = self._requests.get(source)
        if wanted is not None and index in wanted:
            wanted.remove(index)
            return
        self._cancels.setdefault(source, []).append(index)

    def take(self) -> list[DownloadEffect]:
        """Return all effects, in order, and empty the buffer."""
        effects = self._effects
        self._effects = []
        if self._cancels:
            for source, pieces in self._cancels.items():
                for part in _parts(pieces):
                    effects.append(CancelRequest(source, part))
            self._cancels.clear()
        if self._requests:
            for source, pieces in self._requests.items():
                for part in _parts(pieces):
                    effects.append(Request(source, part))
            self._requests.clear()
        if self._last:
            effects += self._last
            self._last = []
        return effects


class Announcements:
    """Batch of verified pieces: the first after a pause is due at once, others after `batch_s`."""

    __slots__ = ("_last", "_waiting", "batch_s")

    def __init__(self, batch_s: float) -> None:
        self.batch_s = batch_s
        self._waiting: list[int] = []
        self._last = float("-inf")

    def add(self, index: int) -> None:
        self._waiting.append(index)

    def remove(self, index: int) -> None:
        """Remove a piece that is no longer held."""
        if index in self._waiting:
            self._waiting.remove(index)

    def due_at(self) -> float | None:
        """Return the time from which `take` returns pieces; None if there are none."""
        return self._last + self.batch_s if self._waiting else None

    def take(self, now: float, *, at_once: bool = False) -> tuple[int, ...]:
        """Return the pieces that are due, and remove them."""
        if not self._waiting or not (at_once or now >= self._last + self.batch_s):
            return ()
        batch = tuple(self._waiting)
        self._waiting.clear()
        self._last = now
        return batch


def _parts(pieces: list[int]) -> list[tuple[int, ...]]:
    if 0 < len(pieces) <= PIECES_PER_REQUEST_MAX:
        return [tuple(pieces)]
    step = PIECES_PER_REQUEST_MAX
    return [tuple(pieces[i : i + step]) for i in range(0, len(pieces), step)]
