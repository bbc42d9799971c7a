"""Queue of downloads: how many run at once, and which one starts next.

Owns the order of the queue and the decision to start or to rest a download. How one starts and
rests is ``life``'s.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common import limits
from common.host.clock import monotonic
from peer.downloads.job import DownloadJob
from peer.downloads.lifecycle import DownloadLifecycle

log = logging.getLogger(__name__)

TICK_S = 1.0  # how often the queue is looked at while it is not empty


@dataclass(frozen=True, slots=True)
class Turn:
    """One download that takes a place. ``gives_way``: no source is asked for anything, so that
    resting it interrupts nothing."""

    key: str
    still_s: float
    gives_way: bool


def next_turns(
    queue: Sequence[str], places: Sequence[Turn], at_once: int, open_max: int
) -> tuple[list[str], list[str]]:
    """The downloads to start and those to rest, by key.

    A download without progress for `DOWNLOAD_STILL_S` holds no place among the ``at_once``, for a
    source that never returns must not hold up the others. At ``open_max`` open ones, the stillest
    ones rest for as many of the queue.
    """
    moving = sum(1 for turn in places if turn.still_s < limits.DOWNLOAD_STILL_S)
    wanted = max(0, min(len(queue), at_once - moving))
    room = max(0, open_max - len(places))
    still = [turn for turn in places if turn.gives_way and turn.still_s >= limits.DOWNLOAD_STILL_S]
    still.sort(key=lambda turn: -turn.still_s)
    # Those that rest end after the look; the places that they leave are given at the next one.
    return list(queue[: min(wanted, room)]), [turn.key for turn in still[: max(0, wanted - room)]]


def open_max() -> int:
    """How many downloads may be open: each takes three or four descriptors, and command lines,
    sources and served files need some as well."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limits.DOWNLOADS_AT_ONCE, min(limits.DOWNLOADS_OPEN_MAX, soft // 10))


class Turns:
    """Starts the downloads of the queue as places become free.

    ``entries`` gives the downloads of the current user, oldest first.
    """

    def __init__(self, life: DownloadLifecycle, entries: Callable[[], list[DownloadJob]]) -> None:
        self._life = life
        self._entries = entries
        self._open_max = open_max()
        self._round = 0
        self._timer: asyncio.TimerHandle | None = None

    def is_free(self, being_made: int = 0) -> bool:
        """Whether a new download may start at once."""
        entries = self._entries()
        places = self._places(entries)
        moving = sum(1 for turn in places if turn.still_s < limits.DOWNLOAD_STILL_S) + being_made
        return (
            moving < limits.DOWNLOADS_AT_ONCE
            and len(places) + being_made < self._open_max
            and not any(entry.waits for entry in entries)
        )

    def queue(self, entry: DownloadJob) -> None:
        """Put a download into the queue: it starts when its turn comes, perhaps at once."""
        entry.queued = True
        self.look()

    def look(self) -> None:
        """Start and rest what is due. Cheap while the queue is empty."""
        entries = self._entries()
        waiting = sorted((e for e in entries if e.waits), key=lambda entry: entry.turn)
        if waiting:
            start, rest = next_turns(
                [entry.key for entry in waiting if not entry.busy],
                self._places(entries),
                limits.DOWNLOADS_AT_ONCE,
                self._open_max,
            )
            by_key = {entry.key: entry for entry in entries}
            for key in start:
                by_key[key].queued, by_key[key].still_since = False, monotonic()
                self._life.schedule_resume(by_key[key])
            for key in rest:
                self._rest(by_key[key])
        self._number(entries, [entry for entry in waiting if entry.waits])

    def look_soon(self) -> None:
        """`look`, when the step that frees a place has ended."""
        asyncio.get_running_loop().call_soon(self.look)

    def _number(self, entries: Sequence[DownloadJob], waiting: Sequence[DownloadJob]) -> None:
        for entry in entries:
            if entry.place is not None and not entry.waits:
                entry.place = None
                entry.signal()
        for place, entry in enumerate(waiting, 1):
            entry.place = place
        if waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.look()

    def _places(self, entries: Sequence[DownloadJob]) -> list[Turn]:
        """The downloads that are open, or are being opened or closed."""
        now, turns = monotonic(), []
        for entry in entries:
            if entry.running is None and (entry.waits or not entry.busy):
                continue
            gives_way = False
            if entry.running is None or entry.busy:
                entry.still_since = now  # being opened, copied or verified
            else:
                progress = entry.running.progress()
                if progress.held_bytes != entry.seen_bytes:
                    entry.seen_bytes, entry.still_since = progress.held_bytes, now
                gives_way = not any(source.asked for source in progress.sources)
            turns.append(Turn(entry.key, now - entry.still_since, gives_way))
        return turns

    def _rest(self, entry: DownloadJob) -> None:
        """Rest a download without progress, and put it at the end of the queue."""
        if not entry.record.by_user:
            self._round += 1
            entry.later = self._round
        entry.queued = True
        log.info("a download without progress gives its place to another")
        self._life.rest_soon(entry)

    def close(self) -> None:
        """Start nothing further."""
        if self._timer is not None:
            self._timer.cancel()
