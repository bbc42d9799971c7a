"""Publication of a completed download as a share of its user."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace

from common import names
from common.errors import StorageError
from common.manifest import Manifest
from peer.downloads.job import DownloadJob, DownloadServices
from peer.downloads.piece_writer import STORAGE_RETRY_S
from peer.files.fingerprint import SharedLocation
from peer.records import DownloadRecord, DownloadState, Records, ShareRecord


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
        done.user, done.group, done.name, done.content, place, done.topic, version=done.version
    )
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
            return
