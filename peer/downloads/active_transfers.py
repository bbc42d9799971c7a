"""Active transfers: each fetches the missing pieces of a download and serves the held ones.

Owns: which downloads fetch, their parts in the inventory, and the events that this device follows
for them. Not here: why a transfer begins and ends (see peer.downloads.lifecycle).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from common.errors import MiniTorrentError, Refused
from common.manifest import Manifest
from common.messages import tracker
from common.messages.refusals import Code
from peer.background_tasks import BackgroundTasks
from peer.downloads.job import DownloadJob, DownloadServices, order_named
from peer.downloads.local_copy import LocalPieces
from peer.downloads.states import Fetching
from peer.downloads.transfer import Transfer
from peer.files.fingerprint import SharedLocation
from peer.files.partial_content import PartialContent
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield

log = logging.getLogger(__name__)


class ActiveTransfers:
    """Downloads that have a transfer, by key.

    ``on_disk_pause`` is called with the reason when the disk of a download takes nothing for now,
    and with None when it takes data again.
    """

    def __init__(
        self,
        services: DownloadServices,
        rng: random.Random,
        on_disk_pause: Callable[[DownloadJob, str | None], None],
    ) -> None:
        self._services = services
        self._rng = rng
        self._on_disk_pause = on_disk_pause
        self._jobs: dict[str, DownloadJob] = {}
        self._tasks = BackgroundTasks()

    @contextmanager
    def open(self, job: DownloadJob, decoded: Manifest, local: LocalPieces) -> Iterator[Transfer]:
        """A transfer of a job with an open part, which is offered to others meanwhile."""
        services, part = self._services, job.part
        assert part is not None
        transfer = Transfer(
            job.group,
            job.content,
            decoded,
            part,
            pool=services.pool,
            inventory=services.inventory,
            workers=services.workers,
            settings=DownloadSettings(
                order=order_named(job.record.pick),
                buffer_bytes=services.settings.buffer_bytes,
                used_max=services.settings.sources_used,
            ),
            limit=services.limit,
            counts=services.counts,
            ipc_allowed=services.link.on_ipc,
            pause=job,
            on_paused=partial(self._on_disk_pause, job),
            rng=random.Random(self._rng.getrandbits(64)),
            local=local.held,
            planned_reuse=local.planned_reuse,
        )
        job.state = Fetching(transfer)
        self._jobs[job.key] = job
        services.replica.follow_share(job.group, job.content)
        try:
            if not (local.is_copied and part.is_complete):  # else the copy is served
                self._offer_part(job, transfer)
            transfer.start()
            services.presence_changed()
            yield transfer
        finally:
            job.held_bytes = transfer.progress().held_bytes
            transfer.close()
            self._end(job, part)

    def _end(self, job: DownloadJob, part: PartialContent) -> None:
        services = self._services
        services.shares.end_rest_at(job.path)
        del self._jobs[job.key]
        # Events about a share take memory here and at the tracker, which bounds them.
        share = job.group, job.content
        if all((other.group, other.content) != share for other in self._jobs.values()):
            services.replica.unfollow_share(*share)
        services.inventory.withdraw_part(job.content, part)
        # Another download may fetch the same content to another place.
        for other in self._jobs.values():
            if other.content == job.content and other.transfer is not None:
                self._offer_part(other, other.transfer)

    def learn_sources_soon(self, job: DownloadJob) -> None:
        """`learn_sources` as a task. The download may be complete before the tracker answers."""
        self._tasks.start(self.learn_sources(job))

    async def learn_sources(self, job: DownloadJob) -> None:
        """Request the sources of a content from the tracker; an error is logged."""
        if job.transfer is None:
            return
        command = tracker.GetSources(job.group, job.content)
        try:
            await self._services.tickets.want(job.group)
            reply = await self._services.link.request(command, tracker.Sources)
        except MiniTorrentError as error:
            log.debug("no sources were learned: %s", error)
            if isinstance(error, Refused) and error.code is Code.UNKNOWN_SHARE:
                job.unshared = True
            return
        job.unshared = False
        if job.transfer is not None:
            job.transfer.sources(reply.sources)

    async def finalize(self, job: DownloadJob, transfer: Transfer) -> SharedLocation | None:
        """`Transfer.finalize`, after the end of serving the files that it replaces.

        If they are replaced, their shares rest until it is published and the transfer ends.
        """
        shares, place = self._services.shares, None
        if job.record.overwrite or job.record.replaces:
            shares.rest_at(job.path, job.content)
        try:
            place = await transfer.finalize()
        finally:
            if place is None:
                shares.end_rest_at(job.path)
        return place

    def _offer_part(self, job: DownloadJob, transfer: Transfer) -> None:
        part, manifest = transfer.part, transfer.manifest
        self._services.inventory.put(
            job.group,
            job.content,
            manifest,
            job.encoded,
            part,
            Bitfield(manifest.piece_count, part.held_indexes()),
            on_damaged=transfer.damaged,
        )
