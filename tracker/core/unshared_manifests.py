"""Unshared manifests: sent before their offer, or left behind by the last one.

Owns: the age, size and sender of each, which bounds their disk space. When it is full, those left
behind are evicted first, then one of the user with most. A user who has most is refused instead, so
no user can fill it.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from common import limits
from common.errors import Refused
from common.ids import ContentId, UserId
from common.messages.refusals import Code
from tracker.core.undo import UndoLog

ROW_BYTES = 512  # what a manifest takes beside its bytes; many small ones take space too


class _Unshared(NamedTuple):
    since_ms: int
    size: int  # bytes
    sender: UserId | None


class UnsharedManifests:
    """Manifests that no share names; ``sender`` is None for those left behind."""

    def __init__(self) -> None:
        self._all: dict[ContentId, _Unshared] = {}
        self._of: dict[UserId | None, dict[ContentId, None]] = {}  # oldest first
        self._bytes: Counter[UserId | None] = Counter()

    def __contains__(self, content: ContentId) -> bool:
        return content in self._all

    def __len__(self) -> int:
        return len(self._all)

    @property
    def bytes(self) -> int:
        """Disk space of all of them."""
        return self._bytes.total()

    def add(
        self,
        content: ContentId,
        manifest_bytes: int,
        since_ms: int,
        sender: UserId | None,
        undo: UndoLog,
    ) -> None:
        """Add ``content``, which no share names since ``since_ms``."""
        size = manifest_bytes + ROW_BYTES
        undo.item(self._all, content)
        self._all[content] = _Unshared(since_ms, size, sender)
        undo.item(self._of, sender)
        theirs = self._of.setdefault(sender, {})
        undo.item(theirs, content)
        theirs[content] = None
        undo.item(self._bytes, sender)
        self._bytes[sender] += size

    def remove(self, content: ContentId, undo: UndoLog) -> None:
        """Remove ``content``, if it is one of them."""
        undo.removal(self._all, content)
        entry = self._all.pop(content, None)
        if entry is None:
            return
        theirs = self._of[entry.sender]
        undo.removal(theirs, content)
        del theirs[content]
        undo.removal(self._bytes, entry.sender)
        self._bytes[entry.sender] -= entry.size
        if not theirs:
            undo.removal(self._of, entry.sender)
            del self._of[entry.sender], self._bytes[entry.sender]

    def before(self, at_ms: int) -> list[ContentId]:
        """Return those that no share has named since before ``at_ms``."""
        return [content for content, entry in self._all.items() if entry.since_ms < at_ms]

    def evict_for(self, user: UserId, manifest_bytes: int) -> list[ContentId]:
        """Return the manifests to evict so that ``user`` may send one.

        Raise `Refused` if that user has most of the space.
        """
        leaving: list[ContentId] = []
        over = self.bytes + manifest_bytes + ROW_BYTES - limits.UNSHARED_MANIFEST_BYTES_MAX
        if over <= 0:
            return leaving
        left = self._bytes.copy()
        mine = left[user] + manifest_bytes + ROW_BYTES
        oldest_first = {sender: iter(theirs) for sender, theirs in self._of.items()}
        while over > 0:
            most = None if left[None] else max(left, key=lambda other: left[other])
            if most is not None and left[most] <= mine:
                raise Refused(
                    Code.BUSY, "too many manifests are not shared yet", "try again in some minutes"
                )
            content = next(oldest_first[most])
            size = self._all[content].size
            left[most] -= size
            over -= size
            leaving.append(content)
        return leaving
