"""Channel: a handle on one content that is open at one source.

Owns: the requests and cancellations that wait to be sent, and the bound on the bytes that the
source may still send. Not here: messages and sockets (see ``peer.fetching.connection``).
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from common import limits
from common.ids import ContentId, DeviceKey, GroupId
from common.messages import peer
from common.messages.base import Refusal
from peer.native.fetcher import StoredRun, Target

# The least that an unsolicited message is charged, for the work that it causes.
UNSOLICITED_BYTES_MIN = 4 * limits.KIB


class ChannelHandler:
    """Callbacks of a channel, each without effect by default.

    They run in the event loop, and never before `ConnectionPool.open` has returned. After
    `on_refused` and `on_lost` the channel is closed.
    """

    def on_opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        """The source accepted; ``bitfield`` is None if it holds every piece."""

    def on_have(self, device: DeviceKey, pieces: list[int]) -> None:
        """The source holds these pieces too."""

    def on_its_way(self, device: DeviceKey, pieces: list[int]) -> None:
        """These requested pieces follow without further delay."""

    def on_pieces(self, device: DeviceKey, first: int, count: int, data: memoryview) -> None:
        """Adjacent pieces arrived. ``data`` is the memory of the message and is not verified."""

    def target(self) -> Target | None:
        """Return where the compiled data path may store requested pieces; None if nowhere."""
        return None

    def on_stored_runs(self, device: DeviceKey, runs: list[StoredRun]) -> None:
        """Requested pieces arrived and were stored in `target`."""

    def on_declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        """The source will not send these pieces."""

    def on_refused(self, device: DeviceKey, refusal: Refusal) -> None:
        """The source closed the channel."""

    def on_lost(self, device: DeviceKey, opened: bool) -> None:
        """The connection ended, or was never made (``opened`` is false)."""

    def on_manifest_part(self, device: DeviceKey, total: int, offset: int, data: bytes) -> None:
        """A requested part of the manifest arrived."""


class ChannelConnection(Protocol):
    """The connection of a channel, as far as the channel uses it."""

    @property
    def moved_at(self) -> float:
        """Time at which bytes last arrived from the source."""

    def send(self, message: peer.ClientMessage) -> None:
        """Send a message at once."""

    def flush_soon(self) -> None:
        """Send the requests and cancellations of all channels with the next message."""

    def close_channel(self, channel: Channel) -> None:
        """Close a channel and report that to the source."""

    def reconnect(self, channel: Channel) -> None:
        """Close a channel, and the connection with all other channels on it."""


@dataclass(slots=True, eq=False)
class Channel:
    """One content, open or being opened at a source. A closed channel ignores all calls."""

    device: DeviceKey
    content: ContentId
    group: GroupId
    handler: ChannelHandler
    number: int = -1
    connection: ChannelConnection | None = None
    """None before it is opened, and after it is closed."""
    opened: bool = False
    timer: asyncio.Handle | None = None
    pending: list[int] = field(default_factory=list)
    cancelled: list[int] = field(default_factory=list)
    pieces_due: int = 0
    """Upper bound on the pieces that may still arrive, cancelled ones included."""
    parts_due: int = 0
    """Requested parts of the manifest that have not arrived."""

    def request(self, pieces: tuple[int, ...]) -> None:
        """Request pieces with the next message."""
        if self.connection is not None:
            self.pending.extend(pieces)
            self.connection.flush_soon()

    def cancel(self, pieces: tuple[int, ...]) -> None:
        """Cancel requests with the next message."""
        if self.connection is not None:
            # Requests that wait to be sent are removed here; otherwise they would be sent later.
            unsent = set(self.pending).intersection(pieces)
            self.pending = [index for index in self.pending if index not in unsent]
            self.cancelled.extend(index for index in pieces if index not in unsent)
            self.connection.flush_soon()

    def request_manifest(self, offset: int) -> None:
        """Request a part of the manifest."""
        if self.connection is not None:
            self.parts_due += 1
            self.connection.send(peer.AskManifest(self.number, offset))

    def close(self) -> None:
        """Close the channel. The handler is not called again."""
        self.stop_timer()
        if self.connection is not None:
            self.connection.close_channel(self)

    def reconnect(self) -> None:
        """Close the channel with its connection: the source owes pieces and is silent.

        Why: messages may be lost on that connection. The next channel gets a new one.
        """
        if self.connection is not None:
            self.connection.reconnect(self)

    @property
    def moved_at(self) -> float | None:
        """Time at which bytes last arrived from the source; None if the channel is closed."""
        return None if self.connection is None else self.connection.moved_at

    def stop_timer(self) -> None:
        """Stop the timeout, or the report of a connection that cannot be made."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    @property
    def bytes_due(self) -> int:
        """Upper bound on the bytes that an honest source may have sent and we not received."""
        if not self.opened:
            return UNSOLICITED_BYTES_MIN + limits.PIECES_MAX // 8  # an `Opened` with its bitfield
        return (
            8 * UNSOLICITED_BYTES_MIN  # `Have` and `Declined`
            + self.pieces_due * limits.PIECE_LENGTH_MAX
            + self.parts_due * limits.MANIFEST_PART_BYTES
        )
