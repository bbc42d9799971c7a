"""Publication of a completed download as a share of its user."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from msgspec.structs import replace

from common import names
from common.errors import StorageError
from common.manifest import Manifest
from peer.downloads.job import DownloadJob, DownloadServices
from peer.downloads.piece_writer import STORAGE_RETRY_S
from peer.files.fingerprint import SharedLocation
from peer.records import DownloadRecord, DownloadState, Records, ShareRecord

log = logging.getLogger(__name__)


async def publish_as_share(
    services: DownloadServices,
    records: Records[DownloadRecord],
    job: DownloadJob,
    decoded: Manifest,
    place: SharedLocation,
) -> None:
    """Share the content and record its completion; retry until the home takes the records."""
    reported, done = False, job.record
    share = ShareRecord(
        done.user,
        done.group,
        done.name,
        done.content,
        place,
        done.topic,
        version=done.version,
        fetched=not done.in_place,
    )
    job.set_hooks_owed(services.hooks.owes(done))
    while True:
        try:
            if not done.files:  # a part of a folder is no share
                await services.shares.adopt_download(share, decoded, job.encoded)
            await services.workers.run(
                records.put, job.key, replace(job.record, state=DownloadState.COMPLETE)
            )
        except StorageError as error:
            if not reported:
                name = names.printable(job.record.name)
                services.notify(f"{name} is complete, and will be recorded later: {error}")
            reported = True
            # Why: the file is in place, so a waiting command can end now.
            job.set_complete()
            await asyncio.sleep(STORAGE_RETRY_S)
        else:
            job.set_complete()
            services.counts.completed(job.record.elapsed_s)
            run_hooks(services, records, job)
            return


def run_owed_hooks(
    services: DownloadServices, records: Records[DownloadRecord], jobs: Iterable[DownloadJob]
) -> None:
    """Run the hooks that had not ended when this peer ended the last time."""
    for job in jobs:
        if job.complete:
            run_hooks(services, records, job)


def run_hooks(
    services: DownloadServices, records: Records[DownloadRecord], job: DownloadJob
) -> None:
    """Run the hooks that a complete download owes, and record when they have ended."""

    def settled() -> None:
        job.set_hooks_owed(False)
        services.workers.submit(recorded, records.put_again, job.key, job.record)

    def recorded(_: object, error: BaseException | None) -> None:
        if error is not None:
            log.warning("the hooks of a download may run again after a restart: %s", error)

    if job.record.hooks_owed:
        services.hooks.completed(job.record, settled)
