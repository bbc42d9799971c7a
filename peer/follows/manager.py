"""List of follows: groups whose shares this device fetches by itself.

Owns: the follows of the user who is logged in, the commands on them, and their agreement with the
tracker, which tells the group who follows. Not here: the work of one follow (see
peer.follows.following), the decision what to fetch (see peer.follows.plan).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence

from msgspec.structs import replace

from common import limits, names
from common.errors import ConfigError, MiniTorrentError, Refused
from common.globs import check_globs
from common.hints import hint
from common.ids import GroupId, UserId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.shared_refusals import not_logged_in
from peer.background_tasks import BackgroundTasks
from peer.files import paths
from peer.files.errors import UnsafeDestination, storage_error, translated
from peer.files.folder_identity import Folder
from peer.files.homes import home_above
from peer.files.missing_folders import make_folders, missing_folders
from peer.follows.following import Following, FollowServices
from peer.follows.plan import Settled
from peer.follows.records import FollowRecord
from peer.records import DownloadRecord
from peer.tracker_client.group_replica import GroupReplica

log = logging.getLogger(__name__)

FOLLOWS_MAX = 200  # of a user on this device: each looks at its folder every few seconds
KEPT_VERSIONS_MAX = 100


class Follows:
    """Follows of all users of this device; those of the current user are at work."""

    def __init__(self, services: FollowServices, replica: GroupReplica) -> None:
        self._services = services
        self._replica = replica
        self._user: UserId | None = None
        self._active: dict[str, Following] = {}
        self._tasks = BackgroundTasks()
        self._lock = asyncio.Lock()
        services.downloads.on_cancelled = self._on_cancelled

    # -- views ----------------------------------------------------------------------------------

    def active(self) -> list[Following]:
        """Return the follows of the current user, by group and folder."""
        return sorted(self._active.values(), key=lambda each: (each.record.group, each.record.text))

    def holder_of(self, path: str) -> FollowRecord | None:
        """Return the follow that keeps ``path`` where it is, or whose folder lies within it."""
        for each in self._active.values():
            record = each.record
            if record.text == path or record.text.startswith(f"{path}/"):
                return record
            for mark in self._services.records.marks.get(record.key, {}).values():
                place = os.path.join(record.text, mark.name)
                kept = [names.versioned(place, each.version) for each in mark.kept]
                if path in kept or (mark.place is not None and path == mark.place.path):
                    return record
        return None

    def _folders(self) -> set[str]:
        return {each.record.text for each in self._active.values()}

    # -- commands -------------------------------------------------------------------------------

    async def follow(
        self, group: GroupId, path: str, globs: Sequence[str], keep_versions: int
    ) -> Following:
        """Follow ``group`` into the folder at ``path``, which is made if it is missing.

        A follow that is there gets these patterns, and fetches again what its user deleted or
        cancelled. Raises `MiniTorrentError`; nothing has changed then but the folder.
        """
        user = self._replica.user
        if user is None:
            raise not_logged_in()
        checked = check_globs(globs)
        if not 0 <= keep_versions <= KEPT_VERSIONS_MAX:
            raise ConfigError(f"keep versions: 0 to {KEPT_VERSIONS_MAX} of them can be kept")
        run = self._services.workers.run
        real, folder = await run(_usable_folder, path)
        self._refuse_shared(real)
        async with self._lock:
            if self._user != user:
                raise not_logged_in()
            record = FollowRecord(
                user=user,
                group=group,
                path=os.fsencode(real),
                folder=folder,
                globs=[*checked],
                keep_versions=keep_versions,
                topic=self._replica.topic_of(group),
                since_ms=self._services.link.time.now_ms(),
            )
            known = self._services.records.follows.get(record.key)
            if known is not None and known.topic == record.topic:
                record = replace(record, since_ms=known.since_ms)
            elif len(self._active) >= FOLLOWS_MAX:
                raise Refused(
                    Code.LIMIT,
                    f"this device has {FOLLOWS_MAX} follows, the most allowed",
                    hint("end one", "unfollow", "GROUP", "DIR"),
                )
            await self._services.records.put(record)
            await self._begin_anew(record)
            following = self._start(record)
        await self._agree(group)
        return following

    async def _begin_anew(self, record: FollowRecord) -> None:
        """Forget what the user deleted or cancelled."""
        marks = self._services.records.marks.get(record.key, {})

        def is_missing(name: str) -> bool:
            return not os.path.lexists(os.path.join(record.text, name))

        def missing() -> list[str]:
            return [key for key, each in marks.items() if is_missing(each.name)]

        gone = await self._services.workers.run(missing)
        gone += [key for key, each in marks.items() if each.how is not Settled.PLACED]
        await self._services.records.unmark(record.key, list(dict.fromkeys(gone)))

    def _refuse_shared(self, real: str) -> None:
        for group in self._replica.groups:
            for share in self._services.shares.records_in(group):
                if real == share.place.path or real.startswith(share.place.path + "/"):
                    raise UnsafeDestination(
                        f"follow into {names.quoted(real)}: it lies in the shared folder"
                        f" {names.quoted(share.place.path)}, which would change",
                        "choose another folder",
                    )

    async def unfollow(self, group: GroupId, path: str | None) -> list[FollowRecord]:
        """End the follows of ``group``, or the one into ``path``; return them.

        Files stay; unfinished downloads of them are cancelled. Raises `Refused` if there is none.
        """
        if self._replica.user is None:
            raise not_logged_in()
        run = self._services.workers.run
        real = None if path is None else await run(os.path.realpath, path)
        async with self._lock:
            ending = [
                each
                for each in self.active()
                if each.record.group == group and real in (None, each.record.text)
            ]
            if not ending:
                where = "" if path is None else f" into {names.quoted(path)}"
                raise Refused(
                    Code.FAILED,
                    f"this device does not follow {names.quoted(group)}{where}",
                    hint("see what it follows", "list-follows"),
                )
            for each in ending:
                await self._end(each)
        try:
            await self._agree(group)
        except MiniTorrentError as error:
            log.info("the tracker is told later that %s is not followed: %s", group, error)
        return [each.record for each in ending]

    async def _end(self, following: Following) -> None:
        record = following.record
        await self._services.records.remove(record.key)
        self._active.pop(record.key, None)
        await following.close()
        await following.cancel_downloads()

    def _on_cancelled(self, record: DownloadRecord) -> None:
        """The user cancels a download: a follow does not begin it again."""
        folder = os.path.dirname(os.fsdecode(record.path))
        for each in self._active.values():
            if each.record.group == record.group and each.record.text == folder:
                self._tasks.start(each.dismiss(record.name, record.version, record.content))

    # -- login, groups and events ---------------------------------------------------------------

    async def activate(self, user: UserId) -> None:
        """Work on the follows of ``user`` in the groups that the user is in by now."""
        async with self._lock:
            if self._user != user:
                await self._stop_all()
                self._user = user
            for key, record in list(self._services.records.follows.items()):
                if record.user == user and key not in self._active:
                    self._start(record)
        await self.groups_changed()
        for each in self._active.values():
            each.relist_soon()
        await self._agree_on_all()

    async def deactivate(self) -> None:
        """Rest: the user was logged out."""
        async with self._lock:
            self._user = None
            await self._stop_all()

    async def _stop_all(self) -> None:
        following, self._active = list(self._active.values()), {}
        for each in following:
            await each.close()

    def _start(self, record: FollowRecord) -> Following:
        known = self._active.get(record.key)
        if known is not None:
            known.record = record
            known.forget_pauses()
            return known
        following = Following(record, self._services, self._folders)
        self._active[record.key] = following
        following.start()
        return following

    async def groups_changed(self) -> None:
        """End the follows of groups that the user is no longer in."""
        async with self._lock:
            for each in list(self._active.values()):
                record = each.record
                user, group = UserId(record.user), GroupId(record.group)
                if self._replica.has_left(user, group, record.topic):
                    await self._end(each)
                    self._services.notify(
                        f"{group} is no longer followed into {names.quoted(record.text)}: you are"
                        " no longer a member; the files stay"
                    )

    def entry(self, entry: events.LogEntry) -> None:
        """Apply an event of a group."""
        group = names.fold_id(entry.group)
        for each in self._active.values():
            if each.record.group == group:
                each.entry(entry.event)

    def gap(self, group: GroupId) -> None:
        """List a group again: events were lost for good."""
        for each in self._active.values():
            if each.record.group == group:
                each.relist_soon()

    def review_soon(self) -> None:
        """Review all follows: a download began, ended or was cancelled."""
        for each in self._active.values():
            each.review_soon()

    # -- the tracker ----------------------------------------------------------------------------

    async def _agree_on_all(self) -> None:
        followed = {GroupId(each.record.group) for each in self._active.values()}
        for group in sorted(followed | self._replica.followed):
            try:
                await self._agree(group)
            except Refused as error:
                log.info("the tracker does not record the follow of %s: %s", group, error)

    async def _agree(self, group: GroupId) -> None:
        """Report to the tracker whether this device follows a group, and with which patterns."""
        records = [each.record for each in self._active.values() if each.record.group == group]
        globs = list(dict.fromkeys(glob for each in records for glob in each.globs))
        if not all(each.globs for each in records) or len(globs) > limits.GLOBS_MAX:
            globs = []
        command = tracker.SetFollow(group, bool(records), globs)
        await self._services.link.request(command, tracker.Done)

    def close(self) -> None:
        """Cancel all tasks."""
        self._tasks.cancel()
        for each in self._active.values():
            each.cancel()


def _usable_folder(path: str) -> tuple[str, Folder]:
    """Return the real path of a folder for a follow, made if it is missing, and its identity.

    Raises `StorageError` if it cannot be used.
    """
    real, missing = missing_folders(os.path.abspath(path))
    above = home_above(os.path.join(real, "name"))
    if above is not None:
        raise UnsafeDestination(
            f"follow into {names.quoted(real)}: it is in a home of this program",
            "choose another folder",
        )
    make_folders(missing)
    with translated(real, "use the folder"):
        os.close(paths.open_real_folder(real))
        if not os.access(real, os.W_OK | os.X_OK):
            raise storage_error(PermissionError(13, ""), real, "write into")
        return real, Folder.at(real)
