"""Queue of downloads: how many run at once, and which one starts next.

Owns: the order of the queue, and the decision to start or to rest a download. Not here: how a
download starts and rests (see peer.downloads.lifecycle).
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
from peer.records import DownloadState

log = logging.getLogger(__name__)

REVIEW_S = 1.0  # between two reviews while the queue is not empty


@dataclass(frozen=True, slots=True)
class ActiveDownload:
    """Download that takes a slot. ``gives_way``: no request is in flight, so that resting it
    interrupts nothing."""

    key: str
    still_s: float
    gives_way: bool


def next_starts(
    queue: Sequence[str], active: Sequence[ActiveDownload], at_once: int, open_max: int
) -> tuple[list[str], list[str]]:
    """The downloads to start and those to rest, by key.

    A download without progress for `DOWNLOAD_STILL_S` takes none of the ``at_once`` slots.
    Why: a source that never returns must not hold up other downloads. At ``open_max`` open
    downloads, the stillest ones rest for as many of the queue.
    """
    moving = sum(1 for one in active if one.still_s < limits.DOWNLOAD_STILL_S)
    wanted = max(0, min(len(queue), at_once - moving))
    free = max(0, open_max - len(active))
    still = [one for one in active if one.gives_way and one.still_s >= limits.DOWNLOAD_STILL_S]
    still.sort(key=lambda one: -one.still_s)
    # Resting ends after this review; the next review gives the slots away.
    return list(queue[: min(wanted, free)]), [one.key for one in still[: max(0, wanted - free)]]


def open_max() -> int:
    """The number of downloads that may be open.

    Each takes three or four descriptors; commands, sources and served files need some as well.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(limits.DOWNLOADS_AT_ONCE, min(limits.DOWNLOADS_OPEN_MAX, soft // 10))


class DownloadQueue:
    """Starts downloads as slots become free.

    ``jobs`` returns the downloads of the current user, oldest first.
    """

    def __init__(self, lifecycle: DownloadLifecycle, jobs: Callable[[], list[DownloadJob]]) -> None:
        self._lifecycle = lifecycle
        self._jobs = jobs
        self._open_max = open_max()
        self._round = 0
        self._timer: asyncio.TimerHandle | None = None

    def is_free(self, being_created: int = 0) -> bool:
        """Whether a new download may start at once."""
        jobs = self._jobs()
        active = self._active(jobs)
        moving = sum(1 for one in active if one.still_s < limits.DOWNLOAD_STILL_S) + being_created
        return (
            moving < limits.DOWNLOADS_AT_ONCE
            and len(active) + being_created < self._open_max
            and not any(job.waits for job in jobs)
        )

    def add(self, job: DownloadJob) -> None:
        """Queue a download: it starts in its turn, perhaps at once."""
        job.queued = True
        self.review()

    def review(self) -> None:
        """Start and rest downloads as `next_starts` decides. Cheap while the queue is empty."""
        jobs = self._jobs()
        waiting = sorted((job for job in jobs if job.waits), key=lambda job: job.rank)
        if waiting:
            start, rest = next_starts(
                [job.key for job in waiting if job.at_rest],
                self._active(jobs),
                limits.DOWNLOADS_AT_ONCE,
                self._open_max,
            )
            by_key = {job.key: job for job in jobs}
            for key in start:
                by_key[key].queued, by_key[key].still_since = False, monotonic()
                self._lifecycle.start(by_key[key])
            for key in rest:
                self._rest(by_key[key])
        self._number(jobs, [job for job in waiting if job.waits])

    def review_soon(self) -> None:
        """`review` after the step that frees a slot."""
        asyncio.get_running_loop().call_soon(self.review)

    def _number(self, jobs: Sequence[DownloadJob], waiting: Sequence[DownloadJob]) -> None:
        for job in jobs:
            if job.position is not None and not job.waits:
                job.position = None
                job.notify_changed()
        for position, job in enumerate(waiting, 1):
            job.position = position
        if waiting and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(REVIEW_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.review()

    def _active(self, jobs: Sequence[DownloadJob]) -> list[ActiveDownload]:
        """The downloads that are open, or are being opened or closed."""
        now, active = monotonic(), []
        for job in jobs:
            if job.transfer is None and (job.waits or job.at_rest):
                continue
            gives_way = False
            if job.record.state == DownloadState.PAUSED:
                pass  # it waits for its disk, and holds up no other one
            elif job.transfer is None or job.busy:
                job.still_since = now  # it is being opened, copied or verified
            else:
                progress = job.transfer.progress()
                if progress.held_bytes != job.seen_bytes:
                    job.seen_bytes, job.still_since = progress.held_bytes, now
                gives_way = not any(source.in_flight for source in progress.sources)
            active.append(ActiveDownload(job.key, now - job.still_since, gives_way))
        return active

    def _rest(self, job: DownloadJob) -> None:
        """Rest a download without progress, and move it to the end of the queue."""
        if not job.record.by_user:
            self._round += 1
            job.later = self._round
        job.queued = True
        log.info("a download without progress gives its slot to another")
        self._lifecycle.rest_soon(job)

    def close(self) -> None:
        """Start no more downloads."""
        if self._timer is not None:
            self._timer.cancel()
