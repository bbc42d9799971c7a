"""Downloads as follows begin, watch and end them (see peer.follows).

Owns: what differs from the commands of a user: the destination must lie in one very folder, and a
download that a newer version supersedes is removed without a word.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from common.ids import UserId
from common.messages import control
from common.shared_refusals import not_logged_in
from peer.background_tasks import BackgroundTasks
from peer.downloads.creation import DownloadCreator
from peer.downloads.earlier_versions import Version
from peer.downloads.job import DownloadJob
from peer.downloads.lifecycle import DownloadLifecycle
from peer.downloads.queue import DownloadQueue
from peer.files.folder_identity import Folder
from peer.records import DownloadRecord, DownloadState

SETTLE_S = 5.0


class FollowedDownloads:
    """View of the list of downloads for follows. ``jobs`` is the list itself.

    ``current_user`` returns the user who is logged in; ``abandon`` removes a download.
    """

    def __init__(
        self,
        jobs: Mapping[str, DownloadJob],
        creator: DownloadCreator,
        lifecycle: DownloadLifecycle,
        queue: DownloadQueue,
        changes: BackgroundTasks,
        current_user: Callable[[], UserId | None],
        abandon: Callable[[DownloadJob], Coroutine[Any, Any, None]],
    ) -> None:
        self._jobs = jobs
        self._creator = creator
        self._lifecycle = lifecycle
        self._queue = queue
        self._changes = changes
        self._current_user = current_user
        self._abandon = abandon
        self.on_cancelled: Callable[[DownloadRecord], None] = lambda record: None
        """Called when the user cancels a download."""

    def all(self) -> list[DownloadJob]:
        """Return the downloads of the current user."""
        user = self._current_user()
        return [job for job in self._jobs.values() if job.record.user == user]

    def active(self) -> dict[bytes, str]:
        """Return the contents that are being fetched or queued, with a destination of each."""
        return {job.content: job.path for job in self.all() if job.record.state == "D"}

    async def begin(
        self, group: str, name: str, path: str, folder: Folder, placed: Version | None
    ) -> DownloadRecord:
        """Queue a download of the current version to ``path``, directly in ``folder``.

        It takes the place of an earlier version of the name that stands there unchanged; the follow
        has ``placed`` one. Raises `Away` if another folder is there, and the errors of a download
        that a user begins.
        """
        user = self._current_user()
        if user is None:
            raise not_logged_in()
        into = os.path.dirname(path) + "/"
        command = control.DownloadFile(group, name, into, wait=False)
        prepared = await self._creator.prepare(command, user, lambda progress: None, folder, placed)
        if isinstance(prepared, DownloadJob):
            return prepared.record

        async def create() -> DownloadRecord:
            return (await prepared()).record

        return await asyncio.shield(self._changes.start(create()))

    async def settle(self) -> None:
        """Wait for downloads that are being created: they are in the list afterwards."""
        await self._changes.wait(SETTLE_S)

    async def discard(self, key: str) -> None:
        """Remove an unfinished download and its part."""
        job = self._jobs.get(key)
        if job is not None and not job.complete:
            await asyncio.shield(self._changes.start(self._abandon(job)))

    async def retry(self, key: str) -> None:
        """Try a failed download again."""
        job = self._jobs.get(key)
        if job is None or job.record.state != DownloadState.FAILED or not job.at_rest:
            return
        job.error = None
        job.set_active()
        self._queue.add(job)
        await self._lifecycle.save(job)
