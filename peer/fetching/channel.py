"""One content open at one source.

Owns what is to be said of it there, and what is still due from the source. How a download hears of
all that is its `Sink`; messages and sockets are ``peer.fetching.connection``'s.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Protocol

from common import limits
from common.ids import ContentId, DeviceKey, GroupId
from common.messages import peer
from common.messages.refusals import Refusal

# What a message that makes no sense counts for at least, for the work that it makes.
STRAY_BYTES_MIN = 4 * limits.KIB


class ChannelHandler(Protocol):
    """One download, as its sources speak to it."""

    content: ContentId
    group: GroupId

    def opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        """The source lets us fetch; ``bitfield`` is None when it holds everything."""

    def have(self, device: DeviceKey, pieces: list[int]) -> None:
        """The source holds these pieces too."""

    def on_pieces(self, device: DeviceKey, first: int, count: int, data: memoryview) -> None:
        """Adjacent pieces came, by what the source says. ``data`` is the message's own memory,
        unchecked."""

    def declined(self, device: DeviceKey, answer: peer.Declined) -> None:
        """The source will not send these."""

    def refused(self, device: DeviceKey, refusal: Refusal) -> None:
        """The source closed the channel."""

    def lost(self, device: DeviceKey, opened: bool) -> None:
        """The connection ended or did not come about (``opened`` false)."""

    def manifest_part(self, device: DeviceKey, total: int, offset: int, data: bytes) -> None:
        """A part of the manifest that was asked for."""


@dataclass(slots=True)
class Channel:
    """What one download has open at a source, or is opening."""

    number: int
    handler: ChannelHandler
    opened: bool = False
    timer: asyncio.TimerHandle | None = None
    pending: list[int] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    pieces_due: int = 0
    """At most so many may come still: what was withdrawn is among them, and may come or not."""
    parts_due: int = 0
    """Parts of the manifest that were asked for and have not come."""

    @property
    def bytes_due(self) -> int:
        """The most that may honestly be on its way here."""
        if not self.opened:
            return STRAY_BYTES_MIN + limits.PIECES_MAX // 8  # an `Opened` with its bitfield
        return (
            8 * STRAY_BYTES_MIN  # what it holds, and what it has not got
            + self.pieces_due * limits.PIECE_LENGTH_MAX
            + self.parts_due * limits.MANIFEST_PART_BYTES
        )
