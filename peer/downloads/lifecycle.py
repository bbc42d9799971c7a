"""Lifecycle of a download: its states, and the steps from one to the next.

States, by `DownloadRecord.state` and by what the job holds:

- ``D`` queued: no transfer. The queue calls `schedule_resume`.
- ``D`` resuming: a task opens and verifies the part; then, unless a copy of the content is on this
  device, it offers the part to others and starts a transfer.
- ``D`` fetching: a transfer, and no task unless it copies.
- ``D`` finishing: a task verifies the whole, renames, and shares the content.
- ``P`` paused, by its user, by the disk, or because its folder is away. With a transfer it goes on
  serving; without one it rests on the disk.
- ``F`` failed: nothing runs. The part stays for another attempt.
- ``C`` complete: shared, and only a row of the list.

Invariants: at most one task works on a download. A part is open only while a task or a transfer
uses it. A part leaves the inventory before it is closed. The record of completion is written after
the rename; a restart in between finds the content under its final name.

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
from typing import TypeVar

from common import names
from common.errors import ConfigError, IntegrityError, MiniTorrentError, Refused, StorageError
from common.host.clock import monotonic
from common.ids import UserId
from common.manifest import Manifest
from common.messages.base import Source
from peer.downloads.active_transfers import ActiveTransfers
from peer.downloads.counts import FAILED
from peer.downloads.in_place import ContentInPlace, complete_in_place, found_after_restart
from peer.downloads.job import DownloadJob, DownloadServices, not_a_member
from peer.downloads.job_tasks import cancel_task, uncancelled
from peer.downloads.part_store import PartStore, checkpoint_and_close
from peer.downloads.piece_writer import STORAGE_RETRY_S
from peer.downloads.publication import publish_as_share
from peer.downloads.reuse import local_trees, look_for
from peer.downloads.transfer import Transfer
from peer.files.errors import AlreadyExists, Away, Cancelled, TransientStorageError
from peer.files.fingerprint import SharedLocation
from peer.files.local_trees import LocalTree
from peer.files.partial_content import PartialContent
from peer.files.unverified_part import UnverifiedPart
from peer.records import DownloadRecord, Records, SourceUse
from peer.serving.inventory import Reader

log = logging.getLogger(__name__)

R = TypeVar("R")


class DownloadLifecycle:
    """Carries jobs from state to state.

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
        self.transfers = ActiveTransfers(services, rng)

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

    # -- fetching -------------------------------------------------------------------------------

    def run(self, job: DownloadJob, decoded: Manifest, sources: list[Source]) -> None:
        """Fetch the missing pieces and serve the held ones.

        A complete copy on this device is copied first. Otherwise pieces are looked for in other
        local files.
        """
        local = self._services.inventory.get(job.content)
        transfer = self.transfers.add(
            job,
            decoded,
            on_complete=lambda: self.finish_soon(job),
            on_pause=lambda reason: self._on_disk_pause(job, reason),
            on_failed=lambda error: self._fail_soon(job, error),
        )
        if local is not None and local.have is None:
            job.task = asyncio.create_task(self._copy(job, transfer, local.reader), name="copy")
        elif trees := self._trees_for(job, decoded):
            looking = self._reuse(job, transfer, trees, sources)
            job.task = asyncio.create_task(looking, name="reuse")
        else:
            self.transfers.start(job, transfer)
            transfer.sources(sources)
        self._services.presence_changed()

    async def _copy(self, job: DownloadJob, transfer: Transfer, copy: Reader) -> None:
        """Copy the pieces from ``copy``, and fetch those that it cannot give."""
        if await transfer.copy_from(copy):
            await self._finish(job)
        elif job.transfer is transfer:
            job.task = None  # the download may be complete before the tracker answers below
            self.transfers.start(job, transfer)
            await self.transfers.learn_sources(job)

    def _trees_for(self, job: DownloadJob, decoded: Manifest) -> list[LocalTree]:
        """Files of this device that may hold pieces of a download."""
        part = job.part
        if part is None or part.is_complete:
            return []
        return local_trees(job.record, decoded.size, self._services.shares.open_in(job.group))

    async def _reuse(
        self, job: DownloadJob, transfer: Transfer, trees: list[LocalTree], sources: list[Source]
    ) -> None:
        """Fetch the pieces that ``trees`` cannot give, and take the others from there."""
        await transfer.reuse(partial(look_for, transfer.manifest, trees, job.record.name))
        if job.transfer is transfer:
            job.task = None
            self.transfers.start(job, transfer)
            transfer.sources(sources)
            await self.transfers.learn_sources(job)  # some may have come since

    def _on_disk_pause(self, job: DownloadJob, reason: str | None) -> None:
        """The disk takes nothing because of ``reason``; None if it takes data again."""
        if reason is None:
            if not job.record.by_user:
                job.set_active()
            return
        name = names.printable(job.record.name)
        self._services.notify(f"the download of {name} is paused: {reason}")
        job.set_paused(reason)

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

    # -- completion -----------------------------------------------------------------------------

    def finish_soon(self, job: DownloadJob) -> None:
        """Every piece is held: verify the whole and give it its final name."""
        if not job.has_task:
            job.task = asyncio.create_task(self._finish(job), name="finish")

    async def _finish(self, job: DownloadJob) -> None:
        transfer = job.transfer
        assert transfer is not None
        try:
            finalize = partial(self.transfers.finalize, job, transfer)
            place = await self._retry_transient(job, finalize)
        except Cancelled:
            return
        except (StorageError, IntegrityError) as error:
            await self._fail_or_wait(job, error)
            return
        if place is not None:
            await self._complete(job, transfer, place)
        # Otherwise some pieces were damaged, and are being fetched again.

    async def _complete(self, job: DownloadJob, transfer: Transfer, place: SharedLocation) -> None:
        uses = [
            SourceUse(source.user, source.endpoint, pieces)
            for source, pieces in transfer.pieces_by_source()
        ]
        elapsed_s = job.record.elapsed_s + monotonic() - job.began
        algorithm = transfer.manifest.algorithm.value
        job.set_verified(elapsed_s, uses, transfer.fetched_bytes, algorithm)
        job.set_kept(transfer.part.kept)
        await self._forget_former(job)  # files were added to those of the former one
        await publish_as_share(self._services, self._records, job, transfer.manifest, place)
        self.transfers.stop(job)
        if job.record.files:
            self.transfers.withdraw_part(job, job.part)
        # The inventory reads from the final file by now; closing waits for reads under way.
        await self._close_part(job)
        self._services.presence_changed()
        # The row stays in the list as long as this process runs: keep nothing else of the job.
        job.encoded, job.task = b"", None
        self._on_slot_free()

    # -- failure, and folders that are away -----------------------------------------------------

    def _fail_soon(self, job: DownloadJob, error: StorageError) -> None:
        if job.transfer is not None and not job.has_task:
            job.task = asyncio.create_task(self._fail_or_wait(job, error), name="fail")

    async def _fail_or_wait(self, job: DownloadJob, error: MiniTorrentError) -> None:
        """Fail a download, or rest it if its disk is away."""
        try:
            if isinstance(error, Away):
                raise error
            if isinstance(error, StorageError):
                await self.require_folder(job)
        except Away as away:
            part = self.transfers.detach_part(job)
            if part is not None:
                await self._services.workers.run(checkpoint_and_close, part)
            self._set_away(job, away)
            return
        await self.fail(job, error)

    async def require_folder(self, job: DownloadJob) -> None:
        """Raise `Away` if the folder of a download cannot be reached, or is another one."""
        if await self.parts.folder_of(job):
            await self.save(job)

    def rest_until_back(self, job: DownloadJob, error: Away) -> None:
        """Rest a running download until its folder is back."""
        self.rest_soon(job)
        self._set_away(job, error)

    def _set_away(self, job: DownloadJob, error: Away) -> None:
        job.away, reason = True, str(error)
        if job.reported_away != reason:
            job.reported_away = reason
            name = names.printable(job.record.name)
            self._services.notify(f"the download of {name} waits: {reason}")
        job.set_paused(reason)
        self._on_slot_free()

    async def forbid(self, job: DownloadJob, error: Refused) -> None:
        """Fail a download whose user may no longer have it, and end the task that works on it."""
        await cancel_task(job)
        await self.fail(job, error)

    async def fail(self, job: DownloadJob, error: MiniTorrentError) -> None:
        """End a download that cannot be finished; its part stays for `schedule_resume`."""
        job.error = error
        self._services.notify(f"the download of {names.printable(job.record.name)}: {error}")
        self.transfers.stop(job)
        self.transfers.withdraw_part(job, job.part)
        await self._close_part(job)
        job.set_failed(str(error))
        self._services.counts.ends[FAILED] += 1
        self._services.hooks.failed(job.record)
        self._on_slot_free()
        await self.save(job)

    async def _close_part(self, job: DownloadJob) -> None:
        part, job.part = job.part, None
        if part is not None:
            await self._services.workers.run(part.close)

    # -- rest and removal -----------------------------------------------------------------------

    async def rest(self, job: DownloadJob) -> None:
        """Stop with every verified piece synced and journalled."""
        await cancel_task(job)
        part = self.transfers.detach_part(job)
        if part is not None:
            await self._services.workers.run(checkpoint_and_close, part)

    def rest_soon(self, job: DownloadJob) -> None:
        """`rest` as a task of a download that has none."""
        part = self.transfers.detach_part(job)
        if part is not None:
            closing = self._services.workers.run(checkpoint_and_close, part)
            job.task = asyncio.create_task(uncancelled(closing), name="rest")
            job.task.add_done_callback(lambda _: self._on_slot_free())

    def load_held_bytes_soon(self, job: DownloadJob) -> None:
        """Learn how much is held, as a task: the download does not start meanwhile."""
        job.task = asyncio.create_task(self.parts.load_held_bytes(job), name="load held bytes")
        job.task.add_done_callback(lambda _: self._on_slot_free())

    async def give_up(self, job: DownloadJob) -> None:
        """Remove the part of a download, its journal and its record."""
        await cancel_task(job)
        part: PartialContent | UnverifiedPart | None = self.transfers.detach_part(job)
        if part is None and not job.complete:
            part = await self.parts.find(job)
        if part is not None:
            await self._services.workers.run(part.discard)
        else:
            await self.parts.remove_journal(job)
        await self.parts.remove_folders(job)
        await self._services.workers.run(self._records.remove, job.key)
        if part is None and job.away:
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

    # -- resuming -------------------------------------------------------------------------------

    def schedule_resume(self, job: DownloadJob) -> None:
        """Resume a download at rest, after the task that works on it."""
        before = job.task if job.has_task else None
        job.task = asyncio.create_task(self._resume(job, before), name="resume")

    async def _resume(self, job: DownloadJob, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        if job.record.by_user:
            return
        job.set_active()
        try:
            decoded, part = await self._retry_transient(job, lambda: self._reopen(job))
        except ContentInPlace as found:
            decoded = await self.parts.manifest_of(job)
            await self._forget_former(job)
            await complete_in_place(self._services, self._records, job, decoded, found.place)
            return
        except AlreadyExists as error:
            await self.fail(job, error)
            return
        except Cancelled:
            return
        except (StorageError, IntegrityError, ConfigError) as error:
            await self._fail_or_wait(job, error)
            return
        except MiniTorrentError as error:  # the tracker is away, refuses, or answers nonsense
            log.info("a download cannot be resumed yet: %s", error)
            job.set_paused(str(error))
            job.task = None
            return
        job.part, job.reported_away = part, None
        if self.has_left(job):
            await self.fail(job, not_a_member(job.group))
            return
        job.task = None
        self.run(job, decoded, [])
        if job.record.by_user and job.transfer is not None:
            job.transfer.pause()  # the user paused it while the part was verified
        if not job.has_task:  # `run` starts a task to copy, or to finish a complete part
            await self.transfers.learn_sources(job)

    async def _reopen(self, job: DownloadJob) -> tuple[Manifest, PartialContent]:
        decoded = await self.parts.manifest_of(job)
        if not job.held_bytes:
            await self.parts.load_held_bytes(job)
        await self.require_folder(job)
        try:
            return decoded, await self.parts.recover(job, decoded)
        except AlreadyExists as error:
            place = await found_after_restart(self._services, job, decoded)
            if place is not None:
                raise ContentInPlace(error.message, place) from error
            if not (job.record.overwrite or job.record.replaces or job.record.present):
                raise
        return decoded, await self.parts.recover(job, decoded, anew=True)
