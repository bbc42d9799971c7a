"""Creation of downloads: the share is found, its destination reserved, and the job recorded.

Owns: the rule of one download per destination, and the order of the steps. Not here: the list of
downloads (see peer.downloads.manager) and how one runs (see peer.downloads.lifecycle).

Invariant: the record is written before anything that it names, so that a restart finds and resumes
or removes everything that a crash leaves.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from functools import partial

from msgspec.structs import replace

from common import manifest as manifests
from common import names
from common.errors import MiniTorrentError, Refused
from common.ids import ContentId, GroupId, UserId
from common.manifest import Manifest
from common.messages import control, tracker
from common.messages.base import Source
from common.messages.refusals import Code
from peer.downloads.earlier_versions import Version
from peer.downloads.job import DownloadJob, DownloadServices, order_named
from peer.downloads.lifecycle import DownloadLifecycle, Opened
from peer.downloads.manifest_fetch import fetch_manifest
from peer.downloads.part_store import fit_of
from peer.downloads.planning import plan
from peer.downloads.queue import DownloadQueue
from peer.downloads.reuse import real_paths
from peer.files import open_part
from peer.files.errors import AlreadyExists
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import Folder
from peer.files.missing_folders import make_folders, remove_folders
from peer.files.partial_content import PartialContent
from peer.records import DownloadRecord, Records, record_key
from peer.tracker_client.claims import check_summary
from peer.tracker_client.finding import find_share


class DownloadCreator:
    """Creates jobs and adds them to ``jobs``, the list of all downloads.

    ``current_user`` returns the user who is logged in, and ``forget`` removes a record.
    """

    def __init__(
        self,
        services: DownloadServices,
        records: Records[DownloadRecord],
        lifecycle: DownloadLifecycle,
        queue: DownloadQueue,
        jobs: dict[str, DownloadJob],
        *,
        current_user: Callable[[], UserId | None],
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        self._services = services
        self._records = records
        self._lifecycle = lifecycle
        self._queue = queue
        self._jobs = jobs
        self._current_user = current_user
        self._forget = forget
        self._last_started_ms = 0
        self.paths: set[str] = set()
        """Paths of downloads that are being created and are not in the list yet."""

    async def manifest(
        self, group: GroupId, found: tracker.ShareFound, report: Callable[[control.Progress], None]
    ) -> tuple[bytes, Manifest]:
        """Return the manifest of a share, encoded and decoded; it is kept for a while.

        Raises `IntegrityError` if it is not as the tracker says, and other `MiniTorrentError`s.
        """
        services, content = self._services, ContentId(found.row.content)
        await services.tickets.want(group)
        encoded = await fetch_manifest(
            services, group, content, found.manifest_bytes, found.sources, report
        )
        decoded = await services.workers.run(manifests.decode, encoded, content)
        check_summary(found.row, decoded, found.row.name)
        await services.workers.run(services.manifests.put, content, encoded)
        return encoded, decoded

    async def prepare(
        self,
        command: control.DownloadFile,
        user: UserId,
        report: Callable[[control.Progress], None],
        follow: Folder | None = None,
        placed: Version | None = None,
    ) -> DownloadJob | Callable[[], Awaitable[DownloadJob]]:
        """Find the share and its manifest. Return the step that creates the job.

        If the same download is active already, return its job instead. ``follow``: the folder of
        the follow that begins it, which must be the one at its destination. ``placed``: the version
        that it has put there. Raises `MiniTorrentError`; nothing has changed then.
        """
        services = self._services
        group = names.group_id(command.group)
        order = order_named(command.pick)
        report(control.Progress("finding sources", 0, 0))
        found, asked = await find_share(services.link, group, command.name)
        name = names.share_name(found.row.name)  # as it is listed: it is offered under that name
        reuse = await services.workers.run(real_paths, command.reuse)
        path = await services.workers.run(_destination, command.dest, asked)
        within = path != command.dest and not command.dest.endswith("/")
        if within and self._is_place_of(group, name, user, command.dest):
            path = command.dest
        if follow is not None:
            await services.workers.run(open_part.require_folder, path, follow, True)
        content = ContentId(found.row.content)
        active = self._active_to(path)
        if active is not None:
            if active.content != content or active.record.user != user:
                raise AlreadyExists(f"another download to {names.quoted(path)} is under way")
            fetched = {*active.record.files}
            if fetched and not (command.files and {*command.files} <= fetched):
                raise AlreadyExists(
                    f"a download of other files to {names.quoted(path)} is under way",
                    "add these when it is complete",
                )
            if command.on_complete:
                active.set_on_complete(list(command.on_complete))
                await services.workers.run(self._records.put, active.key, active.record)
            return active
        encoded, decoded = await self.manifest(group, found, report)
        admitted = await services.workers.run(open_part.admit, path)
        finished = [job.record for job in self._jobs.values() if job.complete]
        made = await plan(
            services, command, found.row, user, decoded, admitted, finished, report, placed
        )
        record = DownloadRecord(
            user=user,
            group=group,
            name=name,
            content=content,
            path=os.fsencode(path),
            size=made.size,
            digest=decoded.digest.hex(),
            pick=order.value,
            started_ms=self._next_ms(),
            topic=services.replica.topic_of(group),
            times=services.settings.keep_times if command.times is None else command.times,
            reuse=reuse,
            overwrite=made.overwrite,
            in_place=made.place is not None,
            version=found.row.version,
            replaces=made.replaces,
            files=made.files,
            present=[*made.present],
            on_complete=list(command.on_complete),
            follow=follow is not None,
            folder=follow,
        )
        if (place := made.place) is not None:
            return lambda: self._create_in_place(record, decoded, place)
        return lambda: self._create(record, encoded, decoded, found.sources)

    def _next_ms(self) -> int:
        """The time in milliseconds, and never the same twice: it orders the queue."""
        self._last_started_ms = max(self._services.time.now_ms(), self._last_started_ms + 1)
        return self._last_started_ms

    async def _create(
        self, record: DownloadRecord, encoded: bytes, decoded: Manifest, sources: list[Source]
    ) -> DownloadJob:
        """Record the download, reserve its destination, and start or queue it."""
        run = self._services.workers.run
        if record.follow:
            await run(open_part.require_folder, os.fsdecode(record.path), record.folder, True)
        path, missing, taken = await run(open_part.admit, os.fsdecode(record.path))
        self._refuse_if_active(path)
        if taken and not (record.overwrite or record.replaces or record.present):
            raise AlreadyExists(f"{names.quoted(path)} is there by now")
        self.paths.add(path)
        try:
            record = replace(record, path=os.fsencode(path), made=list(map(os.fsencode, missing)))
            key = record_key(record.user, record.group, record.name, path, str(record.started_ms))
            # Why: in the queue, a download of a follow waits for space on its disk.
            starts = self._queue.is_free(len(self.paths) - 1) and not record.follow
            job = DownloadJob(key, record, encoded=encoded if starts else b"")
            part = await self._reserve(job, decoded if starts else None)
            self._jobs[key] = job
        finally:
            self.paths.discard(path)
        if part is not None:
            self._lifecycle.start(job, Opened(decoded, part, sources))
        else:
            self._queue.add(job)
        if not record.present:  # otherwise the former one counts until this one is complete
            await self.forget_former(job)
        return job

    async def _create_in_place(
        self, record: DownloadRecord, decoded: Manifest, place: SharedLocation
    ) -> DownloadJob:
        """Record and complete a download whose content stands at ``place``."""
        path = place.path
        self._refuse_if_active(path)
        record = replace(record, path=os.fsencode(path))
        key = record_key(record.user, record.group, record.name, path, str(record.started_ms))
        await self._services.workers.run(self._records.put, key, record)
        job = self._jobs[key] = DownloadJob(key, record)
        self._lifecycle.start(job, Opened(decoded, place))
        return job

    def _refuse_if_active(self, path: str) -> None:
        if path in self.paths or self._active_to(path) is not None:
            raise AlreadyExists(f"another download to {names.quoted(path)} is under way")

    async def _reserve(self, job: DownloadJob, decoded: Manifest | None) -> PartialContent | None:
        """Write the record, then create the folders and the part; a queued download (``decoded``
        is None) gets its part when it starts."""
        run, record, part = self._services.workers.run, job.record, None
        try:
            if record.made:
                await run(self._records.put, job.key, record)
                await run(make_folders, list(map(os.fsdecode, record.made)))
            wanted, begun = (record.folder, True) if record.follow else (None, False)
            folder = await run(open_part.require_folder, job.path, wanted, begun)
            record = job.record = replace(record, folder=folder)
            await run(self._records.put, job.key, record)
            if decoded is not None:
                fit = await fit_of(self._services, job, decoded)
                part = await run(
                    partial(open_part.create, fit=fit),
                    job.path,
                    decoded,
                    job.content,
                    self._lifecycle.parts.journal_of(job.key),
                    record.times,
                )
            if self._current_user() != record.user:
                if part is not None:
                    await run(part.discard)
                raise Refused(
                    Code.NOT_LOGGED_IN, f"{record.user} was logged out before it could begin"
                )
        except MiniTorrentError:
            await run(remove_folders, list(map(os.fsdecode, record.made)))
            await self._forget(job.key)
            raise
        return part

    async def forget_former(self, job: DownloadJob) -> None:
        """Remove the rows of earlier downloads to the same path, whose files are gone."""
        for other in list(self._jobs.values()):
            same = other is not job and other.record.path == job.record.path
            if same and not other.unfinished and other.at_rest:
                del self._jobs[other.key]
                await self._lifecycle.forget(other)

    def _is_place_of(self, group: GroupId, name: str, user: UserId, path: str) -> bool:
        """Whether a version of the share was fetched to ``path``, so that it is no folder above."""
        real, folded = os.path.realpath(path), names.fold_name(name)
        fetched = any(
            (record.group, names.fold_name(record.name), record.user) == (group, folded, user)
            and os.fsdecode(record.path) in (path, real)
            for record in (job.record for job in self._jobs.values())
        )
        shared = self._services.shares.versions_of(user, group, name)
        return fetched or any(record.place.path in (path, real) for record in shared)

    def _active_to(self, path: str) -> DownloadJob | None:
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for job in self._jobs.values():
            if job.unfinished and job.path in (path, real):
                return job
        return None


def _destination(dest: str, name: str) -> str:
    """The final path: inside ``dest`` if that is or becomes a folder, else ``dest`` itself."""
    return os.path.join(dest, name) if dest.endswith("/") or os.path.isdir(dest) else dest
