"""Moves of shares and complete downloads to another place on this device.

Owns: the order of the steps, and the decision after a process that ended between them. A move is
recorded before its first step, and that record goes after its last one. Not here: the steps (see
peer.files.moving), and which copy is meant (see peer.control.relocation).

Invariants: the content stands complete at the old or the new place throughout, and is served from
there. Reads go on: one that finds its file renamed waits for the end of the rename, and reads from
the new place. Old files of a copy are removed after every record names the new place. At a start
the new place counts if the very files that were moved or copied there stand there; else the old.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import replace

from common import manifest as manifests
from common.errors import MiniTorrentError, StorageError
from common.ids import ContentId
from common.manifest import Manifest
from common.messages import control
from common.names import printable, quoted
from peer.background_tasks import BackgroundTasks
from peer.files import moving, sharing
from peer.files.errors import Away, ContentChanged, translated
from peer.files.fingerprint import Fingerprint, SharedLocation
from peer.files.folder_identity import Folder, FolderIdentity, why_away
from peer.files.library import SharedContent
from peer.files.missing_folders import make_folders, remove_folders
from peer.files.selection import select
from peer.records import Manifests, Records, ShareRecord, record_key
from peer.shares.digesting import Report, with_progress
from peer.shares.open_shares import AWAY_ERRORS, OpenShares, Share
from peer.shares.share_records import ShareRecords
from peer.workers import Workers

log = logging.getLogger(__name__)


class MoveRecord(msgspec.Struct, frozen=True):
    """Move under way: ``content`` from ``place`` to ``target``, a path in ``folder``.

    ``looks``: those of the files that count as moved, when they stand at ``target``. ``files``: as
    in `peer.records.DownloadRecord`.
    """

    content: bytes
    place: SharedLocation
    target: bytes
    folder: Folder
    looks: tuple[Fingerprint | None, ...]
    copied: bool = False
    files: list[str] = []


@dataclass(frozen=True, slots=True)
class Movable:
    """A copy on this device. ``looks``: its fingerprints, empty if they are not recorded;
    ``files``: patterns of the files of a folder that are there, empty for all."""

    content: ContentId
    path: str
    looks: tuple[Fingerprint | None, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Moved:
    """Result of a move. ``left``: whether other files stay at the old place."""

    path: str
    left: bool = False


class ShareMover:
    """View of the shares for moves, of all users of this device."""

    def __init__(self, records: ShareRecords, shares: OpenShares) -> None:
        self._records = records
        self._shares = shares

    def near(self, path: str) -> list[ShareRecord]:
        """The records of shares at ``path``, within it, or of a folder that holds it."""
        return [record for record in self._records.all() if is_near(record.place.path, path)]

    def at(self, path: str) -> list[Share]:
        """The shares of the current user at ``path``."""
        return [share for share in self._shares if share.record.place.path == path]

    def readers(self, path: str, content: bytes) -> list[SharedContent]:
        """The open contents that read from ``path``."""
        return self._shares.readers(path, ContentId(content))

    @contextlib.contextmanager
    def resting(self, path: str) -> Iterator[None]:
        """Let no check take the shares at ``path`` for changed until the end of the block."""
        shares = self.at(path)
        for share in shares:
            share.resting = True
        try:
            yield
        finally:
            for share in shares:
                share.resting = False

    async def relocate(self, path: str, content: bytes, place: SharedLocation) -> None:
        """Record ``place`` in the place of ``path``, and serve from there. Raises
        `StorageError`."""
        for record in self._records.all():
            if (record.place.path, record.content) != (path, content):
                continue
            share = self._shares.get(self._records.key_of(record))
            if share is None or share.record is not record:
                await self._records.put(replace(record, place=place))
            elif share.open is None:
                await self._shares.set_place(share, place)
            else:
                try:
                    await self._shares.move(share, place)
                except (*AWAY_ERRORS, ContentChanged) as error:
                    log.info("%s is checked before it is served: %s", printable(record.name), error)


def is_near(one: str, other: str) -> bool:
    """Whether two paths are equal, or one lies within the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


class Moves:
    """Carries out moves, one at a time. ``downloads_moved`` records a new path of downloads;
    ``tasks`` end with the peer."""

    def __init__(
        self,
        home: Path,
        shares: ShareMover,
        manifests: Manifests,
        workers: Workers,
        downloads_moved: Callable[[str, str], Awaitable[None]],
        notify: Callable[[str], None],
        tasks: BackgroundTasks,
    ) -> None:
        self._records = Records(home / "moves", MoveRecord)
        self._shares = shares
        self._manifests = manifests
        self._workers = workers
        self._downloads_moved = downloads_moved
        self._notify = notify
        self._tasks = tasks
        self._lock = asyncio.Lock()

    async def move(self, found: Movable, text: str, report: Report) -> Moved:
        """Move a copy to the folder or new path ``text``. Cancelling ends the copying of files.

        Raises `MiniTorrentError`; everything is where it was then.
        """
        cancelled = False

        def report_while_asked(progress: control.Progress) -> None:
            if not cancelled:
                report(progress)

        work = self._move(found, text, report_while_asked, lambda: cancelled)
        task = self._tasks.start(work, "move")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            raise

    async def _move(
        self, found: Movable, text: str, report: Report, cancelled: Callable[[], bool]
    ) -> Moved:
        run = self._workers.run
        async with self._lock:
            target, missing = await run(moving.target_of, text, found.path)
            if target == found.path:
                return Moved(target)
            decoded = await run(self._manifest, found.content)
            place = await run(_unchanged_location, decoded, found)
            await run(make_folders, missing)
            key = record_key(found.path, target)
            try:
                with translated(target, "use the folder of"):
                    folder = await run(Folder.at, os.path.dirname(target))
                looks = place.fingerprints
                record = MoveRecord(
                    found.content, place, os.fsencode(target), folder, looks, files=[*found.files]
                )
                await run(self._records.put, key, record)
                readers = self._shares.readers(found.path, found.content)
                with self._shares.resting(found.path):
                    there = await asyncio.to_thread(_rename, readers, decoded, place, target)
                if there is None:
                    record, there = await self._copy(key, record, decoded, report, cancelled)
            except Exception:  # after a cancellation the next start decides
                with contextlib.suppress(StorageError):
                    await run(self._records.remove, key)
                await run(remove_folders, missing)
                raise
            with self._shares.resting(found.path):
                return Moved(target, await self._finish(key, record, decoded, there))

    def _manifest(self, content: ContentId) -> Manifest:
        encoded = self._manifests.get(content)
        if encoded is None:
            raise StorageError("move: the manifest of the content is lost")
        return manifests.decode(encoded, content)

    async def _copy(
        self,
        key: str,
        record: MoveRecord,
        decoded: Manifest,
        report: Report,
        cancelled: Callable[[], bool],
    ) -> tuple[MoveRecord, SharedLocation]:
        """Copy to another file system, verify, and give the copy its final name."""
        place, target, run = record.place, os.fsdecode(record.target), self._workers.run
        if record.files:
            raise StorageError(
                f"move {quoted(place.path)}: {quoted(target)} is on another file system, and a copy"
                " of some files of a folder cannot be verified",
                "fetch the other files of the folder first",
            )
        record = replace(record, copied=True, looks=())  # nothing at the target counts yet
        await run(self._records.put, key, record)

        def copy(on_progress: sharing.Progress, stopped: Callable[[], bool]) -> None:
            moving.copy(decoded, place, target, on_progress, lambda: stopped() or cancelled())

        def verify(on_progress: sharing.Progress, stopped: Callable[[], bool]) -> SharedLocation:
            return moving.verify_copy(
                decoded, target, on_progress, lambda: stopped() or cancelled()
            )

        try:
            await with_progress(copy, decoded.size, report, "copying")
            copied = await with_progress(verify, decoded.size, report, "checking the copy")
            record = replace(record, looks=copied.fingerprints)
            await run(self._records.put, key, record)
            there = await asyncio.to_thread(moving.publish_copy, decoded, copied, target)
        except Exception:
            with contextlib.suppress(StorageError):
                await asyncio.to_thread(moving.discard_copy, target)
            raise
        for reader in self._shares.readers(place.path, record.content):
            await asyncio.to_thread(reader.move, there)
        return record, there

    async def _finish(
        self, key: str, record: MoveRecord, decoded: Manifest, there: SharedLocation
    ) -> bool:
        """Record the new place, and remove what was copied; return whether anything is left."""
        left = False
        await self._shares.relocate(record.place.path, record.content, there)
        await self._downloads_moved(record.place.path, there.path)
        if record.copied:
            try:
                left = await asyncio.to_thread(moving.remove_former, decoded, record.place)
            except StorageError as error:
                left = True
                self._notify(f"{quoted(there.path)} was moved, but the old files stay: {error}")
        await self._workers.run(self._records.remove, key)
        return left

    # -- after a start --------------------------------------------------------------------------

    async def recover(self) -> None:
        """Finish or undo the moves that an ended process left, before anything is served."""
        for key, record in self._records.load().items():
            target = os.fsdecode(record.target)
            try:
                decoded = await self._workers.run(self._manifest, ContentId(record.content))
                place = await asyncio.to_thread(_found_at_target, record, decoded)
                if place is not None:
                    await self._finish(key, record, decoded, place)
                    log.info("the move to %s is finished", target)
                    continue
                if record.copied:
                    await asyncio.to_thread(moving.discard_copy, target)
                await self._workers.run(self._records.remove, key)
                log.info("the move to %s was not done: %s stays", target, record.place.path)
            except Away as error:
                log.warning("the move to %s is decided at the next start: %s", target, error)
            except MiniTorrentError as error:
                self._notify(f"the move to {quoted(target)} could not be finished: {error}")


def _location(decoded: Manifest, path: str, files: Sequence[str]) -> SharedLocation:
    """The location of a copy with these files, empty for all, as it stands there now."""
    selected = select(decoded, files).entries if files else None
    return sharing.location_of(decoded, path, selected=selected)


def _unchanged_location(decoded: Manifest, found: Movable) -> SharedLocation:
    """The location of a copy. Raises `ContentChanged` if it is not as it was shared."""
    place = _location(decoded, found.path, found.files)
    if found.looks and found.looks != place.fingerprints:
        raise ContentChanged(
            f"move {quoted(found.path)}: it was changed since it was shared",
            "share it again as it is, then move it",
        )
    return place


def _rename(
    readers: Sequence[SharedContent], decoded: Manifest, place: SharedLocation, target: str
) -> SharedLocation | None:
    """Rename the files that ``readers`` read; None if the target is on another file system."""
    with contextlib.ExitStack() as held:
        for reader in readers:
            held.enter_context(reader.held())
        if not moving.rename(place.path, target):
            return None
        there = moving.renamed(decoded, place, target)
        for reader in readers:
            reader.move(there)
    try:
        moving.sync_names(place.path, target)
    except StorageError as error:
        log.warning("a move may be undone if the power fails now: %s", error)
    return there


def _found_at_target(record: MoveRecord, decoded: Manifest) -> SharedLocation | None:
    """The new place of a move, if what was moved stands there. Raises `Away` if that cannot be
    told."""
    target = os.fsdecode(record.target)
    if record.copied and not record.looks:
        return None  # the copy was not verified
    reason = why_away(target, FolderIdentity(record.folder))
    if reason is not None:
        raise Away(reason)
    try:
        there = _location(decoded, target, record.files)
    except ContentChanged:
        return None
    if not moving.is_alike(there.fingerprints, record.looks) and os.path.lexists(record.place.path):
        return None
    # With the old fingerprints: a file that was renamed is digested again before it is served.
    return replace(there, fingerprints=record.looks)
