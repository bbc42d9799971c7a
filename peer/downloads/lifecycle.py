"""The life of a download: it runs, it rests, it ends, it comes back.

Owns what happens to the part on the disk, the shelf and the records at each of these turns. Which
downloads there are, and what people want of them, is ``registry``'s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from common import manifest as manifests
from common import names
from common.errors import (
    ConfigError,
    IntegrityError,
    MiniTorrentError,
    Refused,
    RemoteProtocolError,
    StorageError,
    TransportError,
)
from common.host.clock import monotonic
from common.ids import GroupId, UserId
from common.manifest import Manifest
from common.messages import control, tracker
from common.messages.base import Source
from common.messages.refusals import Code
from peer.downloads.job import DownloadJob, DownloadServices, order_named
from peer.downloads.manifest_fetch import fetch_manifest
from peer.downloads.transfer import STORAGE_RETRY_S, Transfer
from peer.files import open_part, sharing
from peer.files.errors import (
    AlreadyExists,
    Away,
    Cancelled,
    ContentChanged,
    TransientStorageError,
    UnsafeDestination,
)
from peer.files.fingerprint import SharedLocation
from peer.files.journal import Journal, is_begun
from peer.files.partial_content import PartialContent
from peer.files.unverified_part import UnverifiedPart
from peer.records import DownloadRecord, Records, ShareRecord
from peer.serving.inventory import Reader
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield

log = logging.getLogger(__name__)

R = TypeVar("R")


class DownloadLifecycle:
    """Carries entries through their states."""

    def __init__(
        self,
        services: DownloadServices,
        records: Records[DownloadRecord],
        rng: random.Random,
        on_place_free: Callable[[], None] = lambda: None,
    ) -> None:
        self._services = services
        self._records = records
        self._rng = rng
        self._journals = services.home / "journals"
        self._journals.mkdir(mode=0o700, exist_ok=True)
        self._fetching: dict[str, DownloadJob] = {}
        self._on_place_free = on_place_free

    def journal_of(self, key: str) -> str:
        """Where the journal of a download stands."""
        return str(self._journals / key)

    async def remember(self, entry: DownloadJob) -> None:
        """Record the state for good; a disk that does not take it is logged."""
        try:
            await self._services.workers.run(self._records.put, entry.key, entry.record)
        except StorageError as error:
            log.error("the state of a download could not be recorded: %s", error)

    # -- running --------------------------------------------------------------------------------

    def run(self, entry: DownloadJob, decoded: Manifest, sources: list[Source]) -> None:
        """Fetch what is missing, and serve what is held."""
        services, storage = self._services, entry.storage
        assert storage is not None
        running = Transfer(
            entry.group,
            entry.content,
            decoded,
            storage,
            pool=services.pool,
            inventory=services.inventory,
            workers=services.workers,
            settings=DownloadSettings(
                order=order_named(entry.record.pick),
                buffer_bytes=services.settings.buffer_bytes,
                used_max=services.settings.sources_used,
            ),
            limit=services.limit,
            ipc_allowed=services.link.on_ipc,
            on_complete=lambda: self.finish_soon(entry),
            on_trouble=lambda reason: self._on_trouble(entry, reason),
            on_failed=lambda error: self._fail_soon(entry, error),
            rng=random.Random(self._rng.getrandbits(64)),
        )
        entry.running = running
        entry.began = monotonic()
        local = services.inventory.get(entry.content)
        self._fetching[entry.key] = entry
        services.replica.follow_share(entry.group, entry.content)
        if local is not None and local.have is None:
            entry.task = asyncio.create_task(self._copy(entry, local.reader))
        else:
            self._offer_part(entry, running)
            running.start()
            running.sources(sources)
        services.presence_changed()

    def _offer_part(self, entry: DownloadJob, running: Transfer) -> None:
        storage = running.storage
        self._services.inventory.put(
            entry.group,
            entry.content,
            running.manifest,
            entry.encoded,
            storage,
            Bitfield(running.manifest.piece_count, storage.held_indexes()),
            on_damaged=running.damaged,
        )

    def _withdraw_part(self, entry: DownloadJob, storage: PartialContent | None) -> None:
        if storage is None:
            return
        self._services.inventory.withdraw_part(entry.content, storage)
        # The same content may be on its way to another place as well.
        for other in self._fetching.values():
            if other.content == entry.content and other.running is not None:
                self._offer_part(other, other.running)

    async def _copy(self, entry: DownloadJob, copy: Reader) -> None:
        """What this device has already is copied rather than fetched."""
        running = entry.running
        assert running is not None
        if await running.copy_from(copy):
            await self._finish(entry)
        elif entry.running is running:
            entry.task = None  # it may be complete before the tracker has answered below
            self._offer_part(entry, running)
            running.start()
            await self.learn_sources(entry)

    async def learn_sources(self, entry: DownloadJob) -> None:
        """Ask the tracker who offers the content; quiet when it does not answer."""
        if entry.running is None:
            return
        ask = tracker.GetSources(entry.group, entry.content)
        try:
            await self._services.tickets.want(entry.group)
            reply = (await self._services.link.ask(ask, tracker.Sources)).reply
        except MiniTorrentError as error:
            log.debug("no sources were told: %s", error)
            if isinstance(error, Refused) and error.code is Code.UNKNOWN_SHARE:
                entry.unshared = True
            return
        entry.unshared = False
        if entry.running is not None:
            entry.running.sources(reply.sources)

    def _on_trouble(self, entry: DownloadJob, reason: str | None) -> None:
        if reason is None:
            if not entry.record.by_user:
                entry.become(state="D", reason=None)
            return
        name = names.printable(entry.record.name)
        self._services.notify(f"the download of {name} is paused: {reason}")
        entry.become(state="P", reason=reason)

    # -- ending ---------------------------------------------------------------------------------

    def finish_soon(self, entry: DownloadJob) -> None:
        """Every piece is held: verify the whole and put it in place."""
        if entry.busy:
            return
        entry.task = asyncio.create_task(self._finish(entry), name="finish")

    async def _finish(self, entry: DownloadJob) -> None:
        running = entry.running
        assert running is not None
        try:
            place = await self._retry_transient(entry, running.finalize)
        except Cancelled:
            return
        except (StorageError, IntegrityError) as error:
            await self._fail_or_wait(entry, error)
            return
        if place is not None:
            await self._complete(entry, running, place)
        # Otherwise pieces were found damaged, and are being fetched again.

    async def _retry_transient(self, entry: DownloadJob, step: Callable[[], Awaitable[R]]) -> R:
        """The result of ``step``, tried again for as long as what hinders it can pass."""
        hindered = False
        while True:
            try:
                result = await step()
            except Away:
                raise  # it holds no place among those that run, and is looked for elsewhere
            except TransientStorageError as error:
                if not hindered:
                    self._on_trouble(entry, str(error))
                hindered = True
                await asyncio.sleep(STORAGE_RETRY_S)
            else:
                if hindered:
                    self._on_trouble(entry, None)
                return result

    async def _complete(self, entry: DownloadJob, running: Transfer, place: SharedLocation) -> None:
        uses = [
            control.SourceUse(known.user, known.endpoint, pieces)
            for known, pieces in running.pieces_by_source()
        ]
        elapsed_s = entry.record.elapsed_s + monotonic() - entry.began
        entry.become(reason=None, elapsed_s=elapsed_s, sources=uses)
        await self._keep(entry, running.manifest, place)
        self.settle(entry)
        # The shelf reads from the final file by now; reads under way are waited for.
        await self._close_storage(entry)
        self._services.presence_changed()
        # It stays in the list for as long as this device lives: no more of it than its row.
        entry.encoded, entry.task = b"", None
        self._on_place_free()

    async def _keep(self, entry: DownloadJob, decoded: Manifest, place: SharedLocation) -> None:
        """Share what is complete and record that it is, however long the home takes no records."""
        told, done = False, entry.record
        share = ShareRecord(done.user, done.group, done.name, done.content, place, done.topic)
        while True:
            try:
                await self._services.shares.adopt_download(share, decoded, entry.encoded)
                await self._services.workers.run(
                    self._records.put, entry.key, replace(entry.record, state="C")
                )
            except StorageError as error:
                if not told:
                    name = names.printable(entry.record.name)
                    self._services.notify(f"{name} is complete, and kept in mind later: {error}")
                told = True
                # The file is there all the same: nobody needs to wait for more.
                entry.become(state="C")
                await asyncio.sleep(STORAGE_RETRY_S)
            else:
                # Complete for those who wait only now: it is offered, or will be.
                entry.become(state="C")
                return

    def _fail_soon(self, entry: DownloadJob, error: StorageError) -> None:
        if entry.running is not None and not entry.busy:
            entry.task = asyncio.create_task(self._fail_or_wait(entry, error), name="fail")

    async def _fail_or_wait(self, entry: DownloadJob, error: MiniTorrentError) -> None:
        """End a download, or let it rest if that came about because its disk is away."""
        try:
            if isinstance(error, Away):
                raise error
            if isinstance(error, StorageError):
                await self.look_for_place(entry)
        except Away as away:
            storage = self._laid_down(entry)
            if storage is not None:
                await self._services.workers.run(_checkpoint_and_close, storage)
            self._set_away(entry, away)
            return
        await self.fail(entry, error)

    async def look_for_place(self, entry: DownloadJob) -> None:
        """Raise `Away` if the folder of a download cannot be reached, or is another one."""
        begun = is_begun(self.journal_of(entry.key))
        now = await self._services.workers.run(
            open_part.require_place, entry.path, entry.record.folder, begun
        )
        if now is not None and entry.record.folder != now:
            entry.record = replace(entry.record, folder=now)
            await self.remember(entry)

    def wait_for_place_soon(self, entry: DownloadJob, error: Away) -> None:
        """Let a running download rest until its folder is back."""
        self.rest_soon(entry)
        self._set_away(entry, error)

    def _set_away(self, entry: DownloadJob, error: Away) -> None:
        entry.away, reason = True, str(error)
        if entry.told_away != reason:
            entry.told_away = reason
            name = names.printable(entry.record.name)
            self._services.notify(f"the download of {name} waits: {reason}")
        entry.become(state="P", reason=reason)
        self._on_place_free()

    async def forbid(self, entry: DownloadJob, error: Refused) -> None:
        """Its user may not have it any more: end it, whatever is being done with it."""
        await _stop(entry)
        await self.fail(entry, error)

    async def fail(self, entry: DownloadJob, error: MiniTorrentError) -> None:
        """End a download that cannot be finished; what there is of it stays for `resume`."""
        entry.error = error
        self._services.notify(f"the download of {names.printable(entry.record.name)}: {error}")
        self.settle(entry)
        self._withdraw_part(entry, entry.storage)
        await self._close_storage(entry)
        entry.become(state="F", reason=str(error))
        self._on_place_free()
        await self.remember(entry)

    async def load_held_bytes(self, entry: DownloadJob) -> None:
        """Learn what a download holds that rests since before this process: so says its journal."""
        try:
            held_bytes = await self._services.workers.run(self._held_by_journal, entry)
        except MiniTorrentError as error:
            log.info("what is held of a download is not known: %s", error)
            return
        if entry.running is None and not entry.held_bytes:
            entry.held_bytes = held_bytes

    def _held_by_journal(self, entry: DownloadJob) -> int:
        encoded = self._services.manifests.get(entry.content)
        if encoded is None or not _may_have_part(entry):
            return 0
        decoded = manifests.decode(encoded, entry.content)
        path = self.journal_of(entry.key)
        journal, found = Journal.resume(path, entry.content, decoded.piece_count)
        journal.close()
        return sum(decoded.piece_span(index)[1] for index in found.pieces)

    async def _close_storage(self, entry: DownloadJob) -> None:
        storage, entry.storage = entry.storage, None
        if storage is not None:
            await self._services.workers.run(storage.close)

    def settle(self, entry: DownloadJob) -> None:
        """Stop fetching."""
        if entry.running is None:
            return
        entry.held_bytes = entry.running.progress().held_bytes
        entry.running.close()
        entry.running = None
        del self._fetching[entry.key]
        # What is heard of takes memory here and at the tracker, which bounds it.
        share = entry.group, entry.content
        if all((other.group, other.content) != share for other in self._fetching.values()):
            self._services.replica.unfollow_share(*share)

    async def rest(self, entry: DownloadJob) -> None:
        """Stop where it is, with all that is verified synced and journalled."""
        await _stop(entry)
        storage = self._laid_down(entry)
        if storage is not None:
            await self._services.workers.run(_checkpoint_and_close, storage)

    def rest_soon(self, entry: DownloadJob) -> None:
        """The same for a download with which nothing is being done, as a task of its own."""
        storage = self._laid_down(entry)
        if storage is not None:
            closing = self._services.workers.run(_checkpoint_and_close, storage)
            entry.task = asyncio.create_task(_see_through(closing), name="rest")
            entry.task.add_done_callback(lambda _: self._on_place_free())

    def look_back_soon(self, entry: DownloadJob) -> None:
        """`load_held_bytes` as the task of an entry, which is not started meanwhile."""
        entry.task = asyncio.create_task(self.load_held_bytes(entry), name="look back")
        entry.task.add_done_callback(lambda _: self._on_place_free())

    def _laid_down(self, entry: DownloadJob) -> PartialContent | None:
        """Stop fetching and serving; returns the storage, to be closed."""
        self.settle(entry)
        storage, entry.storage = entry.storage, None
        self._withdraw_part(entry, storage)
        return storage

    async def give_up(self, entry: DownloadJob) -> None:
        """Remove what there is of a download, and its record."""
        await _stop(entry)
        part: PartialContent | UnverifiedPart | None = self._laid_down(entry)
        if part is None and entry.record.state != "C":
            part = await self._open_part(entry)
        if part is not None:
            await self._services.workers.run(part.discard)
        else:
            journal = Journal(self.journal_of(entry.key), entry.content)
            await self._services.workers.run(journal.remove)
        await self._services.workers.run(self._records.remove, entry.key)
        if part is None and entry.away:
            shown = names.quoted(os.path.dirname(entry.path))
            self._services.notify(
                f"the part of {names.printable(entry.record.name)} could not be removed: its folder"
                f" {shown} is away"
            )
        self._services.presence_changed()
        entry.signal()

    async def forget(self, entry: DownloadJob) -> None:
        """Forget a download at rest, and its journal; what stands at its path stays."""
        journal = Journal(self.journal_of(entry.key), entry.content)
        await self._services.workers.run(journal.remove)
        await self._services.workers.run(self._records.remove, entry.key)
        entry.signal()

    async def mark_cancel_failed(self, entry: DownloadJob, error: MiniTorrentError) -> None:
        """It could not be given up: it rests until its user says what is to become of it."""
        entry.error = error
        entry.become(state="F", reason=f"could not be given up: {error}")
        self._services.presence_changed()
        await self.remember(entry)

    async def _open_part(self, entry: DownloadJob) -> UnverifiedPart | None:
        """What there is to remove. Raises `StorageError` if it is there and cannot be removed."""
        encoded = self._services.manifests.get(entry.content)
        if encoded is None or not await self._services.workers.run(open_part.has_part, entry.path):
            return None
        try:
            decoded = manifests.decode(encoded, entry.content)
            return await self._resume_part(entry, decoded)
        except (IntegrityError, RemoteProtocolError, UnsafeDestination) as error:
            log.info("there is no part of ours to remove: %s", error)
            return None

    def has_left(self, entry: DownloadJob) -> bool:
        """Whether its user is not in its group any more."""
        user = UserId(entry.record.user)
        return self._services.replica.has_left(user, entry.group, entry.record.topic)

    # -- coming back ----------------------------------------------------------------------------

    def schedule_resume(self, entry: DownloadJob) -> None:
        """Go on with a download that rests, when what is being done with it is done."""
        before = entry.task if entry.busy else None
        entry.task = asyncio.create_task(self._bring_back(entry, before), name="bring back")

    async def _bring_back(self, entry: DownloadJob, before: asyncio.Task[None] | None) -> None:
        """Open the part again, verify what the journal claims, and go on."""
        if before is not None:
            await asyncio.wait({before})
        if entry.record.by_user:
            return
        entry.become(state="D", reason=None)
        try:
            decoded, storage = await self._retry_transient(entry, lambda: self._reopen(entry))
        except AlreadyExists as error:
            await self._recover_after_rename(entry, error)
            return
        except Cancelled:
            return
        except (StorageError, IntegrityError, ConfigError) as error:
            await self._fail_or_wait(entry, error)
            return
        except (TransportError, Refused) as error:
            log.info("a download cannot go on yet: %s", error)
            entry.become(state="P", reason=str(error))
            entry.task = None
            return
        entry.storage, entry.told_away = storage, None
        if self.has_left(entry):
            await self.fail(entry, not_a_member(entry.group))
            return
        entry.task = None
        self.run(entry, decoded, [])
        if entry.record.by_user and entry.running is not None:
            entry.running.pause()  # that was said while it was being verified
        if not entry.busy:  # with a copy on this device, or with finishing what is complete
            await self.learn_sources(entry)

    async def _reopen(self, entry: DownloadJob) -> tuple[Manifest, PartialContent]:
        services = self._services
        encoded = services.manifests.get(entry.content)
        if encoded is None or manifests.manifest_id(encoded) != entry.content:
            ask = tracker.GetManifest(entry.group, entry.content, 0)
            total = (await services.link.ask(ask, tracker.ManifestPart)).reply.total_bytes
            encoded = await fetch_manifest(
                services, entry.group, entry.content, total, [], lambda _: None
            )
            await services.workers.run(services.manifests.put, entry.content, encoded)
        entry.encoded = encoded
        decoded = await services.workers.run(manifests.decode, encoded, entry.content)
        if not entry.held_bytes:
            await self.load_held_bytes(entry)
        await self.look_for_place(entry)
        part = await self._resume_part(entry, decoded)
        given_up = threading.Event()
        try:
            return decoded, await asyncio.to_thread(part.recover, cancelled=given_up.is_set)
        except BaseException:
            given_up.set()
            services.workers.submit(lambda *_: None, part.close)
            raise

    async def _resume_part(self, entry: DownloadJob, decoded: Manifest) -> UnverifiedPart:
        opened = asyncio.ensure_future(
            self._services.workers.run(
                open_part.resume,
                entry.path,
                decoded,
                entry.content,
                self.journal_of(entry.key),
                entry.record.times,
            )
        )
        try:
            return await asyncio.shield(opened)
        except asyncio.CancelledError:
            # Nobody waits for it any more, but it is being opened all the same.
            opened.add_done_callback(self._close_opened)
            raise

    def _close_opened(self, opened: asyncio.Future[UnverifiedPart]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            self._services.workers.submit(lambda *_: None, opened.result().close)

    async def _recover_after_rename(self, entry: DownloadJob, error: AlreadyExists) -> None:
        """The process may have ended between the rename and the record of it."""
        encoded = self._services.manifests.get(entry.content) or b""
        try:
            decoded = manifests.decode(encoded, entry.content)
            place = await asyncio.to_thread(sharing.recheck, decoded, entry.path)
        except (ContentChanged, MiniTorrentError):
            await self.fail(entry, error)
            return
        entry.encoded = encoded
        entry.become(reason=None)
        await self._keep(entry, decoded, place)


def not_a_member(group: GroupId) -> Refused:
    """What is said of a download from a group that its user is in no more."""
    return Refused(Code.UNKNOWN_GROUP, f"you are not a member of {group} any more")


async def _see_through(step: Awaitable[None]) -> None:
    """Wait for ``step`` even when this is cancelled: what follows needs it to have ended."""
    running, cancelled = asyncio.ensure_future(step), False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    running.result()


def _may_have_part(entry: DownloadJob) -> bool:
    """Whether there is a part, or may be one where nothing can be looked at now."""
    try:
        open_part.require_place(entry.path, entry.record.folder, False)
    except Away:
        return True
    return open_part.has_part(entry.path)


async def _stop(entry: DownloadJob) -> None:
    """End what is being done with an entry."""
    task, entry.task = entry.task, None
    if task is not None:
        task.cancel()
        await asyncio.wait({task})


def _checkpoint_and_close(storage: PartialContent) -> None:
    try:
        storage.checkpoint()
    except MiniTorrentError as error:
        log.warning("the last pieces were not synced and are fetched again: %s", error)
    finally:
        storage.close()
