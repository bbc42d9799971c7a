"""List of downloads: the commands of users act on it.

Owns: the jobs, whose they are, and which of them run while a user is logged in. Not here: how a job
is created (see peer.downloads.creation), runs and ends (see peer.downloads.lifecycle), and waits
for its turn (see peer.downloads.queue). A finished download becomes a share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Collection

from common import limits, names
from common.errors import MiniTorrentError, Refused, StorageError, TimedOut
from common.hints import hint
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import control, events, tracker
from common.messages.refusals import Code
from common.shared_refusals import not_active
from peer.background_tasks import BackgroundTasks
from peer.downloads.counts import CANCELLED
from peer.downloads.creation import DownloadCreator
from peer.downloads.for_follows import FollowedDownloads
from peer.downloads.job import DownloadJob, DownloadServices, is_meant, not_a_member
from peer.downloads.lifecycle import DownloadLifecycle
from peer.downloads.moved import MovedDownloads
from peer.downloads.publication import run_owed_hooks
from peer.downloads.queue import DownloadQueue
from peer.downloads.source_requests import REVIEW_S
from peer.downloads.states import Fetching
from peer.downloads.transfer import Transfer
from peer.downloads.views import copy_of, download_row, missing_text, shown_path
from peer.downloads.waiting import wait_for_end
from peer.files import open_part
from peer.files.errors import Away
from peer.records import DownloadRecord, DownloadState, Records, ShareRecord
from peer.shares.withdrawn import is_withdrawn, withdrawn_by
from peer.swarm.fetching.progress import Progress

log = logging.getLogger(__name__)

FOLDERS_INTERVAL_S = 5.0  # between two checks of the folders of downloads
DISK_S = 2.0  # how long a listing waits for a disk
CLOSE_S = 2.0  # how long the end of a peer waits for a download that is being created or removed
UNFINISHED = {DownloadState.ACTIVE, DownloadState.PAUSED}


class Downloads:
    """Downloads of all users of this device; those of the current user can run."""

    def __init__(self, services: DownloadServices, rng: random.Random) -> None:
        self._services = services
        self._records = Records(services.home / "downloads", DownloadRecord)
        self._lifecycle = DownloadLifecycle(
            services,
            self._records,
            rng,
            lambda: self._queue.review_soon(),
            lambda job: self._creator.forget_former(job),
        )
        self._queue = DownloadQueue(self._lifecycle, self._mine)
        self._user: UserId | None = None
        self._jobs = {key: DownloadJob(key, record) for key, record in self._records.load().items()}
        self._creator = DownloadCreator(
            services,
            self._records,
            self._lifecycle,
            self._queue,
            self._jobs,
            current_user=lambda: self._user,
            forget=self._forget,
        )
        self.manifest = self._creator.manifest
        self._tasks = BackgroundTasks()
        self._changes = BackgroundTasks()
        """Changes of disk and records: they outlive their command, and `close` waits for them."""
        run_owed_hooks(services, self._records, self._jobs.values())
        parts = (self._jobs, self._creator, self._lifecycle, self._queue, self._changes)
        self.moved = MovedDownloads(services, self._jobs, self._records, self._creator, self._tasks)
        self.for_follows = FollowedDownloads(*parts, lambda: self._user, self._abandon)
        self._tasks.start(self._review_sources())
        self._tasks.start(self._review_folders())

    # -- views ----------------------------------------------------------------------------------

    def contents(self) -> set[ContentId]:
        """All contents that some record names."""
        earlier = [job.record.replaces for job in self._jobs.values()]
        return {job.content for job in self._jobs.values()} | {
            ContentId(version.content) for version in earlier if version is not None
        }

    def parts(self) -> tuple[str, ...]:
        """The paths of the parts of all downloads that are not complete."""
        paths = [job.path for job in self._jobs.values() if not job.complete]
        return tuple(
            part for path in (*paths, *self._creator.paths) for part in open_part.part_paths(path)
        )

    def _mine(self) -> list[DownloadJob]:
        """The downloads of the current user, oldest first."""
        mine = [job for job in self._jobs.values() if job.record.user == self._user]
        return sorted(mine, key=lambda job: (job.record.started_ms, job.key))

    def _active(self) -> list[tuple[DownloadJob, Transfer]]:
        return [(job, job.transfer) for job in self._mine() if job.transfer is not None]

    async def check_disk(self) -> None:
        """Learn for `rows` whether completed downloads are still there; skip a slow disk."""
        complete = [job for job in self._mine() if job.complete]
        checking = self._changes.start(
            self._services.workers.run(lambda: [missing_text(job.record) for job in complete])
        )
        with contextlib.suppress(TimeoutError):
            found = await asyncio.wait_for(asyncio.shield(checking), DISK_S)
            for job, missing in zip(complete, found, strict=True):
                job.missing = missing

    def rows(self) -> list[control.DownloadRow]:
        """The rows of ``show-downloads``, oldest first."""
        return [download_row(job) for job in self._mine()]

    def leeching(self) -> list[tracker.Leeching]:
        """The contents that this device fetches, and how much of each it serves."""
        return [
            tracker.Leeching(job.group, job.content, transfer.progress().held_pieces)
            for job, transfer in self._active()
            if job.unfinished
        ]

    def progress(self) -> list[Progress]:
        """The progress of each download that has a transfer."""
        return [transfer.progress() for _, transfer in self._active()]

    def path_of(self, key: str) -> str:
        """The destination of a download as it is shown; empty if it has left the list."""
        job = self._jobs.get(key)
        return "" if job is None else shown_path(job.path)

    def latest_to(self, group_text: str, path: str) -> str:
        """The key of the latest download to a path as it is shown. Raises `Refused`."""
        group = names.group_id(group_text)
        for job in reversed(self._mine()):
            if job.group == group and shown_path(job.path) == path:
                return job.key
        raise Refused(Code.UNKNOWN_SHARE, f"no download to {names.quoted(path)} is in the list")

    def copies(self) -> list[ShareRecord]:
        """The complete downloads, as shares."""
        return [copy_of(job) for job in self._mine() if job.complete]

    def active(self, group_text: str, name: str) -> list[DownloadJob]:
        """The unfinished downloads with that name, or to that path. Raises `Refused`."""
        return self._find(group_text, name, UNFINISHED)

    def _find(self, group_text: str, name: str, states: Collection[str]) -> list[DownloadJob]:
        """The downloads in one of ``states`` with that name, or to that path. Raises `Refused`
        if there is none."""
        group = names.group_id(group_text)
        found = [
            job
            for job in self._mine()
            if job.group == group and job.record.state in states and is_meant(job, name)
        ]
        if found:
            return found
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"no active download named {names.quoted(name)} in group {names.quoted(group)}",
            hint("see the downloads", "show-downloads"),
        )

    # -- commands -------------------------------------------------------------------------------

    async def begin(
        self, command: control.DownloadFile, report: Callable[[control.Progress], None]
    ) -> str:
        """Begin a download, or find the same one active; return its key.

        On return the destination is reserved and the record written. Raises `MiniTorrentError`;
        nothing has changed then.
        """
        if self._user is None:
            raise not_active(self._services.replica.user)
        try:
            async with asyncio.timeout(command.timeout_s):
                prepared = await self._creator.prepare(command, self._user, report)
        except TimeoutError as error:
            raise TimedOut(
                f"download {names.quoted(command.name)}: timed out; nothing was begun"
            ) from error
        if isinstance(prepared, DownloadJob):
            return prepared.key
        return await asyncio.shield(self._changes.start(self._create(prepared)))

    async def _create(self, create: Callable[[], Awaitable[DownloadJob]]) -> str:
        job = await create()
        await self._forget_oldest()
        return job.key

    async def wait(
        self,
        key: str,
        report: Callable[[control.Progress], None],
        timeout_s: float | None = None,
    ) -> control.Downloaded:
        """Wait for the end of a download (see peer.downloads.waiting)."""
        return await wait_for_end(self._jobs, key, report, lambda: self._user, timeout_s)

    async def pause(self, group_text: str, name: str) -> None:
        """Pause all downloads of that name until `resume`, over restarts too."""
        for job in self._find(group_text, name, UNFINISHED):
            job.set_paused(control.PAUSED_BY_USER, by_user=True)
            if job.transfer is not None:
                job.transfer.pause()
            self._queue.review_soon()
            await self._lifecycle.save(job)

    async def resume(self, group_text: str, name: str) -> None:
        """Resume the paused and failed downloads of that name."""
        for job in self._find(group_text, name, {*UNFINISHED, DownloadState.FAILED}):
            if self._lifecycle.has_left(job):
                raise not_a_member(job.group)
            failed = job.record.state == DownloadState.FAILED
            job.error = None
            job.set_active(by_user=True)
            if job.transfer is not None:
                job.transfer.resume()
            elif failed or job.at_rest:
                self._queue.add(job)
            await self._lifecycle.save(job)

    async def cancel(self, group_text: str, name: str) -> bool:
        """Cancel a download and remove its part; take a complete one off the list.

        Return whether anything was removed: the file of a complete download stays. A part that
        cannot be removed keeps its row, with the reason, for another `cancel`.
        """
        try:
            job, *others = self._find(group_text, name, {*UNFINISHED, DownloadState.FAILED})
        except Refused:
            job, *others = self._find(group_text, name, {DownloadState.COMPLETE})
        if others:
            # Why: a cancelled download is gone, so the user has to say which one.
            paths = ", ".join(names.quoted(one.path) for one in (job, *others))
            raise Refused(
                Code.USAGE,
                f"there are {1 + len(others)} downloads of {names.quoted(name)}: to {paths}",
                hint("name one by its path", "cancel", group_text, job.path),
            )
        if job.complete:
            del self._jobs[job.key]
            await asyncio.shield(self._changes.start(self._lifecycle.forget(job)))
            return False
        self.for_follows.on_cancelled(job.record)
        await asyncio.shield(self._changes.start(self._abandon(job)))
        return True

    async def clear(self) -> list[control.DownloadRow]:
        """Take all complete downloads off the list, and return them. Files and shares stay."""
        done = [job for job in self._mine() if job.complete and job.at_rest]
        for job in done:
            del self._jobs[job.key]
        keys = [job.key for job in done]
        await self._services.workers.run(self._records.remove_all, keys)
        return [download_row(job) for job in done]

    async def _abandon(self, job: DownloadJob) -> None:
        del self._jobs[job.key]  # no other command reaches it meanwhile
        self._queue.review_soon()
        try:
            await self._lifecycle.abandon(job)
            self._services.counts.ends[CANCELLED] += 1
        except MiniTorrentError as error:
            self._jobs[job.key] = job
            await self._lifecycle.mark_cancel_failed(job, error)
            raise

    async def _forget_oldest(self) -> None:
        """Bound the list of complete downloads. Files and shares stay."""
        complete = [job for job in self._mine() if job.complete and job.at_rest]
        for job in complete[: -limits.DOWNLOADS_LISTED_MAX]:
            self._jobs.pop(job.key, None)
            await self._forget(job.key)

    async def _forget(self, key: str) -> None:
        try:
            await self._services.workers.run(self._records.remove, key)
        except StorageError as error:
            log.warning("%s; the next start will find it", error)

    # -- login and groups -----------------------------------------------------------------------

    async def activate(self, user: UserId) -> None:
        """Resume the unfinished downloads of ``user``."""
        if self._user != user:
            await self.deactivate()
            self._user = user
        for job in self._mine():
            if job.at_rest and job.unfinished and not job.by_user:
                job.queued = True
            elif job.at_rest and not job.complete:
                self._tasks.start(self._lifecycle.parts.load_held_bytes(job))
        self._queue.review()
        for job in self._mine():
            if job.waits and job.at_rest:
                self._lifecycle.load_held_bytes_soon(job)

    async def deactivate(self) -> None:
        """Rest all downloads: the user was logged out."""
        self._user = None  # no download begins from here on
        for job in list(self._jobs.values()):
            try:
                await self._lifecycle.rest(job)
            except MiniTorrentError as error:
                log.warning("a download could not be brought to rest: %s", error)

    async def groups_changed(self) -> None:
        """Fail the unfinished downloads from groups that the user has left."""
        for job in self._mine():
            whole = job.part is not None and job.part.is_complete
            if job.unfinished and not whole and self._lifecycle.has_left(job):
                await self._lifecycle.forbid(job, not_a_member(job.group))

    async def withdrawn(self, group: GroupId, event: events.Withdrawn) -> None:
        """Fail the unfinished downloads of versions that were withdrawn from the group."""
        for job in self._mine():
            whole = job.part is not None and job.part.is_complete
            if not job.unfinished or whole or job.group != group:
                continue
            if is_withdrawn(event, job.record.name, job.record.version):
                await self._lifecycle.forbid(job, withdrawn_by(event))

    # -- sources and folders --------------------------------------------------------------------

    def peers_changed(self, update: events.PeerUpdate) -> None:
        """The peer set of a share changed."""
        group, content = GroupId(names.fold_id(update.group)), ContentId(update.content)
        for job, transfer in self._active():
            if (job.group, job.content) == (group, content):
                transfer.sources(update.up)
                for device in update.down:
                    transfer.source_gone(DeviceKey(device))
                if any(source.complete for source in update.up):
                    job.unshared = False
                elif update.down and not _has_others(transfer, set(update.down)):
                    # The last source may be back soon, or the share may be gone: ask the tracker.
                    self._lifecycle.transfers.learn_sources_soon(job)

    def link_up(self) -> None:
        """The tracker is back: learn how the peer sets changed meanwhile."""
        for job, _ in self._active():
            self._services.replica.follow_share(job.group, job.content)
            self._lifecycle.transfers.learn_sources_soon(job)

    async def _review_sources(self) -> None:
        """Request sources again for downloads that get nothing: an event may have been lost."""
        while True:
            await asyncio.sleep(REVIEW_S)
            for job, transfer in self._active():
                if job.source_requests.is_due(transfer.wants_sources, monotonic()):
                    await self._lifecycle.transfers.learn_sources(job)

    async def _review_folders(self) -> None:
        """Rest the downloads whose disk is unplugged, and queue those whose disk is back."""
        while True:
            await asyncio.sleep(FOLDERS_INTERVAL_S)
            for job in self._mine():
                if job.busy or not job.unfinished or job.by_user or (job.at_rest and not job.away):
                    continue
                try:
                    await self._lifecycle.require_folder(job)
                except Away as error:
                    if isinstance(job.state, Fetching):
                        job.state.transfer.fail(error)
                except MiniTorrentError as error:
                    log.info("the folder of a download could not be checked: %s", error)
                else:
                    if job.at_rest and job.away:
                        job.away = False
                        self._queue.add(job)

    async def close(self) -> None:
        """Rest all downloads: every verified piece is synced and journalled."""
        self._tasks.cancel()
        self._queue.close()
        await self.deactivate()
        await self._changes.wait(CLOSE_S)


def _has_others(transfer: Transfer, gone: set[bytes]) -> bool:
    """Whether there are other sources than those that are ``gone``."""
    return any(source.source not in gone for source in transfer.progress().sources)
