"""The list of downloads: what people ask for, see and act on.

Owns the entries and the rules about them: one download a destination, whose they are, which of them
run when somebody logs in. How one runs and ends is ``life``'s; a finished one becomes a share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from msgspec.structs import replace

from common import limits, names
from common import manifest as manifests
from common.errors import MiniTorrentError, Refused, StorageError
from common.hints import hint
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.manifest import Manifest
from common.messages import control, events, tracker
from common.messages.base import Source
from common.messages.refusals import Code
from common.shared_refusals import not_logged_in
from peer.downloads.job import DownloadJob, DownloadServices, order_named
from peer.downloads.lifecycle import DownloadLifecycle, not_a_member
from peer.downloads.manifest_fetch import fetch_manifest
from peer.downloads.queue import Turns
from peer.downloads.source_requests import LOOK_S
from peer.downloads.transfer import Transfer
from peer.downloads.views import (
    download_row,
    downloaded,
    missing_text,
    progress_of,
    shown_path,
    source_rows,
)
from peer.files import open_part
from peer.files.errors import AlreadyExists, Away
from peer.files.partial_content import PartialContent
from peer.records import DownloadRecord, Records, record_key
from peer.tracker_client.claims import check_facts, check_name

log = logging.getLogger(__name__)

PLACES_INTERVAL_S = 5.0  # how often the folders of downloads are looked for
DISK_S = 2.0  # how long a listing waits for a disk
TELL_INTERVAL_S = 0.2
TELL_QUEUED_S = 5.0  # there may be thousands of them
CLOSE_S = 2.0  # how long the end of a peer waits for a download that is just being made or removed
Tell = Callable[[control.Progress], None]
T = TypeVar("T")


class Downloads:
    """All downloads of all users of this device; those of the one who is logged in can run."""

    def __init__(self, services: DownloadServices, rng: random.Random) -> None:
        self._services = services
        self._records = Records(services.home / "downloads", DownloadRecord)
        self._life = DownloadLifecycle(
            services, self._records, rng, lambda: self._turns.look_soon()
        )
        self._turns = Turns(self._life, self._mine)
        self._started_ms = 0
        self._user: UserId | None = None
        self._all = {key: DownloadJob(key, record) for key, record in self._records.load().items()}
        self._errands: set[asyncio.Task[None]] = set()
        self._making: set[str] = set()  # paths of downloads that are not in the list yet
        self._changes: set[asyncio.Task[Any]] = set()
        """On the disk and in the records; none of them may be left half done."""
        self._spawn(self._look_for_sources())
        self._spawn(self._look_at_places())

    # -- looking --------------------------------------------------------------------------------

    def contents(self) -> set[ContentId]:
        """All contents that some record names."""
        return {entry.content for entry in self._all.values()}

    def parts(self) -> tuple[str, ...]:
        """The paths of the parts of all downloads that are not complete."""
        paths = [e.path for e in self._all.values() if e.record.state != "C"]
        return tuple(p for path in (*paths, *self._making) for p in open_part.part_paths(path))

    def _mine(self) -> list[DownloadJob]:
        mine = [entry for entry in self._all.values() if entry.record.user == self._user]
        return sorted(mine, key=lambda entry: (entry.record.started_ms, entry.key))

    def _running(self) -> list[DownloadJob]:
        return [entry for entry in self._mine() if entry.running is not None]

    async def look_at_disk(self) -> None:
        """Learn whether what was completed is still there, for `rows`. A disk that does not answer
        is not waited for."""
        complete = [entry for entry in self._mine() if entry.record.state == "C"]
        looking = self._see_through(
            self._services.workers.run(lambda: [missing_text(entry.record) for entry in complete])
        )
        with contextlib.suppress(TimeoutError):
            found = await asyncio.wait_for(asyncio.shield(looking), DISK_S)
            for entry, missing in zip(complete, found, strict=True):
                entry.missing = missing

    def rows(self) -> list[control.DownloadRow]:
        """What ``show-downloads`` shows, oldest first."""
        return [download_row(entry) for entry in self._mine()]

    def leeching(self) -> list[tracker.Leeching]:
        """What is announced to the tracker: contents of which we have and serve a part."""
        return [
            tracker.Leeching(entry.group, entry.content, entry.running.progress().held_pieces)
            for entry in self._running()
            if entry.running is not None and entry.unfinished
        ]

    def path_of(self, key: str) -> str:
        """Where a download goes, as it is shown; empty when it has left the list."""
        entry = self._all.get(key)
        return "" if entry is None else shown_path(entry.path)

    def latest_to(self, group_text: str, path: str) -> str:
        """The key of the latest download to a path as it is shown. Raises `Refused`."""
        group = names.group_id(group_text)
        for entry in reversed(self._mine()):
            if entry.group == group and shown_path(entry.path) == path:
                return entry.key
        raise Refused(Code.UNKNOWN_SHARE, f"no download to {names.quoted(path)} is in the list")

    def why_slow(self, group_text: str, name: str) -> list[control.SourceRow]:
        """What each source of a running download does. Raises `Refused`."""
        entries = self._find(group_text, name, "DP")
        return [row for entry in entries for row in source_rows(entry)]

    def _find(self, group_text: str, name: str, states: str) -> list[DownloadJob]:
        """The downloads of that name that are in one of these states, or the one to that path.
        Raises `Refused` when there is none."""
        group = names.group_id(group_text)
        wanted = names.fold_name(name)
        found = [
            entry
            for entry in self._mine()
            if entry.group == group
            and entry.record.state in states
            and (names.fold_name(entry.record.name) == wanted or entry.path == name)
        ]
        if found:
            return found
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"no active download named {names.quoted(name)} in group {names.quoted(group)}",
            hint("see the downloads", "show-downloads"),
        )

    # -- beginning ------------------------------------------------------------------------------

    async def begin(self, ask: control.DownloadFile, tell: Tell) -> str:
        """Begin a download, or find the same one under way; returns its key.

        When this returns the destination is reserved and the record written. Raises
        `MiniTorrentError`s of all kinds, and then nothing has changed.
        """
        services, user = self._services, self._require_user()
        group = names.group_id(ask.group)
        names.share_name(ask.name)
        order = order_named(ask.pick)
        tell(control.Progress("finding sources", 0, 0))
        find = tracker.FindShare(group, ask.name)
        found = (await services.link.ask(find, tracker.ShareFound)).reply
        check_name(found.row, ask.name)
        name = names.share_name(found.row.name)  # as it is listed: it is offered under that
        path = _destination(ask.dest, ask.name)
        content = ContentId(found.row.content)
        under_way = self._under_way(path)
        if under_way is not None:
            if under_way.content != content or under_way.record.user != user:
                raise AlreadyExists(f"another download to {names.quoted(path)} is under way")
            return under_way.key
        await services.tickets.want(group)
        encoded = await fetch_manifest(
            services, group, content, found.manifest_bytes, found.sources, tell
        )
        decoded = await services.workers.run(manifests.decode, encoded, content)
        check_facts(found.row, decoded, ask.name)
        await services.workers.run(services.manifests.put, content, encoded)
        record = DownloadRecord(
            user=user,
            group=group,
            name=name,
            content=content,
            path=os.fsencode(path),
            size=decoded.size,
            digest=decoded.digest.hex(),
            pick=order.value,
            started_ms=self._next_ms(),
            topic=services.replica.topic_of(group),
            times=services.settings.keep_times if ask.times is None else ask.times,
        )
        # From here on it is seen through, whoever waits for it: nothing may be left half made.
        making = self._make(record, encoded, decoded, found.sources)
        return await asyncio.shield(self._see_through(making))

    def _next_ms(self) -> int:
        """The time, and never twice the same: it is the order of the queue."""
        self._started_ms = max(self._services.time.now_ms(), self._started_ms + 1)
        return self._started_ms

    async def _make(
        self, record: DownloadRecord, encoded: bytes, decoded: Manifest, sources: list[Source]
    ) -> str:
        """Record the download, reserve its destination and let it run."""
        path = await self._services.workers.run(open_part.admit, os.fsdecode(record.path))
        if path in self._making or self._under_way(path) is not None:
            raise AlreadyExists(f"another download to {names.quoted(path)} is under way")
        self._making.add(path)
        try:
            folder = await self._services.workers.run(open_part.require_place, path, None, False)
            record = replace(record, path=os.fsencode(path), folder=folder)
            key = record_key(record.user, record.group, record.name, path, str(record.started_ms))
            starts = self._turns.is_free(len(self._making) - 1)
            storage = await self._reserve(key, record, decoded if starts else None)
            entry = DownloadJob(key, record, storage=storage, encoded=encoded if starts else b"")
            self._all[key] = entry
        finally:
            self._making.discard(path)
        if starts:
            self._life.run(entry, decoded, sources)
        else:
            self._turns.queue(entry)
        await self._forget_former(entry)
        await self._forget_oldest()
        return key

    async def _forget_former(self, entry: DownloadJob) -> None:
        """A path has one row: what was downloaded to it before is no longer there."""
        for other in list(self._all.values()):
            same = other is not entry and other.record.path == entry.record.path
            if same and not other.unfinished and not other.busy:
                del self._all[other.key]
                await self._life.forget(other)

    async def _reserve(
        self, key: str, record: DownloadRecord, decoded: Manifest | None
    ) -> PartialContent | None:
        """Write the record, then make what it names: nothing that a crash leaves is without one.
        ``decoded`` is None for a download that waits in the queue: its part is made later."""
        services, path = self._services, os.fsdecode(record.path)
        content, journal = ContentId(record.content), self._life.journal_of(key)
        storage = None
        await services.workers.run(self._records.put, key, record)
        try:
            if decoded is not None:
                storage = await services.workers.run(
                    open_part.create, path, decoded, content, journal, record.times
                )
            if self._user != record.user:
                if storage is not None:
                    await services.workers.run(storage.discard)
                raise Refused(
                    Code.NOT_LOGGED_IN, f"{record.user} was logged out before it could begin"
                )
        except MiniTorrentError:
            await self._forget(key)
            raise
        return storage

    async def _forget_oldest(self) -> None:
        """Keep the list of what is complete within bounds. The files and their shares stay."""
        complete = [e for e in self._mine() if e.record.state == "C" and e.task is None]
        for entry in complete[: -limits.DOWNLOADS_LISTED_MAX]:
            self._all.pop(entry.key, None)
            await self._forget(entry.key)

    async def _forget(self, key: str) -> None:
        try:
            await self._services.workers.run(self._records.remove, key)
        except StorageError as error:
            log.warning("%s; the next start will find it", error)

    def _require_user(self) -> UserId:
        if self._user is None:
            raise not_logged_in()
        return self._user

    def _under_way(self, path: str) -> DownloadJob | None:
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for entry in self._all.values():
            if entry.unfinished and entry.path in (path, real):
                return entry
        return None

    # -- what people do with them ---------------------------------------------------------------

    async def wait(self, key: str, tell: Tell) -> control.Downloaded:
        """Wait for the end of a download, telling its progress meanwhile.

        Raises what it failed with, and `Refused` when it was cancelled.
        """
        entry = self._all.get(key)
        while entry is not None:
            # Looked at first: it may be complete and have left the list since.
            if entry.record.state == "C":
                return downloaded(entry)
            if entry.record.state == "F":
                raise entry.error or StorageError(entry.record.reason or "the download failed")
            tell(progress_of(entry, self._user))
            pause_s = TELL_INTERVAL_S if entry.place is None else TELL_QUEUED_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(entry.changed.wait(), pause_s)
            if entry.record.state != "C":
                entry = self._all.get(key)
        raise Refused(Code.CANCELLED, "the download was cancelled")

    async def pause(self, group_text: str, name: str) -> None:
        """Stop fetching until `resume`, over restarts too: all that bear the name."""
        for entry in self._find(group_text, name, "DP"):
            if entry.running is not None:
                entry.running.pause()
            entry.become(state="P", reason=control.PAUSED_BY_USER, by_user=True)
            self._turns.look_soon()
            await self._life.remember(entry)

    async def resume(self, group_text: str, name: str) -> None:
        """Go on with the paused and failed downloads of that name."""
        for entry in self._find(group_text, name, "PDF"):
            if self._life.has_left(entry):
                raise not_a_member(entry.group)
            await self._resume(entry)

    async def _resume(self, entry: DownloadJob) -> None:
        failed = entry.record.state == "F"
        entry.error = None
        entry.become(state="D", reason=None, by_user=False)
        if entry.running is not None:
            entry.running.resume()
        elif failed or not entry.busy:
            self._turns.queue(entry)
        await self._life.remember(entry)

    async def cancel(self, group_text: str, name: str) -> bool:
        """Give a download up, remove what there is of it, and forget it. One that is complete is
        taken off the list, and its file stays; returns whether anything was removed.

        What cannot be removed stays in the list with the reason, to be given up once more.
        """
        try:
            entry, *others = self._find(group_text, name, "DPF")
        except Refused:
            entry, *others = self._find(group_text, name, "C")
        if others:
            # What is given up is gone: which one is not for us to guess.
            paths = ", ".join(names.quoted(one.path) for one in (entry, *others))
            raise Refused(
                Code.USAGE,
                f"there are {1 + len(others)} downloads of {names.quoted(name)}: to {paths}",
                hint("name one by its path", "cancel", group_text, entry.path),
            )
        if entry.record.state == "C":
            del self._all[entry.key]
            await asyncio.shield(self._see_through(self._life.forget(entry)))
            return False
        await asyncio.shield(self._see_through(self._give_up(entry)))
        return True

    async def clear(self) -> int:
        """Take all complete downloads off the list; returns how many. The files and their shares
        stay."""
        done = [e for e in self._mine() if e.record.state == "C" and not e.busy]
        for entry in done:
            del self._all[entry.key]
        keys = [entry.key for entry in done]
        await self._services.workers.run(self._records.remove_all, keys)
        return len(done)

    async def _give_up(self, entry: DownloadJob) -> None:
        del self._all[entry.key]  # nobody else does anything with it meanwhile
        self._turns.look_soon()
        try:
            await self._life.give_up(entry)
        except MiniTorrentError as error:
            self._all[entry.key] = entry
            await self._life.mark_cancel_failed(entry, error)
            raise

    # -- who is logged in, and where ------------------------------------------------------------

    async def activate(self, user: UserId) -> None:
        """Go on with the unfinished downloads of ``user``."""
        if self._user != user:
            await self.deactivate()
            self._user = user
        for entry in self._mine():
            resting = entry.running is None and not entry.busy
            if resting and entry.unfinished and not entry.record.by_user:
                entry.queued = True
            elif resting and entry.record.state != "C":
                self._spawn(self._life.load_held_bytes(entry))
        self._turns.look()
        for entry in self._mine():
            if entry.waits and not entry.busy:
                self._life.look_back_soon(entry)

    async def deactivate(self) -> None:
        """Nobody is logged in: let everything rest where it is."""
        self._user = None  # from here on none begins
        for entry in list(self._all.values()):
            try:
                await self._life.rest(entry)
            except MiniTorrentError as error:
                log.warning("a download was not laid to rest: %s", error)

    async def groups_changed(self) -> None:
        """What was to be fetched from a group that we are in no more fails."""
        for entry in self._mine():
            whole = entry.storage is not None and entry.storage.is_complete
            if entry.unfinished and not whole and self._life.has_left(entry):
                await self._life.forbid(entry, not_a_member(entry.group))

    # -- sources --------------------------------------------------------------------------------

    def peers_changed(self, update: events.PeerUpdate) -> None:
        """The peer set of a share changed."""
        group, content = GroupId(names.fold_id(update.group)), ContentId(update.content)
        for entry in self._running():
            if entry.running is not None and (entry.group, entry.content) == (group, content):
                entry.running.sources(update.up)
                for device in update.down:
                    entry.running.source_gone(DeviceKey(device))
                if any(source.complete for source in update.up):
                    entry.unshared = False
                elif update.down and not _others(entry.running, set(update.down)):
                    # Was that the last one for now, or is it shared no more?
                    self._spawn(self._life.learn_sources(entry))

    def link_up(self) -> None:
        """The tracker is back: learn what changed in the peer sets meanwhile."""
        for entry in self._running():
            self._services.replica.follow_share(entry.group, entry.content)
            self._spawn(self._life.learn_sources(entry))

    async def _look_for_sources(self) -> None:
        """Ask the tracker again for those who get nothing: an event may have been lost."""
        while True:
            await asyncio.sleep(LOOK_S)
            for entry in self._running():
                silent = entry.running is not None and entry.running.wants_sources
                if entry.asking.due(silent, monotonic()):
                    await self._life.learn_sources(entry)

    async def _look_at_places(self) -> None:
        """Notice disks that went or came: their downloads rest, or go on."""
        while True:
            await asyncio.sleep(PLACES_INTERVAL_S)
            for entry in self._mine():
                rests = entry.running is None
                if entry.busy or not entry.unfinished or entry.record.by_user:
                    continue
                if rests and not entry.away:
                    continue
                try:
                    await self._life.look_for_place(entry)
                except Away as error:
                    if not rests and entry.running is not None and not entry.busy:
                        self._life.wait_for_place_soon(entry, error)
                except MiniTorrentError as error:
                    log.info("the folder of a download could not be looked at: %s", error)
                else:
                    if rests and entry.away and entry.running is None and not entry.busy:
                        entry.away = False
                        self._turns.queue(entry)

    def _spawn(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def _see_through(self, change: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(change)
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return task

    async def close(self) -> None:
        """Let everything rest: what is verified is synced and journalled."""
        for errand in self._errands:
            errand.cancel()
        self._turns.close()
        await self.deactivate()
        if self._changes:
            await asyncio.wait(self._changes, timeout=CLOSE_S)


def _others(running: Transfer, gone: set[bytes]) -> bool:
    """Whether there are other sources than those that are ``gone``."""
    return any(source.source not in gone for source in running.progress().sources)


def _destination(dest: str, name: str) -> str:
    """The final path: inside ``dest`` if that is a folder, else ``dest`` itself."""
    if os.path.isdir(dest):
        return os.path.join(dest, name)
    return dest.rstrip("/") if dest.endswith("/") else dest
