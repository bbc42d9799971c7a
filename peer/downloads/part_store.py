"""Parts and journals of downloads: opened again after a restart, looked for, and removed.

Owns: the journals of a home, and the check that a download's folder is the right one. Not here:
what becomes of a download (see peer.downloads.lifecycle) and the bytes (see peer.files).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from functools import partial

from msgspec.structs import replace

from common import manifest as manifests
from common.errors import IntegrityError, MiniTorrentError, RemoteProtocolError, StorageError
from common.ids import ContentId
from common.manifest import Manifest
from peer.downloads.job import DownloadJob, DownloadServices
from peer.downloads.manifest_fetch import fetch_manifest
from peer.files import open_part
from peer.files.errors import Away, UnsafeDestination
from peer.files.journal import Journal, is_begun
from peer.files.missing_folders import make_folders, remove_folders
from peer.files.part_resources import Fit
from peer.files.partial_content import PartialContent
from peer.files.replacement import Replaces
from peer.files.selection import nothing, select
from peer.files.unverified_part import UnverifiedPart
from peer.records import DownloadRecord

log = logging.getLogger(__name__)


class PartStore:
    """Opens the part of a download; all work on files runs on worker threads."""

    def __init__(self, services: DownloadServices) -> None:
        self._services = services
        self._journals = services.home / "journals"
        self._journals.mkdir(mode=0o700, exist_ok=True)

    def journal_of(self, key: str) -> str:
        """The path of a download's journal."""
        return str(self._journals / key)

    async def remove_journal(self, job: DownloadJob) -> None:
        """Remove the journal of a download whose part is closed or gone."""
        journal = Journal(self.journal_of(job.key), job.content)
        await self._services.workers.run(journal.remove)

    async def remove_folders(self, job: DownloadJob) -> None:
        """Remove the folders that were made for a download, as far as they are empty, and the rest
        of an interrupted addition of files."""
        if not job.complete:
            if job.record.present:
                with contextlib.suppress(StorageError):
                    await self._services.workers.run(open_part.remove_addition, job.path)
            made = list(map(os.fsdecode, job.record.made))
            await self._services.workers.run(remove_folders, made)

    async def folder_of(self, job: DownloadJob) -> bool:
        """Check the folder of a download; return whether its record changed.

        Raises `Away` if the folder cannot be reached, or if another one is in its place.
        """
        if job.record.folder is None and job.record.made:  # the process ended before they were made
            made = list(map(os.fsdecode, job.record.made))
            await self._services.workers.run(make_folders, made)
        begun = is_begun(self.journal_of(job.key))
        now = await self._services.workers.run(
            open_part.require_folder, job.path, job.record.folder, begun
        )
        if now is None or job.record.folder == now:
            return False
        job.record = replace(job.record, folder=now)
        return True

    async def load_held_bytes(self, job: DownloadJob) -> None:
        """Learn from the journal how much is held of a download that rests since a restart."""
        try:
            held_bytes = await self._services.workers.run(self._held_by_journal, job)
        except MiniTorrentError as error:
            log.info("the held bytes of a download are unknown: %s", error)
            return
        if job.transfer is None and not job.held_bytes:
            job.held_bytes = held_bytes

    def _held_by_journal(self, job: DownloadJob) -> int:
        encoded = self._services.manifests.get(job.content)
        if encoded is None or not _may_have_part(job):
            return 0
        decoded = manifests.decode(encoded, job.content)
        path = self.journal_of(job.key)
        journal, found = Journal.resume(path, job.content, decoded.piece_count)
        journal.close()
        return sum(decoded.piece_span(index)[1] for index in found.pieces)

    async def manifest_of(self, job: DownloadJob) -> Manifest:
        """The manifest of a download, fetched again if this device lost it.

        Raises `TransportError` and `Refused` if the tracker cannot give it now.
        """
        services = self._services
        encoded = services.manifests.get(job.content)
        if encoded is None or manifests.manifest_id(encoded) != job.content:
            total = (await services.link.manifest_part(job.group, job.content)).reply.total_bytes
            encoded = await fetch_manifest(
                services, job.group, job.content, total, [], lambda _: None
            )
            await services.workers.run(services.manifests.put, job.content, encoded)
        job.encoded = encoded
        return await services.workers.run(manifests.decode, encoded, job.content)

    async def recover(
        self, job: DownloadJob, decoded: Manifest, *, anew: bool = False
    ) -> PartialContent:
        """Open the part again, and verify what its journal claims. Cancelling ends that.

        ``anew``: as of `open_part.resume`.
        """
        part = await self._resume(job, decoded, anew=anew)
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(part.recover, cancelled=cancelled.is_set)
        except BaseException:
            cancelled.set()
            self._services.workers.submit(lambda *_: None, part.close)
            raise

    async def find(self, job: DownloadJob) -> UnverifiedPart | None:
        """The part to remove, if there is one of ours.

        Raises `StorageError` if there is one and it cannot be removed.
        """
        encoded = self._services.manifests.get(job.content)
        if encoded is None or not await self._services.workers.run(open_part.has_part, job.path):
            return None
        try:
            return await self._resume(job, manifests.decode(encoded, job.content))
        except (IntegrityError, RemoteProtocolError, UnsafeDestination) as error:
            log.info("there is no part of ours to remove: %s", error)
            return None

    async def _resume(
        self, job: DownloadJob, decoded: Manifest, *, anew: bool = False
    ) -> UnverifiedPart:
        fit = await fit_of(self._services, job, decoded)
        opening = asyncio.ensure_future(
            self._services.workers.run(
                partial(open_part.resume, fit=fit, anew=anew),
                job.path,
                decoded,
                job.content,
                self.journal_of(job.key),
                job.record.times,
            )
        )
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread opens it all the same.
            opening.add_done_callback(self._close_opened)
            raise

    def _close_opened(self, opened: asyncio.Future[UnverifiedPart]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            self._services.workers.submit(lambda *_: None, opened.result().close)


async def fit_of(services: DownloadServices, job: DownloadJob, decoded: Manifest) -> Fit:
    """The rule of what becomes of a part, by the record of its download."""
    earlier, encoded = job.record.replaces, None
    if earlier is not None:
        encoded = services.manifests.get(ContentId(earlier.content))
    replaces = Replaces() if job.record.overwrite else None
    if earlier is not None and encoded is not None:
        known = await services.workers.run(manifests.decode, encoded, ContentId(earlier.content))
        replaces = Replaces((known,), b"" if job.record.overwrite else earlier.looks)
    return await services.workers.run(_fit, job.record, decoded, replaces)


def _fit(record: DownloadRecord, decoded: Manifest, replaces: Replaces | None) -> Fit:
    if not record.files and not record.present:
        return Fit(replaces)
    leaves = select(decoded, record.files)
    there = select(decoded, record.present) if record.present else nothing(decoded)
    return Fit(replaces, leaves - there, leaves, adds=bool(record.present))


def _may_have_part(job: DownloadJob) -> bool:
    """Whether there is a part, or may be one in a folder that is away."""
    try:
        open_part.require_folder(job.path, job.record.folder, False)
    except Away:
        return True
    return open_part.has_part(job.path)


def checkpoint_and_close(part: PartialContent) -> None:
    """Sync and journal the last pieces, then close a part. Blocks."""
    try:
        part.checkpoint()
    except MiniTorrentError as error:
        log.warning("the last pieces were not synced and are fetched again: %s", error)
    finally:
        part.close()
