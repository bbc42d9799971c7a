"""Downloads that readers begin, in a folder of the home: ``reads/CONTENT/NAME``.

Owns: when one begins, rests and is removed. They are downloads like others (see peer.downloads):
listed, resumed after a restart, and shared when complete. But they fetch pieces under a read head
and no others, and rest soon after their last reader has left. Beyond `limits.READS_BYTES_MAX` in
all, the one that was read longest ago is removed. One that its user takes off the list is removed
too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

from common import limits
from common.errors import MiniTorrentError, Refused
from common.host.clock import monotonic
from common.ids import ContentId
from common.messages import control
from common.messages.refusals import Code
from common.names import quoted, versioned
from peer.downloads.job import DownloadJob
from peer.downloads.manager import Downloads
from peer.downloads.transfer import Transfer
from peer.downloads.views import missing_text
from peer.reading.target import Target
from peer.shares.manager import Shares
from peer.swarm.fetching.picker import Order
from peer.workers import Workers

log = logging.getLogger(__name__)

FOLDER = "reads"
RESTS_AFTER_S = 10.0  # a program that reads ranges comes back sooner
YOUNG_S = 60.0  # a folder without a download may be that of one that is being created


class ReadDownloads:
    """The downloads of readers, of the current user."""

    def __init__(self, home: Path, downloads: Downloads, shares: Shares, workers: Workers) -> None:
        self._root = home / FOLDER
        self._downloads = downloads
        self._shares = shares
        self._workers = workers
        self._used_at: dict[ContentId, float] = {}
        self._locks: defaultdict[ContentId, asyncio.Lock] = defaultdict(asyncio.Lock)

    def all(self) -> list[DownloadJob]:
        """All downloads of the current user, those of readers and the others."""
        return self._downloads.for_follows.all()

    def running(self, content: ContentId, piece: int) -> Transfer | None:
        """A transfer that fetches the piece, if there is one."""
        for job in self.all():
            if _fetches(job, content, piece) and job.transfer is not None:
                return job.transfer
        return None

    async def want(self, target: Target, piece: int, *, again: bool) -> None:
        """Begin or resume a download that fetches the piece, unless one does.

        ``again``: also one that has failed. Raises `MiniTorrentError`.
        """
        self.used(target.content)
        async with self._locks[target.content]:
            await self._want(target, piece, again)

    async def _want(self, target: Target, piece: int, again: bool) -> None:
        if any(_fetches(job, target.content, piece) for job in self.all()):
            return
        job = self._own(target.content)
        if job is not None and job.complete:
            # It is a share that is being opened or verified, or its files were changed.
            if await self._workers.run(missing_text, job.record) is None:
                return
            await self._remove(job)
            job = None
        if job is None:
            await self._begin(target)
        elif job.unfinished or again:
            await self._downloads.resume(job.group, job.path)
        else:
            reason = job.record.reason or "it failed"
            raise job.error or Refused(Code.FAILED, f"read {quoted(target.name)}: {reason}")

    async def _begin(self, target: Target) -> None:
        folder = self._folder(target.content)
        await self._workers.run(_make_folder, self._root)
        command = control.DownloadFile(
            target.group,
            versioned(target.name, target.version),
            f"{folder}/",
            wait=False,
            pick=Order.READ.value,
        )
        await self._downloads.begin(command, lambda _: None)
        if self._own(target.content) is None:
            raise Refused(Code.CHANGED, f"read {quoted(target.name)}: it changed just now", "again")

    def used(self, content: ContentId) -> None:
        """Record that a content is read now."""
        self._used_at[content] = monotonic()

    def _folder(self, content: ContentId) -> Path:
        return self._root / content.hex()

    def _own(self, content: ContentId) -> DownloadJob | None:
        folder = os.fspath(self._folder(content))
        for job in self.all():
            if os.path.dirname(job.path) == folder:
                return job
        return None

    # -- rest and removal -----------------------------------------------------------------------

    async def tidy(self, read: Collection[ContentId]) -> None:
        """Rest and remove downloads that nothing reads; ``read``: the contents with a reader."""
        for content in read:
            self.used(content)
        root = os.fspath(self._root)
        own = [job for job in self.all() if os.path.dirname(os.path.dirname(job.path)) == root]
        own.sort(key=lambda job: (self._used_at.get(job.content, 0.0), job.record.started_ms))
        total = sum(job.record.size for job in own)
        for job in own:
            if job.content in read or job.busy:
                continue
            try:
                if total > limits.READS_BYTES_MAX:
                    await self._remove(job)
                    total -= job.record.size
                elif job.unfinished and not job.by_user and self._is_idle(job):
                    await self._downloads.pause(job.group, job.path)
            except MiniTorrentError as error:
                log.info("a download of a reader stays for now: %s", error)
        await self._remove_unlisted(read)

    def _is_idle(self, job: DownloadJob) -> bool:
        return monotonic() - self._used_at.get(job.content, -RESTS_AFTER_S) > RESTS_AFTER_S

    async def _remove(self, job: DownloadJob) -> None:
        if job.complete:
            await self._shares.stop_at(job.path, job.record.version)
            await self._downloads.cancel(job.group, job.path)
        else:
            await self._downloads.for_follows.discard(job.key)
        await self._workers.run(shutil.rmtree, self._folder(job.content), True)
        self._used_at.pop(job.content, None)

    async def _remove_unlisted(self, read: Collection[ContentId]) -> None:
        """Remove folders whose download is off the list of every user."""
        kept = {content.hex() for content in {*self._downloads.contents(), *read}}
        for folder in await self._workers.run(_old_folders, self._root):
            if folder.name in kept:
                continue
            try:
                for share in self._shares.all():
                    place = share.record.place.path
                    if os.path.dirname(place) == os.fspath(folder):
                        await self._shares.stop_at(place, share.record.version)
            except MiniTorrentError as error:
                log.info("what was read once stays for now: %s", error)
                continue
            await self._workers.run(shutil.rmtree, folder, True)


def _fetches(job: DownloadJob, content: ContentId, piece: int) -> bool:
    """Whether a download fetches the piece, now or in its turn."""
    if job.content != content or not job.unfinished or job.by_user:
        return False
    wanted = None if job.part is None else job.part.wanted
    return piece in wanted if wanted is not None else not job.record.files


def _make_folder(path: Path) -> None:
    path.mkdir(mode=0o700, exist_ok=True)


def _old_folders(root: Path) -> list[Path]:
    try:
        with os.scandir(root) as found:
            young = time.time() - YOUNG_S
            return [
                Path(entry.path)
                for entry in found
                if entry.is_dir(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_mtime < young
            ]
    except OSError:
        return []
