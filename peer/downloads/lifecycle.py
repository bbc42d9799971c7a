"""Lifecycle of a download: one coroutine from its slot in the queue to its end, or its next rest.

States (see peer.downloads.states), in their order::

    AtRest ─▶ Opening ─▶ Copying ─▶ Fetching ─▶ Finishing ─▶ Closing ─▶ AtRest
       └────▶ Loading ─▶ AtRest         ▲───────────┘ pieces were damaged

- The queue calls `start`; the coroutine does the rest. Each step may end it: its error becomes the
  record's state and reason. `DownloadState` says ``D`` while it works or is queued, ``P`` while its
  user, its disk or its folder keeps it, ``F`` after a failure, and ``C`` once it is shared.
- To rest, to remove or to forbid a download is to cancel the coroutine, which closes the part.
- A pause of its user is a field of the record, and nothing else keeps it. The transfer goes on
  serving. A pause of the disk is known to the writer (see peer.downloads.piece_writer).

Invariants: at most one coroutine works on a download. A part is open only while it does. A part
leaves the inventory before it is closed. The record of completion is written after the rename; a
restart in between finds the content under its final name.

Owns: the order of the steps. Not here: the list of downloads and the commands of users (see
peer.downloads.manager), transfers and the inventory (see peer.downloads.active_transfers), opening
of parts (see peer.downloads.part_store).
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple, TypeVar

from common import names
from common.errors import ConfigError, IntegrityError, MiniTorrentError, Refused, StorageError
from common.host.clock import monotonic
from common.ids import UserId
from common.manifest import Manifest
from common.messages.base import Source
from peer.downloads.active_transfers import ActiveTransfers
from peer.downloads.counts import FAILED
from peer.downloads.in_place import complete_in_place, found_after_restart
from peer.downloads.job import DownloadJob, DownloadServices, not_a_member
from peer.downloads.local_copy import take_local
from peer.downloads.part_store import PartStore, checkpoint_and_close
from peer.downloads.piece_writer import STORAGE_RETRY_S
from peer.downloads.publication import publish_as_share
from peer.downloads.states import AT_REST, Closing, Copying, Fetching, Finishing, Loading, Opening
from peer.downloads.transfer import Transfer
from peer.files.errors import AlreadyExists, Away, Cancelled, TransientStorageError
from peer.files.fingerprint import SharedLocation
from peer.files.partial_content import PartialContent
from peer.files.unverified_part import UnverifiedPart
from peer.records import DownloadRecord, Records, SourceUse

log = logging.getLogger(__name__)

R = TypeVar("R")


class Opened(NamedTuple):
    """The open part of a download, or the place of its content under its final name.

    ``sources`` of the content, if they were learned just now.
    """

    decoded: Manifest
    found: PartialContent | SharedLocation
    sources: list[Source] | None = None


class DownloadLifecycle:
    """Begins and ends the lives of jobs.

    ``on_slot_free`` is called when a download ends or rests, so that another can start.
    ``forget_former`` removes the rows of earlier downloads to the same path.
    """

    def __init__(
        self,
        services: DownloadServices,
        records: Records[DownloadRecord],
        rng: random.Random,
        on_slot_free: Callable[[], None],
        forget_former: Callable[[DownloadJob], Awaitable[None]],
    ) -> None:
        self._services = services
        self._records = records
        self._on_slot_free = on_slot_free
        self._forget_former = forget_former
        self.parts = PartStore(services)
        self.transfers = ActiveTransfers(services, rng, self._on_disk_pause)

    async def save(self, job: DownloadJob) -> None:
        """Record the state; an error of the disk is logged."""
        try:
            await self._services.workers.run(self._records.put, job.key, job.record)
        except StorageError as error:
            log.error("the state of a download could not be recorded: %s", error)

    def has_left(self, job: DownloadJob) -> bool:
        """Whether the user of a download is no longer in its group."""
        user = UserId(job.record.user)
        return self._services.replica.has_left(user, job.group, job.record.topic)

    # -- the life -------------------------------------------------------------------------------

    def start(self, job: DownloadJob, new: Opened | None = None) -> None:
        """Begin the life of a job at rest, or of a ``new`` one."""
        part = None if new is None else new.found
        job.state = Opening(part if isinstance(part, PartialContent) else None)
        job.discarded = False
        job.task = asyncio.create_task(self._live(job, new), name="download")

    async def _live(self, job: DownloadJob, new: Opened | None) -> None:
        failure: MiniTorrentError | None = None
        try:
            try:
                await self._open_and_fetch(job, new)
            except Cancelled:
                pass
            except MiniTorrentError as error:
                failure = error
            finally:
                await self._close_part(job)
            if failure is not None:
                await self._settle(job, failure)
        finally:
            # A complete row stays in the list as long as this process runs: keep nothing else.
            job.encoded, job.state = b"", AT_REST
            self._on_slot_free()

    async def _open_and_fetch(self, job: DownloadJob, new: Opened | None) -> None:
        if job.by_user:
            return  # paused since it got its slot
        job.set_active()
        if new is None:
            new = await self._retry_transient(job, partial(self._open, job))
        decoded, found, sources = new
        if isinstance(found, PartialContent):
            await self._fetch(job, decoded, found, sources)
        else:
            await self._forget_former(job)
            await complete_in_place(self._services, self._records, job, decoded, found)

    async def _fetch(
        self,
        job: DownloadJob,
        decoded: Manifest,
        part: PartialContent,
        sources: list[Source] | None,
    ) -> None:
        """Hold every piece, give the whole its final name, and share it."""
        job.state, job.reported_away, began = Copying(part), None, monotonic()
        if self.has_left(job):
            raise not_a_member(job.group)
        local = await take_local(self._services, job, decoded, part)
        with self.transfers.open(job, decoded, local) as transfer:
            transfer.sources(sources or [])
            if sources is None or local.is_copied or local.planned_reuse is not None:
                self.transfers.learn_sources_soon(job)  # some may have come since
            place = None
            while place is None:
                await transfer.until_complete()
                job.state = Finishing(transfer)
                finalize = partial(self.transfers.finalize, job, transfer)
                place = await self._retry_transient(job, finalize)
                if place is None:  # some pieces were damaged, and are being fetched again
                    job.state = Fetching(transfer)
            await self._complete(job, transfer, place, began)
        # The inventory reads from the final file by now; closing waits for reads under way.

    async def _complete(
        self, job: DownloadJob, transfer: Transfer, place: SharedLocation, began: float
    ) -> None:
        uses = [
            SourceUse(source.user, source.endpoint, pieces)
            for source, pieces in transfer.pieces_by_source()
        ]
        elapsed_s = job.record.elapsed_s + monotonic() - began
        algorithm = transfer.manifest.algorithm.value
        job.set_verified(elapsed_s, uses, transfer.fetched_bytes, algorithm)
        job.set_kept(transfer.part.kept)
        await self._forget_former(job)  # files were added to those of the former one
        await publish_as_share(self._services, self._records, job, transfer.manifest, place)

    # -- its steps ------------------------------------------------------------------------------

    async def _open(self, job: DownloadJob) -> Opened:
        """The part, opened and verified, or what stands under its final name."""
        decoded = await self.parts.manifest_of(job)
        if not job.held_bytes:
            await self.parts.load_held_bytes(job)
        await self.require_folder(job)
        try:
            return Opened(decoded, await self.parts.recover(job, decoded))
        except AlreadyExists:
            place = await found_after_restart(self._services, job, decoded)
            if place is not None:
                return Opened(decoded, place)
            if not (job.record.overwrite or job.record.replaces or job.record.present):
                raise
        return Opened(decoded, await self.parts.recover(job, decoded, anew=True))

    async def require_folder(self, job: DownloadJob) -> None:
        """Raise `Away` if the folder of a download cannot be reached, or is another one."""
        if await self.parts.folder_of(job):
            await self.save(job)

    async def _close_part(self, job: DownloadJob) -> None:
        """Close the part, with every verified piece synced and journalled, or remove it."""
        part, job.state = job.part, Closing()
        if part is None:
            return
        close = part.close if job.complete else partial(checkpoint_and_close, part)
        await _uncancelled(self._services.workers.run(part.discard if job.discarded else close))
        if job.complete:
            self._services.presence_changed()

    async def _retry_transient(self, job: DownloadJob, step: Callable[[], Awaitable[R]]) -> R:
        """The result of ``step``, which is repeated as long as its error is a transient one."""
        hindered = False
        while True:
            try:
                result = await step()
            except Away:
                raise  # it rests without a slot, and the manager looks for its folder
            except TransientStorageError as error:
                if not hindered:
                    self._on_disk_pause(job, str(error))
                hindered = True
                await asyncio.sleep(STORAGE_RETRY_S)
            else:
                if hindered:
                    self._on_disk_pause(job, None)
                return result

    def _on_disk_pause(self, job: DownloadJob, reason: str | None) -> None:
        """The disk takes nothing because of ``reason``; None if it takes data again."""
        if reason is None:
            if not job.by_user:
                job.set_active()
            return
        name = names.printable(job.record.name)
        self._services.notify(f"the download of {name} is paused: {reason}")
        job.set_paused(reason)

    # -- failure, and folders that are away -----------------------------------------------------

    async def _settle(self, job: DownloadJob, error: MiniTorrentError) -> None:
        """Record the end of a life by an error: it failed, or rests until the hindrance is over."""
        if self.has_left(job) or isinstance(error, AlreadyExists | IntegrityError | ConfigError):
            await self._set_failed(job, error)
        elif isinstance(error, StorageError):
            away = error if isinstance(error, Away) else await self._away(job)
            if away is None:
                await self._set_failed(job, error)
            else:
                self._set_away(job, away)
        else:  # the tracker is away, refuses, or answers nonsense
            log.info("a download cannot be resumed yet: %s", error)
            job.set_paused(str(error))

    async def _away(self, job: DownloadJob) -> Away | None:
        """The reason why the folder of a download cannot be reached, if that is so."""
        try:
            await self.require_folder(job)
        except Away as away:
            return away
        except MiniTorrentError as error:
            log.info("the folder of a failed download could not be checked: %s", error)
        return None

    def _set_away(self, job: DownloadJob, error: Away) -> None:
        job.away, reason = True, str(error)
        if job.reported_away != reason:
            job.reported_away = reason
            name = names.printable(job.record.name)
            self._services.notify(f"the download of {name} waits: {reason}")
        job.set_paused(reason)

    async def _set_failed(self, job: DownloadJob, error: MiniTorrentError) -> None:
        job.error = error
        self._services.notify(f"the download of {names.printable(job.record.name)}: {error}")
        job.set_failed(str(error))
        self._services.counts.ends[FAILED] += 1
        self._services.hooks.failed(job.record)
        await self.save(job)

    # -- rest and removal -----------------------------------------------------------------------

    async def rest(self, job: DownloadJob) -> None:
        """End the life of a download, if it has one, and wait until its part is closed.

        Raises the error of a part that cannot be removed.
        """
        while (task := job.task) is not None and not job.at_rest:
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and isinstance(error := task.exception(), MiniTorrentError):
                raise error
            if job.task is task and not job.at_rest:  # it was cancelled before its first step
                await self._close_part(job)
                job.state = AT_REST

    def rest_soon(self, job: DownloadJob) -> None:
        """`rest`, without waiting for it."""
        if job.task is not None:
            job.task.cancel()

    async def forbid(self, job: DownloadJob, error: Refused) -> None:
        """Fail a download whose user may no longer have it."""
        await self.rest(job)
        await self._set_failed(job, error)

    def load_held_bytes_soon(self, job: DownloadJob) -> None:
        """Learn how much is held, as a task: the download does not start meanwhile."""
        job.state = Loading()
        job.task = asyncio.create_task(self._load_held_bytes(job), name="load held bytes")

    async def _load_held_bytes(self, job: DownloadJob) -> None:
        try:
            await self.parts.load_held_bytes(job)
        finally:
            job.state = AT_REST
            self._on_slot_free()

    async def abandon(self, job: DownloadJob) -> None:
        """Remove the part of a download, its journal and its record."""
        job.discarded = True
        found: PartialContent | UnverifiedPart | None = job.part
        await self.rest(job)
        if found is None and not job.complete:
            found = await self.parts.find(job)
            if found is not None:
                await self._services.workers.run(found.discard)
        if found is None:
            await self.parts.remove_journal(job)
        await self.parts.remove_folders(job)
        await self._services.workers.run(self._records.remove, job.key)
        if found is None and job.away:
            shown = names.quoted(os.path.dirname(job.path))
            self._services.notify(
                f"the part of {names.printable(job.record.name)} could not be removed: its folder"
                f" {shown} is away"
            )
        self._services.presence_changed()
        job.notify_changed()

    async def forget(self, job: DownloadJob) -> None:
        """Remove the record and the journal of a download at rest; its file stays."""
        await self.parts.remove_journal(job)
        await self._services.workers.run(self._records.remove, job.key)
        job.notify_changed()

    async def mark_cancel_failed(self, job: DownloadJob, error: MiniTorrentError) -> None:
        """The part could not be removed: the download rests as failed until its user decides."""
        job.error = error
        job.set_failed(f"could not be given up: {error}")
        self._services.presence_changed()
        await self.save(job)


async def _uncancelled(step: Awaitable[None]) -> None:
    """Wait for ``step`` even if this task is cancelled: the next step needs it to have ended."""
    running, cancelled = asyncio.ensure_future(step), False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    running.result()
