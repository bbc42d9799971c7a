"""Transfer: the shell around the core of one download while it fetches and serves.

Owns: the translation between events and effects of the core, channels, writer and inventory. Not
here: which piece comes from which source (see peer.swarm.fetching.machine), writing (see
peer.downloads.piece_writer), and when a transfer begins and ends (see peer.downloads.lifecycle).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from typing import assert_never

from common.errors import RemoteProtocolError, StorageError
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId
from common.manifest import Manifest
from common.messages import peer
from common.messages.base import Refusal, Source
from common.messages.refusals import Code
from peer.downloads.counts import DownloadCounts
from peer.downloads.listed_sources import ListedSource, ListedSources
from peer.downloads.pause import UserPause
from peer.downloads.piece_writer import PieceWriter
from peer.downloads.received import ReceivedPieces
from peer.downloads.reuse import PlannedReuse, ReuseRun
from peer.fetching.channel import Channel, ChannelHandler
from peer.fetching.pool import ConnectionPool
from peer.files.errors import DigestMismatch
from peer.files.fingerprint import SharedLocation
from peer.files.held_pieces import runs_of
from peer.files.partial_content import PartialContent
from peer.native.fetcher import StoredRun, Target
from peer.serving.inventory import Inventory
from peer.swarm.fetching import events as swarm
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.piece_map import Cell, piece_map
from peer.swarm.fetching.progress import Progress
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.rate_limit import RateLimit
from peer.wakeup_timer import WakeupTimer
from peer.workers import Workers

log = logging.getLogger(__name__)

# Refusals that pass: the source has not received some news yet, verifies its files again because
# they were touched, or lost part of our messages.
_TRANSIENT = {
    Code.TICKET_EXPIRED, Code.TICKET_INVALID, Code.BUSY, Code.LIMIT, Code.MALFORMED, Code.CHANGED,
    Code.UNKNOWN_SHARE, Code.UNKNOWN_GROUP,
}  # fmt: skip


class Transfer(ChannelHandler):
    """A download that fetches, writes and serves at the same time.

    ``local`` are pieces that no source gave, and ``planned_reuse`` those that other local files may
    give. ``on_paused`` is called with the reason when the disk takes nothing for now, and with None
    when it takes data again.
    """

    def __init__(
        self,
        group: GroupId,
        content: ContentId,
        manifest: Manifest,
        part: PartialContent,
        *,
        pool: ConnectionPool,
        inventory: Inventory,
        workers: Workers,
        settings: DownloadSettings,
        limit: RateLimit,
        counts: DownloadCounts,
        ipc_allowed: bool,
        pause: UserPause,
        on_paused: Callable[[str | None], None],
        rng: random.Random,
        local: Collection[int] = (),
        planned_reuse: PlannedReuse | None = None,
    ) -> None:
        self.group = group
        self.content = content
        self.manifest = manifest
        self.part = part
        self.on_paused = on_paused
        self._pause = pause
        self._pool = pool
        self._inventory = inventory
        self._core = Download(
            PieceLayout(manifest.size, manifest.piece_length),
            rng,
            have=Bitfield(manifest.piece_count, part.held_indexes()),
            settings=settings,
            limit=limit,
            alike=part.alike,
            wanted=part.wanted,
            planned_reuse=() if planned_reuse is None else planned_reuse.pieces,
        )
        self._wakeup = WakeupTimer(self._on_tick)
        self._received = ReceivedPieces(manifest.piece_length, group, counts)
        self._sources = ListedSources(pool.pair.public, ipc_allowed=ipc_allowed)
        self._channels: dict[DeviceKey, Channel] = {}
        self._writer = PieceWriter(part, workers, self, counts)
        self._writer.count_local(local)
        self._reuse: ReuseRun | None = None
        if planned_reuse is not None:
            wanted = self._core.planned_reuse()
            self._reuse = ReuseRun(part, planned_reuse.plan, wanted, pause, self)
        self._closed = False
        self._ended = asyncio.Event()  # every piece is held, or it failed
        self._failure: StorageError | None = None

    # -- state ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin without any known source, or serve alone while the user pauses it."""
        self._writer.start()
        if self._reuse is not None:
            self._reuse.start()
        self.handle(swarm.Paused() if self._pause.by_user else swarm.Tick())

    async def until_complete(self) -> None:
        """Wait until every piece is held. Raises the `StorageError` that `fail` was called with."""
        await self._ended.wait()
        if self._failure is not None:
            raise self._failure

    def fail(self, error: StorageError) -> None:
        """The disk takes nothing, for good or until it is back: end `until_complete`."""
        self._failure = error
        self._ended.set()

    def sources(self, sources: list[Source]) -> None:
        """Take the tracker's list: sources that failed before are tried again at once."""
        for event in self._sources.add(sources):
            self.handle(event)
        self._sources.bound(lambda: {source.source for source in self.progress().sources})

    def source_gone(self, device: DeviceKey) -> None:
        """The tracker lists this source no longer."""
        self.handle(swarm.SourceGone(device))

    @property
    def copying(self) -> bool:
        """Whether pieces are still looked for on this device."""
        return self._reuse is not None and self._reuse.active

    def pause(self) -> None:
        """Request nothing more, as its user wants; go on serving."""
        self.part.invalidate()
        self.handle(swarm.Paused())

    def resume(self) -> None:
        """Fetch again; a disk that still fails is reported again."""
        self._writer.pause_reason = None
        self.handle(swarm.Resumed())

    def progress(self) -> Progress:
        """The progress of the core."""
        return self._core.progress(monotonic())

    def piece_map(self) -> list[Cell]:
        """The pieces for display."""
        return piece_map(self._core.pieces.states, self._core.progress(monotonic()).sources)

    def listed(self, device: DeviceKey) -> ListedSource | None:
        """The source as the tracker listed it, if it did."""
        return self._sources.get(device)

    @property
    def fetched_bytes(self) -> int:
        """Bytes of held pieces that this device did not have, in this session or before."""
        held_bytes = sum(self.manifest.piece_span(index)[1] for index in self.part.held_indexes())
        return max(0, held_bytes - self._writer.local_bytes)

    def pieces_by_source(self) -> list[tuple[ListedSource, int]]:
        """The sources of verified pieces of this session, most pieces first."""
        return self._sources.pieces_by_source()

    @property
    def wants_sources(self) -> bool:
        """Whether no source gives anything now."""
        progress = self.progress()
        return not progress.complete and not any(source.rate for source in progress.sources)

    def close(self) -> None:
        """Stop fetching; the caller closes the part."""
        self._closed = True
        if self._reuse is not None:
            self._reuse.close()
        self._writer.close()
        self._wakeup.close()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._received.clear()

    # -- the core -------------------------------------------------------------------------------

    def handle(self, *events: swarm.DownloadEvent) -> None:
        """Hand events to the core, and carry out its effects."""
        if self._closed:
            return
        now = monotonic()
        self._carry_out(self._core.handle_all(events, now))
        self._wakeup.set(self._core.next_wakeup(now), now)

    def _carry_out(self, effects: list[swarm.DownloadEffect]) -> None:
        to_verify: list[swarm.Verify] = []
        zeros: list[int] = []
        for effect in effects:
            match effect:
                case swarm.Request(device, pieces):
                    if (channel := self._channels.get(device)) is not None:
                        channel.request(pieces)
                case swarm.Verify():
                    to_verify.append(effect)
                case swarm.Make(index, None):
                    zeros.append(index)
                case swarm.Make(index, like):
                    self._writer.make(range(index, index + 1), like)
                case swarm.Announce(pieces):
                    self._inventory.announce(self.content, pieces, self.part)
                case swarm.CancelRequest(device, pieces):
                    if (channel := self._channels.get(device)) is not None:
                        channel.cancel(pieces)
                case swarm.Discard(device, index, why):
                    self._received.discard(device, index, why)
                case swarm.Open(device):
                    self._open(device)
                case swarm.Close(device, verdict):
                    log.debug("source %s: %s", device.hex()[:16], verdict.value)
                    self._close(device, reconnect=verdict is swarm.Verdict.SILENT)
                case swarm.Complete():
                    self._ended.set()
                case _:
                    assert_never(effect)
        self._writer.store(self._received.take(to_verify))
        for zero_run in runs_of(zeros):
            self._writer.make(zero_run, None)

    def _open(self, device: DeviceKey) -> None:
        self._close(device)
        self._channels[device] = self._pool.open(
            device, self._sources.endpoint_of(device), self.content, self.group, self
        )

    def _close(self, device: DeviceKey, *, reconnect: bool = False) -> None:
        channel = self._channels.pop(device, None)
        if channel is not None and reconnect:
            channel.reconnect()
        elif channel is not None:
            channel.close()

    def _on_tick(self) -> None:
        for device in self._core.silent_sources(monotonic()):
            channel = self._channels.get(device)
            if channel is not None and (at := channel.moved_at) is not None:
                self.handle(swarm.SourceMoves(device, at))
        self.handle(swarm.Tick())

    # -- callbacks of channels ------------------------------------------------------------------

    def on_opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        have = None
        if bitfield is not None:
            try:
                have = Bitfield.from_bytes(bitfield, self.manifest.piece_count)
            except (ValueError, RemoteProtocolError) as error:
                self.handle(swarm.SourceRefused(device, False, f"a malformed bitfield: {error}"))
                self._close(device)
                return
        self.handle(swarm.Opened(device, have))

    def on_have(self, device: DeviceKey, pieces: list[int]) -> None:
        self.handle(swarm.HaveMore(device, tuple(pieces)))

    def on_its_way(self, device: DeviceKey, pieces: list[int]) -> None:
        self.handle(swarm.OnItsWay(device, tuple(pieces)))

    def on_pieces(self, device: DeviceKey, first: int, count: int, data: memoryview) -> None:
        if not self._closed:
            self.handle(*self._received.add(device, first, count, data))

    def target(self) -> Target | None:
        return self.part.direct.target()

    def on_stored_runs(self, device: DeviceKey, runs: list[StoredRun]) -> None:
        if not self._closed:
            self.handle(
                *(event for run in runs for event in self._received.add_stored(device, run))
            )

    def on_declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        pieces = tuple(answer.pieces)
        if answer.busy:
            self.handle(swarm.SourceBusy(device, answer.retry_after_ms / 1000, pieces))
        else:
            self.handle(swarm.PiecesRefused(device, pieces))

    def on_refused(self, device: DeviceKey, refusal: Refusal) -> None:
        self._channels.pop(device, None)
        transient = refusal.code in _TRANSIENT
        self.handle(swarm.SourceRefused(device, transient, refusal.message))

    def on_lost(self, device: DeviceKey, opened: bool) -> None:
        self._channels.pop(device, None)
        self.handle(swarm.SourceClosed(device) if opened else swarm.SourceUnreachable(device))

    # -- the disk -------------------------------------------------------------------------------

    def on_stored(self, device: DeviceKey | None, pieces: tuple[int, ...]) -> None:
        """Serve pieces that are verified and written; ``device`` is their source, if any."""
        if device is not None:
            self._sources.count_pieces(device, len(pieces))
        self._inventory.held_more(self.content, pieces, self.part)

    def damaged(self, pieces: tuple[int, ...]) -> None:
        """Fetch held pieces again, which are damaged on the disk."""
        if not self._closed:
            now = monotonic()
            if self._failure is None:
                self._ended.clear()
            self._inventory.held_less(self.content, pieces, self.part)
            self._carry_out(self._core.mark_missing(pieces, now))
            self._wakeup.set(self._core.next_wakeup(now), now)

    async def finalize(self) -> SharedLocation | None:
        """Verify the whole and give it its final name; None if pieces must be fetched again.

        Raises `StorageError`, or `IntegrityError` if the manifest contradicts itself.
        """
        try:
            return await asyncio.to_thread(self.part.finalize, lambda: self._closed)
        except DigestMismatch as error:
            if not error.pieces:
                raise
            log.warning("%s", error)
            self.damaged(error.pieces)
            return None

    def on_retry(self) -> None:
        """The disk is tried again."""
        if not self._pause.by_user:
            self.handle(swarm.Resumed())

    def on_reused(self, found: tuple[int, ...], missing: tuple[int, ...]) -> None:
        if found:
            self._writer.on_made(found)
        self.handle(*map(swarm.PieceNotFound, missing))

    def on_reuse_failed(self, error: StorageError) -> None:
        self._writer.pause_for(error)
