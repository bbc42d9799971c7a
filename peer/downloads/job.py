"""Job: one download of the list, and the services that all downloads use.

Not here: what changes a job (see peer.downloads.lifecycle, peer.downloads.queue and
peer.downloads.manager).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from common.errors import ConfigError, MiniTorrentError, Refused
from common.host.clock import TrackerTime
from common.ids import ContentId, GroupId
from common.messages.refusals import Code
from common.names import fold_name, quoted, split_version
from peer.downloads.counts import DownloadCounts
from peer.downloads.source_requests import SourceRequestTimer
from peer.downloads.states import AT_REST, AtRest, Copying, Fetching, Finishing, Opening, State
from peer.downloads.transfer import Transfer
from peer.fetching.pool import ConnectionPool
from peer.files.partial_content import PartialContent
from peer.hooks.downloads import DownloadHooks
from peer.records import DownloadRecord, DownloadState, Manifests, SourceUse
from peer.serving.inventory import Inventory
from peer.settings import Settings
from peer.shares.manager import Shares
from peer.swarm.fetching.picker import Order
from peer.swarm.rate_limit import RateLimit
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.tickets import TicketWallet
from peer.workers import Workers


@dataclass(slots=True)
class DownloadJob:
    """A record, and the state of the download beyond it."""

    key: str
    record: DownloadRecord
    state: State = AT_REST
    task: asyncio.Task[None] | None = None
    """Its life, from its slot to its end or its next rest (see peer.downloads.lifecycle)."""
    encoded: bytes = b""
    """The manifest, while it is needed."""
    error: MiniTorrentError | None = None
    """The reason of a failure."""
    held_bytes: int = 0
    """Bytes held while it rests, as far as known."""
    discarded: bool = False
    """Its part is removed when it closes."""
    away: bool = False
    """Its folder cannot be reached: it is queued again when the folder is back."""
    reported_away: str | None = None
    """The reason that the user was last notified of."""
    missing: str | None = None
    """Why a completed file is no longer as it was, as of the last check."""
    queued: bool = False
    """It starts in its turn (see peer.downloads.queue)."""
    later: int = 0
    """Number of the queue's round in which it last gave up its slot; 0 if never."""
    position: int | None = None
    """Its position in the queue, from 1 on, as of the last review."""
    seen_bytes: int = -1
    still_since: float = 0.0
    """Time since which ``seen_bytes`` has not grown."""
    unshared: bool = False
    """No device offers the content in the group, says the tracker."""
    source_requests: SourceRequestTimer = field(default_factory=SourceRequestTimer)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, at each change of the state."""

    @property
    def group(self) -> GroupId:
        return GroupId(self.record.group)

    @property
    def content(self) -> ContentId:
        return ContentId(self.record.content)

    @property
    def path(self) -> str:
        return os.fsdecode(self.record.path)

    @property
    def unfinished(self) -> bool:
        return self.record.state in (DownloadState.ACTIVE, DownloadState.PAUSED)

    @property
    def at_rest(self) -> bool:
        """Whether nothing works on it."""
        return isinstance(self.state, AtRest)

    @property
    def busy(self) -> bool:
        """Whether a step is under way that ends by itself."""
        return not isinstance(self.state, AtRest | Fetching)

    @property
    def transfer(self) -> Transfer | None:
        """Transfer of the download, while it has one."""
        return self.state.transfer if isinstance(self.state, Fetching | Finishing) else None

    @property
    def part(self) -> PartialContent | None:
        """Part of the download, while it is open."""
        if isinstance(self.state, Opening | Copying):
            return self.state.part
        return None if self.transfer is None else self.transfer.part

    @property
    def verified_bytes(self) -> int:
        """Bytes held, as far as known."""
        if self.complete:
            return self.record.size
        if self.transfer is not None:
            return self.transfer.progress().held_bytes
        if isinstance(self.state, Copying):
            part = self.state.part
            return min(self.record.size, part.held_count * part.manifest.piece_length)
        return self.held_bytes

    @property
    def by_user(self) -> bool:
        """Whether its user paused it."""
        return self.record.by_user

    async def until_resumed(self) -> None:
        """Wait until it is not paused by its user."""
        while self.by_user:
            await self.changed.wait()

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        wanted = self.unfinished and not self.by_user
        return self.queued and wanted and self.transfer is None

    @property
    def rank(self) -> tuple[int, int, str]:
        """Position in the queue."""
        return self.later, self.record.started_ms, self.key

    @property
    def complete(self) -> bool:
        return self.record.state == DownloadState.COMPLETE

    def set_active(self, *, by_user: bool = False) -> None:
        """Let it fetch, or wait for its turn; ``by_user`` ends a pause of its user."""
        paused_by_user = self.record.by_user and not by_user
        self._replace(state=DownloadState.ACTIVE, reason=None, by_user=paused_by_user)

    def set_paused(self, reason: str, *, by_user: bool = False) -> None:
        """Pause it for ``reason``; after a pause ``by_user`` only its user resumes it."""
        by_user = by_user or self.record.by_user
        self._replace(state=DownloadState.PAUSED, reason=reason, by_user=by_user)

    def set_failed(self, reason: str) -> None:
        """Record that it ended with an error."""
        self._replace(state=DownloadState.FAILED, reason=reason)

    def set_verified(
        self, elapsed_s: float, sources: list[SourceUse], fetched_bytes: int, algorithm: str
    ) -> None:
        """The whole has its final name: keep how long it took, and its sources."""
        self._replace(
            reason=None,
            elapsed_s=elapsed_s,
            sources=sources,
            fetched_bytes=fetched_bytes,
            algorithm=algorithm,
        )

    def set_kept(self, path: str | None) -> None:
        """Record the path of the files that are kept of a replaced folder."""
        if path is not None:
            self._replace(kept=os.fsencode(path))

    def set_on_complete(self, words: list[str]) -> None:
        """Run this command when it is complete."""
        self._replace(on_complete=words)

    def set_hooks_owed(self, owed: bool) -> None:
        """Whether its hooks are still to end."""
        self._replace(hooks_owed=owed)

    def set_complete(self) -> None:
        """Waiting commands can end."""
        self._replace(state=DownloadState.COMPLETE)

    def _replace(self, **fields: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **fields)
        self.notify_changed()

    def notify_changed(self) -> None:
        """Wake the waiting commands."""
        self.changed.set()
        self.changed = asyncio.Event()


def is_meant(job: DownloadJob, text: str) -> bool:
    """Whether ``text`` is the name of a download, NAME@K of one, or its path."""
    name, version = split_version(text)
    folded = fold_name(job.record.name)
    is_version = version == job.record.version and folded == fold_name(name)
    return is_version or folded == fold_name(text) or job.path == text


@dataclass(frozen=True, slots=True)
class DownloadServices:
    """Services that every download uses."""

    home: Path
    link: TrackerLink
    replica: GroupReplica
    tickets: TicketWallet
    pool: ConnectionPool
    inventory: Inventory
    shares: Shares
    workers: Workers
    manifests: Manifests
    settings: Settings
    limit: RateLimit
    time: TrackerTime
    notify: Callable[[str], None]
    presence_changed: Callable[[], None]
    hooks: DownloadHooks
    counts: DownloadCounts = field(default_factory=DownloadCounts)


def order_named(text: str) -> Order:
    """The order of pieces with that name. Raises `ConfigError`."""
    try:
        return Order(text)
    except ValueError:
        raise ConfigError(
            f"there is no way to pick {quoted(text)}", "rarest, random or sequential"
        ) from None


def not_a_member(group: GroupId) -> Refused:
    """The error of a download from a group that its user left."""
    return Refused(Code.UNKNOWN_GROUP, f"you are no longer a member of {group}")
