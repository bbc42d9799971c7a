"""Downloads whose files are moved to another place on this device (see peer.shares.moving)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property

from msgspec.structs import replace

from peer.background_tasks import BackgroundTasks
from peer.downloads.creation import DownloadCreator
from peer.downloads.job import DownloadJob, DownloadServices
from peer.records import DownloadRecord, Records
from peer.shares.moving import Moves


class MovedDownloads:
    """Moves, and their view of the downloads of all users. ``jobs`` is the list itself."""

    def __init__(
        self,
        services: DownloadServices,
        jobs: Mapping[str, DownloadJob],
        records: Records[DownloadRecord],
        creator: DownloadCreator,
        tasks: BackgroundTasks,
    ) -> None:
        self._jobs = jobs
        self._records = records
        self._creator = creator
        self._services = services
        self._tasks = tasks

    @cached_property
    def moves(self) -> Moves:
        """The moves of this device."""
        services = self._services
        return Moves(
            services.home,
            services.shares.moving,
            services.manifests,
            services.workers,
            self.relocate,
            services.notify,
            self._tasks,
        )

    def all(self) -> list[DownloadJob]:
        """All downloads of this device."""
        return list(self._jobs.values())

    async def relocate(self, path: str, target: str) -> None:
        """Record that complete downloads to ``path`` are at ``target``. Raises `StorageError`."""
        for job in self.all():
            if job.complete and job.path == path:
                job.record = replace(job.record, path=os.fsencode(target), folder=None)
                job.missing = None
                await self._services.workers.run(self._records.put, job.key, job.record)
                await self._creator.forget_former(job)
                job.notify_changed()
