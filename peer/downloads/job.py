"""One download as it is known here, and what all downloads work with.

Owns no behaviour but that of a row: it is changed by ``registry`` and ``life``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from common.errors import ConfigError, MiniTorrentError
from common.host.clock import TrackerTime
from common.ids import ContentId, GroupId
from common.names import quoted
from peer.downloads.source_requests import Asking
from peer.downloads.transfer import Transfer
from peer.fetching.pool import ConnectionPool
from peer.files.partial_content import PartialContent
from peer.records import DownloadRecord, Manifests
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
    """A record, and what belongs to it while it is not at rest."""

    key: str
    record: DownloadRecord
    running: Transfer | None = None
    storage: PartialContent | None = None
    encoded: bytes = b""
    began: float = 0.0
    task: asyncio.Task[None] | None = None
    error: MiniTorrentError | None = None
    held_bytes: int = 0
    """What is held of it while it does not run, as far as is known."""
    away: bool = False
    """Its folder cannot be reached: it is queued again when that is back."""
    told_away: str | None = None
    """What was said of that last."""
    missing: str | None = None
    """Why what was completed is not what stands on the disk, as of the last look."""
    queued: bool = False
    """It starts when its turn comes, see ``turns``."""
    later: int = 0
    """How often the queue was left when it gave its place away; 0 while it never did."""
    place: int | None = None
    """Its place in the queue, from 1 on, as of the last look."""
    seen_bytes: int = -1
    still_since: float = 0.0
    """Since when no more is held than ``seen_bytes``."""
    unshared: bool = False
    """The tracker says that nobody offers the content in the group any more."""
    asking: Asking = field(default_factory=Asking)
    """When the tracker is asked for other sources."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, whenever the state changes: who waits looks again."""

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
        return self.record.state in ("D", "P")

    @property
    def busy(self) -> bool:
        """Whether it is being brought back, copied, finished or given up just now."""
        return self.task is not None and not self.task.done()

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        wanted = self.unfinished and not self.record.by_user
        return self.queued and wanted and self.running is None

    @property
    def turn(self) -> tuple[int, int, str]:
        """Its order in the queue."""
        return self.later, self.record.started_ms, self.key

    def become(self, **fields: Any) -> None:
        """Change the record, and wake who waits."""
        self.record = msgspec.structs.replace(self.record, **fields)
        self.signal()

    def signal(self) -> None:
        """Wake who waits."""
        self.changed.set()
        self.changed = asyncio.Event()


@dataclass(frozen=True, slots=True)
class DownloadServices:
    """What every download works with."""

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


def order_named(text: str) -> Order:
    """The way to pick pieces that somebody asked for. Raises `ConfigError`."""
    try:
        return Order(text)
    except ValueError:
        raise ConfigError(
            f"there is no way to pick {quoted(text)}", "rarest, random or sequential"
        ) from None
