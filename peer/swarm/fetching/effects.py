"""The effects of one event, gathered and merged before they are handed to the shell.

Owns the order: whatever frees something (discards, closings, cancellations) comes before whatever
asks for something, and all requests to a source travel together.
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
    """Gathers effects until `take`."""

    __slots__ = ("_cancels", "_effects", "_last", "_requests")

    def __init__(self) -> None:
        self._effects: list[DownloadEffect] = []
        self._cancels: dict[SourceId, list[int]] = {}
        self._requests: dict[SourceId, list[int]] = {}
        self._last: list[DownloadEffect] = []

    def put(self, effect: DownloadEffect) -> None:
        self._effects.append(effect)

    def put_last(self, effect: DownloadEffect) -> None:
        """An effect that comes after all the others."""
        self._last.append(effect)

    def close(self, source: SourceId, verdict: Verdict) -> None:
        """Close, and say nothing more to the source."""
        self._cancels.pop(source, None)
        self._requests.pop(source, None)
        self._effects.append(Close(source, verdict))

    def request(self, source: SourceId, index: int) -> None:
        self._requests.setdefault(source, []).append(index)

    def cancel(self, source: SourceId, index: int) -> None:
        wanted = self._requests.get(source)
        if wanted is not None and index in wanted:
            wanted.remove(index)
            return
        self._cancels.setdefault(source, []).append(index)

    def take(self) -> list[DownloadEffect]:
        """Everything gathered, in order; the outbox is empty after."""
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
    """Gathers verified pieces: the first after a pause goes at once, others wait `batch_s`."""

    __slots__ = ("_batch_s", "_last", "_waiting")

    def __init__(self, batch_s: float) -> None:
        self._batch_s = batch_s
        self._waiting: list[int] = []
        self._last = float("-inf")

    def add(self, index: int) -> None:
        self._waiting.append(index)

    def withdraw(self, index: int) -> None:
        """The piece is held no longer."""
        if index in self._waiting:
            self._waiting.remove(index)

    def due_at(self) -> float | None:
        """When `take` will have something."""
        return self._last + self._batch_s if self._waiting else None

    def take(self, now: float, *, at_once: bool = False) -> tuple[int, ...]:
        """What is due."""
        if not self._waiting or not (at_once or now >= self._last + self._batch_s):
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
