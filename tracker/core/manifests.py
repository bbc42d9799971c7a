"""Summaries of all manifests, each kept encoded: decoded, one takes three times the memory.

Owns: the summaries, and the size of all contents. Not here: which of them are shared (see
tracker.core.unshared_manifests), and the manifests themselves (see tracker.store.table_store).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from common.ids import ContentId
from tracker.core.records import ManifestSummary
from tracker.core.undo import UndoLog

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(
    tuple[int, int, int, int, int, str, bytes, int, bool | None]
).decode


@dataclass(slots=True)
class Manifests:
    """Summaries by content. ``size_bytes``: of all their contents."""

    size_bytes: int = 0
    _encoded: dict[ContentId, bytes] = field(default_factory=dict)

    def __contains__(self, content: ContentId) -> bool:
        return content in self._encoded

    def __len__(self) -> int:
        return len(self._encoded)

    def __getitem__(self, content: ContentId) -> ManifestSummary:
        return ManifestSummary(content, *_decode(self._encoded[content]))

    def load(self, row: tuple[Any, ...]) -> None:
        """Add one from the fields of its summary."""
        content, _, size, *_ = row
        self.size_bytes += size
        self._encoded[content] = _encode(row[1:])

    def add(self, summary: ManifestSummary, undo: UndoLog) -> None:
        """Add one that is not known."""
        undo.field(self, "size_bytes")
        undo.item(self._encoded, summary.content)
        self.load(msgspec.structs.astuple(summary))

    def remove(self, content: ContentId, undo: UndoLog) -> None:
        """Remove one that is known."""
        undo.field(self, "size_bytes")
        undo.removal(self._encoded, content, ordered=False)
        self.size_bytes -= self[content].size
        del self._encoded[content]
