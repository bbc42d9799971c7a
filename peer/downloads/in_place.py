"""Content that stands at the destination of its download already.

It was there before, or the process ended between the rename and its record. Owns: the search for
it, and the completion of such a download. Not here: other downloads (see peer.downloads.lifecycle).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from common.errors import MiniTorrentError
from common.manifest import Manifest
from common.messages import control
from peer.downloads.job import DownloadJob, DownloadServices
from peer.downloads.part_store import fit_of
from peer.downloads.publication import publish_as_share
from peer.files import open_part, sharing
from peer.files.fingerprint import SharedLocation
from peer.files.selected_content import selected_at
from peer.records import DownloadRecord, Records
from peer.shares.digesting import Report, with_progress

log = logging.getLogger(__name__)


async def content_at(decoded: Manifest, path: str, report: Report) -> SharedLocation | None:
    """The place of a content if it stands at ``path`` (absolute, without links), else None.

    Every byte is digested, unless a size differs. Cancelling ends that.
    """

    def work(on_progress: sharing.Progress, cancelled: Callable[[], bool]) -> SharedLocation:
        return sharing.recheck(decoded, path, on_progress=on_progress, cancelled=cancelled)

    try:
        return await with_progress(work, decoded.size, report, "checking what is in place")
    except MiniTorrentError as error:
        log.debug("%s is not the content: %s", path, error)
        return None


async def found_after_restart(
    services: DownloadServices, job: DownloadJob, decoded: Manifest
) -> SharedLocation | None:
    """The place of what a download leaves, if the process ended after the content was verified.

    An interrupted addition of files is finished first. Raises `StorageError`.
    """
    run = services.workers.run
    fit = await fit_of(services, job, decoded)
    await run(open_part.finish_addition, job.path, decoded, fit)
    if fit.leaves is None or fit.leaves.is_whole:
        return await content_at(decoded, job.path, no_report)
    return await asyncio.to_thread(selected_at, decoded, job.path, fit.leaves)


async def complete_in_place(
    services: DownloadServices,
    records: Records[DownloadRecord],
    job: DownloadJob,
    decoded: Manifest,
    place: SharedLocation,
) -> None:
    """Complete a download whose content stands at ``place``, and share it."""
    job.encoded = services.manifests.get(job.content) or b""
    fit = await fit_of(services, job, decoded)
    if fit.replaces is not None:
        known = (decoded, *fit.replaces.known)
        job.set_kept(await services.workers.run(open_part.remove_replaced, job.path, known))
    done = job.record
    job.set_verified(done.elapsed_s, done.sources, done.fetched_bytes, decoded.algorithm.value)
    await publish_as_share(services, records, job, decoded, place)


def no_report(_: control.Progress) -> None:
    """The report of work without an observer."""
