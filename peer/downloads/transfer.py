"""One download while it runs: the shell around ``peer.swarm.fetching.machine``.

Owns the translation between the core's effects and the channels, the storage and the shelf. It
decides nothing about pieces and sources. When it is synced is ``checkpoints``' business; what is
remembered of a download, and when one begins or ends, is ``life``'s.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, assert_never

from common import limits
from common.errors import IntegrityError, MiniTorrentError, RemoteProtocolError, StorageError
from common.host.clock import monotonic
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.link import check_source
from common.manifest import Manifest
from common.messages import peer
from common.messages.base import Source
from common.messages.refusals import Code, Refusal
from common.names import fold_id
from peer.downloads.checkpoints import Checkpoints
from peer.downloads.local_copy import copy_missing, stretches
from peer.downloads.received import PieceRun, ReceivedPieces
from peer.fetching.channel import Channel, ChannelHandler
from peer.fetching.pool import ConnectionPool
from peer.files.errors import (
    ContentChanged,
    DigestMismatch,
    PieceNotHeld,
    StorageClosed,
    TooManyOpenFiles,
    TransientStorageError,
)
from peer.files.fingerprint import SharedLocation
from peer.files.partial_content import PartialContent
from peer.serving.inventory import Inventory, Reader
from peer.swarm.fetching import events as swarm
from peer.swarm.fetching.machine import Download
from peer.swarm.fetching.progress import Progress
from peer.swarm.fetching.settings import DownloadSettings
from peer.swarm.pieces import Bitfield, PieceLayout
from peer.swarm.rate_limit import RateLimit
from peer.workers import Workers

log = logging.getLogger(__name__)

STORAGE_RETRY_S = 5.0  # how often a disk that was full, for instance, is tried again
KNOWN_MAX = 4 * limits.SOURCES_MAX  # sources of which more is remembered than they are worth
# What is said no more in a while: by a source that has not been told of something yet, that looks
# at its files again because somebody touched them, or to which a part of what we said did not come.
_TRANSIENT = {
    Code.TICKET_EXPIRED,
    Code.TICKET_INVALID,
    Code.BUSY,
    Code.LIMIT,
    Code.MALFORMED,
    Code.CHANGED,
    Code.UNKNOWN_SHARE,
    Code.UNKNOWN_GROUP,
}


@dataclass(frozen=True, slots=True)
class ListedSource:
    """A source as the tracker listed it."""

    user: UserId
    endpoint: str


class Transfer(ChannelHandler):
    """A download that fetches, writes and serves at the same time.

    ``on_complete`` is called when every piece is held, ``on_trouble`` with the reason when the
    disk does not take any more for now, and with None when it does again, ``on_failed`` when it
    never will.
    """

    def __init__(
        self,
        group: GroupId,
        content: ContentId,
        manifest: Manifest,
        storage: PartialContent,
        *,
        pool: ConnectionPool,
        inventory: Inventory,
        workers: Workers,
        settings: DownloadSettings,
        limit: RateLimit,
        ipc_allowed: bool,
        on_complete: Callable[[], None],
        on_trouble: Callable[[str | None], None],
        on_failed: Callable[[StorageError], None],
        rng: random.Random,
    ) -> None:
        self.group = group
        self.content = content
        self.manifest = manifest
        self.storage = storage
        self._pool = pool
        self._inventory = inventory
        self._workers = workers
        self._ipc_allowed = ipc_allowed
        self._on_complete = on_complete
        self._on_trouble = on_trouble
        self._on_failed = on_failed
        self._new_core = partial(
            Download,
            PieceLayout(manifest.size, manifest.piece_length),
            rng,
            settings=settings,
            limit=limit,
            alike=storage.alike,
        )
        self._core = self._new_core(have=self._held())
        self._arrivals = ReceivedPieces(manifest.piece_length)
        self._known: dict[DeviceKey, ListedSource] = {}
        self._channels: dict[DeviceKey, Channel] = {}
        self._came_from: Counter[DeviceKey] = Counter()
        self._loop = asyncio.get_running_loop()
        self._wakeup: asyncio.TimerHandle | None = None
        self._retry_timer: asyncio.TimerHandle | None = None
        self._checkpoints = Checkpoints(
            storage,
            workers,
            on_synced=self._disk_takes,
            on_damaged=self.damaged,
            on_failed=self._stop_for,
        )
        self._closed = False
        self._copying = False
        self._going = asyncio.Event()  # not paused by its user
        self._going.set()
        self.trouble: str | None = None

    # -- running --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, with nothing known of any source yet."""
        self._checkpoints.start()
        self._decide(swarm.Tick())

    def sources(self, sources: list[Source]) -> None:
        """The tracker lists these sources: those that failed before are tried again at once."""
        if self._copying:
            return
        for source in sources:
            device = DeviceKey(source.device)
            if device == self._pool.pair.public:
                continue  # what is published is for everybody, and names us too
            try:
                endpoint = check_source(source.endpoint)
            except MiniTorrentError:
                continue
            # A path on this machine is only followed where the tracker itself is on one: a member
            # must not make others connect to whatever local socket they please.
            if endpoint.startswith("ipc://") and not self._ipc_allowed:
                continue
            user = UserId(fold_id(source.user))
            self._known[device] = ListedSource(user, endpoint)
            self._decide(swarm.SourceKnown(device, user, source.complete))
        self._forget_strangers()

    def _forget_strangers(self) -> None:
        """Keep those that the core knows or that gave something: all others that are ever listed
        would take memory without bound."""
        if len(self._known) > KNOWN_MAX:
            used = {source.source for source in self.progress().sources}
            kept = used | self._came_from.keys()
            self._known = {d: known for d, known in self._known.items() if d in kept}

    def source_gone(self, device: DeviceKey) -> None:
        """The tracker lists this source no more."""
        self._decide(swarm.SourceGone(device))

    @property
    def copying(self) -> bool:
        """Whether it takes what this device has already, and fetches nothing."""
        return self._copying

    def pause(self) -> None:
        """Ask for nothing more; serve on."""
        self._going.clear()
        self.storage.invalidate()
        self._decide(swarm.Paused())

    def resume(self) -> None:
        """Go on; a disk that hinders it is told of anew."""
        self.trouble = None
        self._going.set()
        self._decide(swarm.Resumed())

    def progress(self) -> Progress:
        """How it stands."""
        progress = self._core.progress(monotonic())
        if self._copying:
            held = self.storage.held_count
            held_bytes = min(self.manifest.size, held * self.manifest.piece_length)
            return replace(progress, held_pieces=held, held_bytes=held_bytes)
        return progress

    def _held(self) -> Bitfield:
        return Bitfield(self.manifest.piece_count, self.storage.held_indexes())

    def known(self, device: DeviceKey) -> ListedSource | None:
        """What the tracker said of a source."""
        return self._known.get(device)

    def pieces_by_source(self) -> list[tuple[ListedSource, int]]:
        """Whom the verified pieces of this session came from, most first."""
        return [
            (self._known[device], count)
            for device, count in self._came_from.most_common()
            if device in self._known
        ]

    @property
    def wants_sources(self) -> bool:
        """Whether nobody gives us anything just now."""
        progress = self.progress()
        return not progress.complete and not any(source.rate for source in progress.sources)

    def close(self) -> None:
        """Stop fetching; the storage is the caller's to close."""
        self._closed = True
        self._checkpoints.close()
        for timer in (self._wakeup, self._retry_timer):
            if timer is not None:
                timer.cancel()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        self._arrivals.clear()

    # -- the core -------------------------------------------------------------------------------

    def _decide(self, *events: swarm.DownloadEvent) -> None:
        """Tell the core, and do what it says."""
        if self._closed:
            return
        now = monotonic()
        self._carry_out(self._core.handle_all(events, now))
        self._set_wakeup(now)

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
                    self._make(range(index, index + 1), like)
                case swarm.Announce(pieces):
                    self._inventory.announce(self.content, pieces, self.storage)
                case swarm.CancelRequest(device, pieces):
                    if (channel := self._channels.get(device)) is not None:
                        channel.cancel(pieces)
                case swarm.Discard(device, index):
                    self._arrivals.discard(device, index)
                case swarm.Open(device):
                    self._open(device)
                case swarm.Close(device, verdict):
                    log.debug("source %s: %s", device.hex()[:16], verdict.value)
                    self._close(device, reconnect=verdict is swarm.Verdict.SILENT)
                case swarm.Complete():
                    self._on_complete()
                case _:
                    assert_never(effect)
        for stretch in self._arrivals.take(to_verify):
            self._store(stretch)
        for run in stretches(zeros):
            self._make(run, None)

    def _open(self, device: DeviceKey) -> None:
        self._close(device)
        self._channels[device] = self._pool.open(
            device, self._known[device].endpoint, self.content, self.group, self
        )

    def _close(self, device: DeviceKey, *, reconnect: bool = False) -> None:
        channel = self._channels.pop(device, None)
        if channel is not None and reconnect:
            channel.reconnect()
        elif channel is not None:
            channel.close()

    def _set_wakeup(self, now: float) -> None:
        # Moving the timer at each of thousands of pieces a second would cost more than a tick too
        # many: it is only made anew when it would ring too late.
        at = self._core.next_wakeup(now)
        if at is None or self._closed:
            return
        due = self._loop.time() + max(0.001, at - now)
        if self._wakeup is not None:
            if self._wakeup.when() <= due:
                return
            self._wakeup.cancel()
        self._wakeup = self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._wakeup = None
        for device in self._core.quiet(monotonic()):
            channel = self._channels.get(device)
            if channel is not None and (at := channel.moved_at) is not None:
                self._decide(swarm.SourceMoves(device, at))
        self._decide(swarm.Tick())

    # -- callbacks of channels ------------------------------------------------------------------

    def on_opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        have = None
        if bitfield is not None:
            try:
                have = Bitfield.from_bytes(bitfield, self.manifest.piece_count)
            except (ValueError, RemoteProtocolError) as error:
                self._decide(swarm.SourceRefused(device, False, f"a malformed bitfield: {error}"))
                self._close(device)
                return
        self._decide(swarm.Opened(device, have))

    def on_have(self, device: DeviceKey, pieces: list[int]) -> None:
        self._decide(swarm.HaveMore(device, tuple(pieces)))

    def on_pieces(self, device: DeviceKey, first: int, count: int, data: memoryview) -> None:
        if self._closed:
            return
        self._decide(*self._arrivals.came(device, first, count, data))

    def on_declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        pieces = tuple(answer.pieces)
        if answer.busy:
            self._decide(swarm.SourceBusy(device, answer.retry_after_ms / 1000, pieces))
        else:
            self._decide(swarm.PiecesRefused(device, pieces))

    def on_refused(self, device: DeviceKey, refusal: Refusal) -> None:
        self._channels.pop(device, None)
        transient = refusal.code in _TRANSIENT
        self._decide(swarm.SourceRefused(device, transient, refusal.message))

    def on_lost(self, device: DeviceKey, opened: bool) -> None:
        self._channels.pop(device, None)
        self._decide(swarm.SourceClosed(device) if opened else swarm.SourceUnreachable(device))

    # -- the disk -------------------------------------------------------------------------------

    def _store(self, stretch: PieceRun) -> None:
        device, pieces, size = stretch.source, stretch.pieces, len(stretch.data)

        def done(wrong: Any, error: BaseException | None) -> None:
            if self._closed:
                return
            if error is None:
                self._stored(device, tuple(i for i in pieces if i not in wrong), size)
                self._wrong(device, wrong)
            else:
                self._not_stored(device, pieces, error)

        self._workers.submit(done, self.storage.write_run, pieces.start, len(pieces), stretch.data)

    def _stored(self, device: DeviceKey, pieces: tuple[int, ...], size: int) -> None:
        if pieces:
            self._disk_takes()
            self._came_from[device] += len(pieces)
            self._inventory.held_more(self.content, pieces, self.storage)
            self._decide(*(swarm.PieceVerified(device, index) for index in pieces))
            self._checkpoints.wrote(size)

    def _make(self, pieces: range, like: int | None) -> None:
        """Write pieces that need no source: adjacent ones of zeros, or the copy of a held one."""

        def done(_: Any, error: BaseException | None) -> None:
            if self._closed:
                return
            if error is None:
                self._disk_takes()
                self._inventory.held_more(self.content, tuple(pieces), self.storage)
                self._decide(*map(swarm.PieceMade, pieces))
                self._checkpoints.wrote(self.manifest.run_span(pieces.start, len(pieces))[1])
                return
            if isinstance(error, DigestMismatch):
                self.damaged(error.pieces)
            elif isinstance(error, StorageClosed):
                return
            elif not isinstance(error, StorageError | PieceNotHeld):
                log.error("piece %d could not be made", pieces.start, exc_info=error)
            self._decide(*map(swarm.PieceNotMade, pieces))
            if isinstance(error, StorageError) and not isinstance(error, TooManyOpenFiles):
                self._stop_for(error)

        if like is None:
            self._workers.submit(done, self.storage.make_zeros, pieces.start, len(pieces))
        else:
            self._workers.submit(done, self.storage.copy_piece, pieces.start, like)

    def _wrong(self, device: DeviceKey, pieces: set[int]) -> None:
        for index in sorted(pieces):
            log.warning("%s sent a wrong piece %d and is banned", device.hex()[:16], index)
            self._decide(swarm.PieceCorrupt(device, index))

    def _not_stored(self, device: DeviceKey, pieces: range, error: BaseException) -> None:
        if isinstance(error, StorageClosed):
            return
        if not isinstance(error, StorageError):
            first, last = pieces[0], pieces[-1]
            log.error("pieces %d to %d could not be stored", first, last, exc_info=error)
        self._decide(*(swarm.PieceUnwritten(device, index, str(error)) for index in pieces))
        if isinstance(error, StorageError) and not isinstance(error, TooManyOpenFiles):
            self._stop_for(error)

    def _stop_for(self, error: StorageError) -> None:
        """The disk does not take any more: pause with the reason and try again in a while, if it
        is of the kind that passes; else the download has failed."""
        self._decide(swarm.Paused())
        self.storage.invalidate()
        if not isinstance(error, TransientStorageError):
            self._on_failed(error)
            return
        if self.trouble is None:
            self.trouble = str(error)
            self._on_trouble(self.trouble)
        if self._retry_timer is None and not self._closed:
            self._retry_timer = self._loop.call_later(STORAGE_RETRY_S, self._try_again)

    def _try_again(self) -> None:
        # Still paused in people's eyes: only what was written shows that the disk takes it.
        self._retry_timer = None
        self._checkpoints.sync(at_once=True)
        if self._going.is_set():
            self._decide(swarm.Resumed())

    def _disk_takes(self) -> None:
        if self.trouble is not None and self._retry_timer is None:
            self.trouble = None
            if self._going.is_set():
                self._on_trouble(None)

    def damaged(self, pieces: tuple[int, ...]) -> None:
        """Held pieces turned out damaged on the disk: fetch them again."""
        if not self._closed:
            now = monotonic()
            self._inventory.held_less(self.content, pieces, self.storage)
            self._carry_out(self._core.mark_missing(pieces, now))
            self._set_wakeup(now)

    # -- the whole ------------------------------------------------------------------------------

    async def finalize(self) -> SharedLocation | None:
        """Verify the whole and put it in place; None when pieces must be fetched again.

        Raises `StorageError`, or `IntegrityError` when the manifest promised something else.
        """
        try:
            return await asyncio.to_thread(self.storage.finalize, lambda: self._closed)
        except DigestMismatch as error:
            if not error.pieces:
                raise
            log.warning("%s", error)
            self.damaged(error.pieces)
            return None

    async def copy_from(self, copy: Reader) -> bool:
        """Take every piece from a complete copy on this device; False when that failed midway.

        It rests while its user has paused it. What could not be copied is left to be fetched like
        anything else, once this is started.
        """
        self._copying = True
        try:
            while not await asyncio.to_thread(self._copy_some, copy):
                await self._going.wait()
        except ContentChanged as error:
            log.info("there is no copy on this device any more: %s", error)
            self._inventory.changed(self.content)
        except (StorageError, IntegrityError) as error:
            log.info("the copy on this device could not be used: %s", error)
        finally:
            self._copying = False
        self._core = self._new_core(have=self._held())
        if not self._going.is_set():
            self._decide(swarm.Paused())
        return self.storage.is_complete

    def _copy_some(self, copy: Reader) -> bool:
        """On a thread: whether there is nothing left to copy, or nobody who wants it."""
        pieces = range(self.manifest.piece_count)
        done = copy_missing(self.storage, pieces, copy, self._may_copy)
        return done or self._closed

    def _may_copy(self) -> bool:
        return self._going.is_set() and not self._closed
