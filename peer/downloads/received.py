"""Received pieces that are not stored yet.

Owns: their memory. Adjacent pieces of one message lie next to each other in it, and are handed out
as one run, to be written by one job of a worker.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from common.ids import DeviceKey, GroupId
from peer.downloads.counts import DownloadCounts
from peer.native.fetcher import StoredRun
from peer.swarm.fetching.events import DiscardReason, PieceReceived, Verify

_NONE = memoryview(b"")


class _Message(msgspec.Struct, frozen=True, eq=False):
    """Received message. Its data begins with piece ``first``. ``stored``: it was stored as it
    came, without data."""

    first: int
    data: memoryview
    stored: StoredRun | None = None


class PieceRun(msgspec.Struct, frozen=True):
    """Adjacent pieces of one message, unchecked, unless the compiled data path ``stored`` them."""

    source: DeviceKey
    pieces: range
    data: memoryview
    stored: StoredRun | None = None


class ReceivedPieces:
    """Pieces of one download from ``group``, of ``piece_length`` bytes each."""

    def __init__(self, piece_length: int, group: GroupId, counts: DownloadCounts) -> None:
        self._piece_length = piece_length
        self._group = group
        self._counts = counts
        self._messages: dict[tuple[DeviceKey, int], _Message] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def add(
        self, source: DeviceKey, first: int, count: int, data: memoryview
    ) -> list[PieceReceived]:
        """Add a message of ``count`` pieces, by its sender's account; return their events."""
        return self._add(source, count, len(data), _Message(first, data))

    def add_stored(self, source: DeviceKey, run: StoredRun) -> list[PieceReceived]:
        """Add a message whose pieces are stored already; return their events."""
        return self._add(source, run.count, run.size, _Message(run.first, _NONE, run))

    def _add(
        self, source: DeviceKey, count: int, size_of_all: int, message: _Message
    ) -> list[PieceReceived]:
        self._counts.received_bytes[self._group] += size_of_all
        events = []
        left, first = size_of_all, message.first
        for index in range(first, first + count):
            # Surplus bytes belong to the last piece, which then has the wrong size.
            last = index == first + count - 1
            size = left if last else min(self._piece_length, left)
            left -= size
            if (source, index) in self._messages:
                continue  # sent twice, before the first was handled
            self._messages[source, index] = message
            events.append(PieceReceived(source, index, size))
        return events

    def discard(self, source: DeviceKey, index: int, why: DiscardReason) -> None:
        """Forget a piece."""
        self._counts.discarded(why)
        self._messages.pop((source, index), None)

    def take(self, pieces: Sequence[Verify]) -> list[PieceRun]:
        """Hand out pieces to store, in their order, as runs."""
        found: list[tuple[_Message, DeviceKey, range]] = []
        for piece in pieces:
            source, first = piece.source, piece.index
            message = self._messages.pop((source, first))
            if found and found[-1][0] is message and first == found[-1][2].stop:
                first = found.pop()[2].start
            found.append((message, source, range(first, piece.index + 1)))
        return [
            PieceRun(source, run, self._cut(message, run), message.stored)
            for message, source, run in found
        ]

    def _cut(self, message: _Message, run: range) -> memoryview:
        begin = (run.start - message.first) * self._piece_length
        data = message.data[begin : begin + len(run) * self._piece_length]
        # A view keeps the whole message in memory. Why: a source that sends much more than
        # requested must not fill our memory.
        return data if 2 * len(data) >= len(message.data) else memoryview(bytes(data))

    def clear(self) -> None:
        """Forget all pieces."""
        self._messages.clear()
