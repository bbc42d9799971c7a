"""Pieces that have come and are not stored yet.

Owns their memory. Adjacent pieces may come in one message: they lie one after another in its memory
then, and what is to be stored of them is handed out in stretches, to be written by one job each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.ids import DeviceKey
from peer.swarm.fetching.events import PieceReceived, Verify


@dataclass(frozen=True, slots=True, eq=False)
class _Message:
    """Its data begins with piece ``first``."""

    first: int
    data: memoryview


@dataclass(frozen=True, slots=True)
class PieceRun:
    """Adjacent pieces of one message, unchecked."""

    source: DeviceKey
    pieces: range
    data: memoryview


class ReceivedPieces:
    """Those of one download, whose pieces are ``piece_length`` bytes long."""

    def __init__(self, piece_length: int) -> None:
        self._piece_length = piece_length
        self._messages: dict[tuple[DeviceKey, int], _Message] = {}

    def __len__(self) -> int:
        return len(self._messages)

    def came(
        self, source: DeviceKey, first: int, count: int, data: memoryview
    ) -> list[PieceReceived]:
        """A message came, with so many pieces by what its sender says."""
        message = _Message(first, data)
        events = []
        left = len(data)
        for index in range(first, first + count):
            # What is too much is the last one's, which has the wrong size then.
            last = index == first + count - 1
            size = left if last else min(self._piece_length, left)
            left -= size
            if (source, index) in self._messages:
                continue  # twice from the same source, before the first was looked at
            self._messages[source, index] = message
            events.append(PieceReceived(source, index, size))
        return events

    def discard(self, source: DeviceKey, index: int) -> None:
        """A piece is of no use."""
        self._messages.pop((source, index), None)

    def take(self, pieces: Sequence[Verify]) -> list[PieceRun]:
        """Hand out pieces that are to be stored, in their order."""
        found: list[tuple[_Message, DeviceKey, range]] = []
        for piece in pieces:
            source, first = piece.source, piece.index
            message = self._messages.pop((source, first))
            if found and found[-1][0] is message and first == found[-1][2].stop:
                first = found.pop()[2].start
            found.append((message, source, range(first, piece.index + 1)))
        return [PieceRun(source, run, self._cut(message, run)) for message, source, run in found]

    def _cut(self, message: _Message, run: range) -> memoryview:
        begin = (run.start - message.first) * self._piece_length
        data = message.data[begin : begin + len(run) * self._piece_length]
        # It may be kept for a while, and keeps the whole message. Whoever sends much more than what
        # was asked for must not fill our memory with it.
        return data if 2 * len(data) >= len(message.data) else memoryview(bytes(data))

    def clear(self) -> None:
        """Nothing of what came is wanted any more."""
        self._messages.clear()
