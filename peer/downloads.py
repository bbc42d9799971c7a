"""The downloads of this device: beginning, remembering, bringing back, ending.

Owns the records and the life of each download: asked for, fetching, paused, complete, failed. How
pieces come is ``peer.running``'s; a finished download becomes a share and is ``peer.shares``' then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from common import manifest as manifests
from common import names
from common.clock import TrackerTime, monotonic
from common.errors import (
    ConfigError,
    IntegrityError,
    MiniTorrentError,
    Refused,
    StorageError,
    TransportError,
)
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.manifest import Manifest
from common.messages import control, events, tracker
from common.messages.base import Source
from common.messages.refusals import Code
from peer.fanout import Fanout
from peer.files import sharing
from peer.files.errors import AlreadyThere, Cancelled, ContentChanged
from peer.files.fingerprints import Place
from peer.files.storage import PartialContent
from peer.following import Following
from peer.records import DownloadRecord, Manifests, Records, record_key
from peer.rights import Tickets
from peer.running import Running
from peer.settings import Settings
from peer.shares import Shares
from peer.shelf import Shelf
from peer.swarm.download import DownloadSettings
from peer.swarm.limits import Limit
from peer.swarm.picker import Order
from peer.swarm.pieces import Bitfield
from peer.tracker_link import TrackerLink
from peer.workers import Workers

log = logging.getLogger(__name__)

SOURCES_INTERVAL_S = 20.0  # how often the tracker is asked again by a download without sources
Tell = Callable[[control.Progress], None]


@dataclass(slots=True)
class _Download:
    """A record, and what belongs to it while it is not at rest."""

    key: str
    record: DownloadRecord
    running: Running | None = None
    storage: PartialContent | None = None
    encoded: bytes = b""
    began: float = 0.0
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever the state changes: who waits looks again."""
    error: MiniTorrentError | None = None

    @property
    def group(self) -> GroupId:
        return GroupId(self.record.group)

    @property
    def content(self) -> ContentId:
        return ContentId(self.record.content)

    @property
    def path(self) -> str:
        return os.fsdecode(self.record.path)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every download works with."""

    home: Path
    link: TrackerLink
    following: Following
    tickets: Tickets
    fanout: Fanout
    shelf: Shelf
    shares: Shares
    workers: Workers
    manifests: Manifests
    settings: Settings
    limit: Limit
    time: TrackerTime
    notify: Callable[[str], None]
    presence_changed: Callable[[], None]


class Downloads:
    """All downloads of all users of this device; those of the one who is logged in can run."""

    def __init__(self, around: Surroundings, rng: random.Random) -> None:
        self._around = around
        self._rng = rng
        self._records = Records(around.home / "downloads", DownloadRecord)
        self._journals = around.home / "journals"
        self._journals.mkdir(mode=0o700, exist_ok=True)
        self._user: UserId | None = None
        self._all = {key: _Download(key, record) for key, record in self._records.load().items()}
        self._sources_task: asyncio.Task[None] | None = None

    # -- looking --------------------------------------------------------------------------------

    def contents(self) -> set[ContentId]:
        """All contents that some record names."""
        return {download.content for download in self._all.values()}

    def _mine(self) -> list[_Download]:
        mine = [d for d in self._all.values() if d.record.user == self._user]
        return sorted(mine, key=lambda d: (d.record.started_ms, d.key))

    def rows(self) -> list[control.DownloadRow]:
        """What ``show-downloads`` shows, oldest first."""
        return [self._row(download) for download in self._mine()]

    def _row(self, download: _Download) -> control.DownloadRow:
        record, running = download.record, download.running
        verified, rate, eta, sources = 0, 0.0, None, 0
        if record.state == "C":
            verified, eta = record.size, 0.0
        elif running is not None:
            progress = running.progress()
            verified, rate, eta = progress.held_bytes, progress.rate, progress.eta_s
            sources = sum(1 for source in progress.sources if source.rate > 0)
        return control.DownloadRow(
            state=record.state,
            group=record.group,
            name=record.name,
            path=download.path,
            size=record.size,
            verified=verified,
            rate=rate,
            eta_s=eta,
            sources=sources,
            reason=record.reason,
        )

    def leeching(self) -> list[tracker.Leeching]:
        """What is announced to the tracker: contents of which we have and serve a part."""
        return [
            tracker.Leeching(d.group, d.content, d.running.progress().held_pieces)
            for d in self._mine()
            if d.running is not None and d.record.state in "DP"
        ]

    def why_slow(self, group_text: str, name: str) -> list[control.SourceRow]:
        """What each source of a running download does. Raises `Refused`."""
        running = self._find(group_text, name, "DP").running
        if running is None:
            return []
        rows = []
        for source in running.progress().sources:
            known = running.known(source.source)
            verdict = source.verdict.value if source.verdict is not None else "good"
            note = f": {source.note}" if source.note else ""
            rows.append(
                control.SourceRow(
                    user=source.user,
                    endpoint=known.endpoint if known else "",
                    complete=source.complete,
                    rate=source.rate,
                    pieces=source.pieces,
                    in_flight=source.asked,
                    verdict=f"{source.phase.name.lower()}, {verdict}{note}",
                )
            )
        return rows

    def _find(self, group_text: str, name: str, states: str) -> _Download:
        group = names.group_id(group_text)
        wanted = names.fold_name(name)
        for download in reversed(self._mine()):
            record = download.record
            if (
                record.group == group
                and names.fold_name(record.name) == wanted
                and record.state in states
            ):
                return download
        raise Refused(
            Code.UNKNOWN_SHARE,
            f"there is no such download of {names.quoted(name)} in {group}",
            "mini-torrent show-downloads lists them",
        )

    # -- beginning ------------------------------------------------------------------------------

    async def begin(self, ask: control.DownloadFile, tell: Tell) -> str:
        """Begin a download, or find the same one under way; returns its key.

        When this returns the destination is reserved and the record written. Raises
        `MiniTorrentError`s of all kinds, and then nothing has changed.
        """
        user = self._require_user()
        group = names.group_id(ask.group)
        order = _order(ask.pick)
        tell(control.Progress("finding sources", 0, 0))
        find = tracker.FindShare(group, ask.name)
        found = (await self._around.link.ask(find, tracker.ShareFound)).reply
        name = names.share_name(found.row.name)
        path = _destination(ask.dest, name)
        content = ContentId(found.row.content)
        under_way = self._under_way(path)
        if under_way is not None:
            if under_way.content != content or under_way.record.user != user:
                raise AlreadyThere(f"another download to {names.quoted(path)} is under way")
            return under_way.key
        await self._around.tickets.want(group)
        encoded = await self._fetch_manifest(group, content, found.manifest_bytes, tell)
        decoded = await self._around.workers.run(manifests.decode, encoded, content)
        await self._around.workers.run(self._around.manifests.put, content, encoded)
        record = DownloadRecord(
            user=user,
            group=group,
            name=name,
            content=content,
            path=os.fsencode(path),
            size=decoded.size,
            digest=decoded.digest.hex(),
            pick=order.value,
            started_ms=self._around.time.now_ms(),
        )
        key = record_key(user, group, name, path, str(record.started_ms))
        journal = str(self._journals / key)
        storage = await self._around.workers.run(
            PartialContent.create, path, decoded, content, journal
        )
        record = _changed(record, path=os.fsencode(storage.path))
        download = _Download(key, record, storage=storage, encoded=encoded)
        try:
            await self._around.workers.run(self._records.put, key, record)
        except StorageError:
            await self._around.workers.run(storage.discard)
            raise
        self._all[key] = download
        self._run(download, decoded, found.sources)
        return key

    def _require_user(self) -> UserId:
        if self._user is None:
            raise Refused(Code.NOT_LOGGED_IN, "nobody is logged in", "mini-torrent login USER")
        return self._user

    def _under_way(self, path: str) -> _Download | None:
        real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
        for download in self._all.values():
            if download.record.state in "DP" and download.path in (path, real):
                return download
        return None

    async def _fetch_manifest(
        self, group: GroupId, content: ContentId, total: int, tell: Tell
    ) -> bytes:
        kept = self._around.manifests.get(content)
        if kept is not None and manifests.manifest_id(kept) == content:
            return kept
        parts = bytearray()
        while len(parts) < total:
            tell(control.Progress("fetching the manifest", len(parts), total))
            ask = tracker.GetManifest(group, content, len(parts))
            answer = await self._around.link.ask(ask, tracker.ManifestPart)
            if answer.reply.total_bytes != total or not answer.data:
                raise IntegrityError("the tracker's parts of the manifest do not fit together")
            parts += answer.data
        return bytes(parts)

    # -- running --------------------------------------------------------------------------------

    def _run(self, download: _Download, decoded: Manifest, sources: list[Source]) -> None:
        around, record, storage = self._around, download.record, download.storage
        assert storage is not None
        settings = DownloadSettings(
            order=_order(record.pick),
            buffer_bytes=around.settings.buffer_bytes,
            used_max=around.settings.sources_used,
        )
        running = Running(
            download.group,
            download.content,
            decoded,
            storage,
            fanout=around.fanout,
            shelf=around.shelf,
            workers=around.workers,
            settings=settings,
            limit=around.limit,
            ipc_allowed=around.link.where.endpoint.startswith("ipc://"),
            on_complete=lambda: self._spawn_finish(download),
            on_trouble=lambda reason: self._trouble(download, reason),
            rng=random.Random(self._rng.getrandbits(64)),
        )
        download.running = running
        download.began = monotonic()
        local = around.shelf.get(download.content)
        around.following.follow_share(download.group, download.content)
        if local is not None and local.have is None:
            download.task = asyncio.create_task(self._copy(download, local.reader.read_piece))
        else:
            self._offer_part(download, decoded)
            running.start()
            running.sources(sources)
        around.presence_changed()
        if self._sources_task is None:
            self._sources_task = asyncio.create_task(self._look_for_sources(), name="sources")

    def _offer_part(self, download: _Download, decoded: Manifest) -> None:
        storage, running = download.storage, download.running
        assert storage is not None
        assert running is not None
        have = Bitfield(decoded.piece_count, storage.held_indexes())
        self._around.shelf.put(
            download.group,
            download.content,
            decoded,
            download.encoded,
            storage,
            have,
            on_damaged=running.damaged,
        )

    async def _copy(self, download: _Download, read_piece: Callable[[int], object]) -> None:
        """What this device has already is copied rather than fetched."""
        running = download.running
        assert running is not None
        if await running.copy_from(read_piece):
            await self._finish(download)
        elif download.record.state == "D":
            self._offer_part(download, running.manifest)
            running.start()

    def peers_changed(self, update: events.PeerUpdate) -> None:
        """The peer set of a share changed."""
        group, content = GroupId(names.fold_id(update.group)), ContentId(update.content)
        for download in self._all.values():
            if download.running is None or download.content != content:
                continue
            if download.group == group:
                download.running.sources(update.up)
                for device in update.down:
                    download.running.source_gone(DeviceKey(device))

    async def _look_for_sources(self) -> None:
        """Ask the tracker again for those who get nothing: an event may have been lost."""
        while True:
            await asyncio.sleep(SOURCES_INTERVAL_S)
            for download in list(self._all.values()):
                if download.running is not None and download.running.wants_sources:
                    await self._learn_sources(download)

    async def _learn_sources(self, download: _Download) -> None:
        running = download.running
        if running is None:
            return
        ask = tracker.GetSources(download.group, download.content)
        try:
            await self._around.tickets.want(download.group)
            reply = (await self._around.link.ask(ask, tracker.Sources)).reply
        except MiniTorrentError as error:
            log.debug("no sources were told: %s", error)
            return
        running.sources(reply.sources)

    def link_up(self) -> None:
        """The tracker is back: learn what changed in the peer sets meanwhile."""
        for download in self._all.values():
            if download.running is not None:
                self._around.following.follow_share(download.group, download.content)
                task = asyncio.create_task(self._learn_sources(download))
                task.add_done_callback(lambda _: None)

    # -- ending ---------------------------------------------------------------------------------

    def _spawn_finish(self, download: _Download) -> None:
        download.task = asyncio.create_task(self._finish(download), name="finish")

    async def _finish(self, download: _Download) -> None:
        running = download.running
        assert running is not None
        try:
            place = await running.finalize()
        except (StorageError, IntegrityError) as error:
            await self._fail(download, error)
            return
        if place is not None:
            await self._complete(download, running, place)

    async def _complete(self, download: _Download, running: Running, place: Place) -> None:
        uses = [
            control.SourceUse(known.user, known.endpoint, pieces)
            for known, pieces in running.pieces_by_source()
        ]
        download.record = _changed(
            download.record,
            state="C",
            reason=None,
            elapsed_s=download.record.elapsed_s + monotonic() - download.began,
            sources=uses,
        )
        await self._remember(download)
        around = self._around
        await around.shares.adopt_download(
            download.group, download.record.name, running.manifest, download.encoded, place
        )
        self._settle(download)
        # The shelf reads from the final file by now; reads under way are waited for.
        if download.storage is not None:
            await around.workers.run(download.storage.close)
            download.storage = None
        around.presence_changed()
        _signal(download)

    async def _fail(self, download: _Download, error: MiniTorrentError) -> None:
        download.error = error
        download.record = _changed(download.record, state="F", reason=str(error))
        self._around.notify(f"the download of {names.printable(download.record.name)}: {error}")
        self._settle(download)
        self._around.shelf.withdraw_part(download.group, download.content)
        if download.storage is not None:
            await self._around.workers.run(download.storage.close)
            download.storage = None
        await self._remember(download)
        _signal(download)

    def _settle(self, download: _Download) -> None:
        """Stop fetching."""
        if download.running is not None:
            download.running.close()
            download.running = None
        if not any(
            d.running is not None and (d.group, d.content) == (download.group, download.content)
            for d in self._all.values()
        ):
            self._around.following.unfollow_share(download.group, download.content)

    async def _remember(self, download: _Download) -> None:
        try:
            await self._around.workers.run(self._records.put, download.key, download.record)
        except StorageError as error:
            log.error("the state of a download could not be recorded: %s", error)

    def _trouble(self, download: _Download, reason: str | None) -> None:
        state = "D" if reason is None else "P"
        if reason is not None:
            self._around.notify(
                f"the download of {names.printable(download.record.name)} is paused: {reason}"
            )
        download.record = _changed(download.record, state=state, reason=reason)
        _signal(download)

    # -- what people do with them ---------------------------------------------------------------

    async def wait(self, key: str, tell: Tell) -> control.Downloaded:
        """Wait for the end of a download, telling its progress meanwhile.

        Raises what it failed with, and `Refused` when it was cancelled.
        """
        while (download := self._all.get(key)) is not None:
            record = download.record
            if record.state == "C":
                return _downloaded(download)
            if record.state == "F":
                raise download.error or StorageError(record.reason or "the download failed")
            self._tell_progress(download, tell)
            try:
                await asyncio.wait_for(download.changed.wait(), 0.2)
            except TimeoutError:
                continue
        raise Refused(Code.CANCELLED, "the download was cancelled")

    def _tell_progress(self, download: _Download, tell: Tell) -> None:
        row = self._row(download)
        stage = "waiting" if row.state == "P" else "downloading"
        note = row.reason
        if row.size and row.verified == row.size:
            stage = "checking"
        elif row.state == "D" and row.sources == 0:
            note = "no source answers yet"
        tell(
            control.Progress(stage, row.verified, row.size, row.rate, row.eta_s, row.sources, note)
        )

    async def pause(self, group_text: str, name: str) -> None:
        """Stop fetching until `resume`, over restarts too."""
        download = self._find(group_text, name, "DP")
        if download.running is not None:
            download.running.pause()
        download.record = _changed(
            download.record, state="P", reason="paused by the user", by_user=True
        )
        await self._remember(download)
        _signal(download)

    async def resume(self, group_text: str, name: str) -> None:
        """Go on with a paused or failed download."""
        download = self._find(group_text, name, "PDF")
        download.record = _changed(download.record, state="D", reason=None, by_user=False)
        download.error = None
        await self._remember(download)
        if download.running is not None:
            download.running.resume()
        else:
            await self._bring_back(download)
        _signal(download)

    async def cancel(self, group_text: str, name: str) -> None:
        """Give a download up, remove what there is of it, and forget it."""
        download = self._find(group_text, name, "DPF")
        await self._give_up(download)

    async def _give_up(self, download: _Download) -> None:
        self._settle(download)
        self._around.shelf.withdraw_part(download.group, download.content)
        storage = download.storage
        if storage is None and download.record.state != "C":
            storage = await self._open_part(download)
        if storage is not None:
            await self._around.workers.run(storage.discard)
            download.storage = None
        self._all.pop(download.key, None)
        await self._around.workers.run(self._records.remove, download.key)
        self._around.presence_changed()
        _signal(download)

    async def _open_part(self, download: _Download) -> PartialContent | None:
        encoded = self._around.manifests.get(download.content)
        if encoded is None:
            return None
        try:
            decoded = manifests.decode(encoded, download.content)
            return await self._around.workers.run(
                PartialContent.resume,
                download.path,
                decoded,
                download.content,
                str(self._journals / download.key),
            )
        except MiniTorrentError as error:
            log.info("there is no part to remove: %s", error)
            return None

    # -- who is logged in -----------------------------------------------------------------------

    async def activate(self, user: UserId) -> None:
        """Go on with the unfinished downloads of ``user``."""
        if self._user != user:
            await self.deactivate()
            self._user = user
        for download in self._mine():
            resting = download.running is None and download.task is None
            if resting and download.record.state in "DP" and not download.record.by_user:
                download.task = asyncio.create_task(self._bring_back(download))

    async def deactivate(self) -> None:
        """Nobody is logged in: let everything rest where it is."""
        for download in self._all.values():
            await self._rest(download)
        self._user = None

    async def _rest(self, download: _Download) -> None:
        if download.task is not None:
            download.task.cancel()
            download.task = None
        if download.running is None:
            return
        self._settle(download)
        self._around.shelf.withdraw_part(download.group, download.content)
        if download.storage is not None:
            storage, download.storage = download.storage, None
            await self._around.workers.run(_checkpoint_and_close, storage)

    async def _bring_back(self, download: _Download) -> None:
        """Open the part again, verify what the journal claims, and go on."""
        download.record = _changed(download.record, state="D", reason=None)
        try:
            decoded, storage = await self._reopen(download)
        except AlreadyThere as error:
            await self._perhaps_finished(download, error)
            return
        except Cancelled:
            return
        except (StorageError, IntegrityError, ConfigError) as error:
            await self._fail(download, error)
            return
        except (TransportError, Refused) as error:
            log.info("the download cannot go on yet: %s", error)
            download.record = _changed(download.record, state="P", reason=str(error))
            return
        finally:
            download.task = None
        download.storage = storage
        self._run(download, decoded, [])
        if storage.is_complete:
            self._spawn_finish(download)
        else:
            await self._learn_sources(download)

    async def _reopen(self, download: _Download) -> tuple[Manifest, PartialContent]:
        group, content = download.group, download.content
        encoded = self._around.manifests.get(content)
        if encoded is None or manifests.manifest_id(encoded) != content:
            ask = tracker.GetManifest(group, content, 0)
            total = (await self._around.link.ask(ask, tracker.ManifestPart)).reply.total_bytes
            encoded = await self._fetch_manifest(group, content, total, lambda _: None)
        download.encoded = encoded
        decoded = await self._around.workers.run(manifests.decode, encoded, content)
        journal = str(self._journals / download.key)
        storage = await self._around.workers.run(
            PartialContent.resume, download.path, decoded, content, journal
        )
        await asyncio.to_thread(storage.recover)
        return decoded, storage

    async def _perhaps_finished(self, download: _Download, error: AlreadyThere) -> None:
        """The process may have ended between the rename and the record of it."""
        encoded = self._around.manifests.get(download.content) or b""
        try:
            decoded = manifests.decode(encoded, download.content)
            place = await asyncio.to_thread(sharing.recheck, decoded, download.path)
        except (ContentChanged, MiniTorrentError):
            await self._fail(download, error)
            return
        download.record = _changed(download.record, state="C", reason=None)
        await self._remember(download)
        await self._around.shares.adopt_download(
            download.group, download.record.name, decoded, encoded, place
        )
        _signal(download)

    async def groups_changed(self) -> None:
        """What was to be fetched from a group that we are in no more fails."""
        for download in self._mine():
            gone = download.group not in self._around.following.groups
            if gone and download.record.state in "DP" and download.running is not None:
                reason = Refused(
                    Code.UNKNOWN_GROUP, f"you are not a member of {download.group} any more"
                )
                await self._fail(download, reason)

    async def close(self) -> None:
        """Let everything rest: what is verified is synced and journalled."""
        if self._sources_task is not None:
            self._sources_task.cancel()
        await self.deactivate()


def _signal(download: _Download) -> None:
    download.changed.set()
    download.changed = asyncio.Event()


def _changed(record: DownloadRecord, **fields: object) -> DownloadRecord:
    return msgspec.structs.replace(record, **fields)


def _order(text: str) -> Order:
    try:
        return Order(text)
    except ValueError:
        raise ConfigError(
            f"there is no way to pick {names.quoted(text)}", "rarest, random or sequential"
        ) from None


def _destination(dest: str, name: str) -> str:
    """The final path: inside ``dest`` if that is a folder, else ``dest`` itself."""
    if os.path.isdir(dest):
        return os.path.join(dest, name)
    return dest.rstrip("/") if dest.endswith("/") else dest


def _downloaded(download: _Download) -> control.Downloaded:
    record = download.record
    rate = record.size / record.elapsed_s if record.elapsed_s > 0 else 0.0
    return control.Downloaded(
        name=record.name,
        path=download.path,
        size=record.size,
        digest=record.digest,
        elapsed_s=record.elapsed_s,
        rate=rate,
        sources=record.sources,
    )


def _checkpoint_and_close(storage: PartialContent) -> None:
    try:
        storage.checkpoint()
    except StorageError as error:
        log.warning("the last pieces were not synced and are fetched again: %s", error)
    storage.close()
