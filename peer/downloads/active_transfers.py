"""Active transfers: each fetches the missing pieces of a download and serves the held ones.

Owns: which downloads fetch, their parts in the inventory, and the events that this device follows
for them. Not here: why a transfer begins and ends (see peer.downloads.lifecycle).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from common.errors import MiniTorrentError, Refused, StorageError
from common.host.clock import monotonic
from common.manifest import Manifest
from common.messages import tracker
from common.messages.refusals import Code
from peer.downloads.job import DownloadJob, DownloadServices, order_named
from peer.downloads.transfer import Transfer
from peer.files.fingerprint import SharedLocation
from peer.files.partial_content import PartialContent
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield

log = logging.getLogger(__name__)


class ActiveTransfers:
    """Downloads that have a transfer, by key."""

    def __init__(self, services: DownloadServices, rng: random.Random) -> None:
        self._services = services
        self._rng = rng
        self._jobs: dict[str, DownloadJob] = {}

    def add(
        self,
        job: DownloadJob,
        decoded: Manifest,
        *,
        on_complete: Callable[[], None],
        on_pause: Callable[[str | None], None],
        on_failed: Callable[[StorageError], None],
    ) -> Transfer:
        """A transfer for a job with an open part. It does nothing before `start`."""
        services = self._services
        assert job.part is not None
        transfer = Transfer(
            job.group,
            job.content,
            decoded,
            job.part,
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
            on_complete=on_complete,
            on_paused=on_pause,
            on_failed=on_failed,
            rng=random.Random(self._rng.getrandbits(64)),
        )
        job.transfer = transfer
        job.began = monotonic()
        self._jobs[job.key] = job
        services.replica.follow_share(job.group, job.content)
        return transfer

    def start(self, job: DownloadJob, transfer: Transfer) -> None:
        """Offer the part to others, and start to fetch."""
        self._offer_part(job, transfer)
        transfer.start()

    async def learn_sources(self, job: DownloadJob) -> None:
        """Request the sources of a content from the tracker; an error is logged."""
        if job.transfer is None:
            return
        ask = tracker.GetSources(job.group, job.content)
        try:
            await self._services.tickets.want(job.group)
            reply = (await self._services.link.ask(ask, tracker.Sources)).reply
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

        If they are replaced, their shares rest until the content is published, and `stop`.
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

    def stop(self, job: DownloadJob) -> None:
        """End the transfer; the part stays open and offered."""
        if job.transfer is None:
            return
        job.held_bytes = job.transfer.progress().held_bytes
        job.transfer.close()
        job.transfer = None
        self._services.shares.end_rest_at(job.path)
        del self._jobs[job.key]
        # Events about a share take memory here and at the tracker, which bounds them.
        share = job.group, job.content
        if all((other.group, other.content) != share for other in self._jobs.values()):
            self._services.replica.unfollow_share(*share)

    def detach_part(self, job: DownloadJob) -> PartialContent | None:
        """Stop fetching and serving; return the part for the caller to close."""
        self.stop(job)
        part, job.part = job.part, None
        self.withdraw_part(job, part)
        return part

    def withdraw_part(self, job: DownloadJob, part: PartialContent | None) -> None:
        """Offer the part of a job no longer."""
        if part is None:
            return
        self._services.inventory.withdraw_part(job.content, part)
        # Another download may fetch the same content to another place.
        for other in self._jobs.values():
            if other.content == job.content and other.transfer is not None:
                self._offer_part(other, other.transfer)

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
