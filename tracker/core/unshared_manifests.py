"""Manifests that no share names: sent by somebody whose offer has yet to follow, or left behind.

Owns since when each lies there and for whom, so that their room on the disk is bounded and nobody
can take all of it. When it is full, what was left behind goes first, then something of whoever has
most; only that one is turned away.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from common import limits
from common.errors import Refused
from common.ids import ContentId, UserId
from common.messages.refusals import Code

ROW_BYTES = 512  # what a manifest takes beside its bytes: many small ones take room as well


class _Unshared(NamedTuple):
    since_ms: int
    size: int  # bytes
    sender: UserId | None


class UnsharedManifests:
    """Which manifests wait; ``sender`` is None for what was left behind."""

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
        """What all of them take."""
        return self._bytes.total()

    def add(
        self, content: ContentId, manifest_bytes: int, since_ms: int, sender: UserId | None
    ) -> None:
        """``content`` is named by no share, since ``since_ms``."""
        size = manifest_bytes + ROW_BYTES
        self._all[content] = _Unshared(since_ms, size, sender)
        self._of.setdefault(sender, {})[content] = None
        self._bytes[sender] += size

    def remove(self, content: ContentId) -> None:
        """``content`` is shared, or gone; nothing happens if it was not here."""
        idle = self._all.pop(content, None)
        if idle is None:
            return
        theirs = self._of[idle.sender]
        del theirs[content]
        self._bytes[idle.sender] -= idle.size
        if not theirs:
            del self._of[idle.sender], self._bytes[idle.sender]

    def before(self, at_ms: int) -> list[ContentId]:
        """What lies here since a time earlier than ``at_ms``."""
        return [content for content, idle in self._all.items() if idle.since_ms < at_ms]

    def evict_for(self, user: UserId, manifest_bytes: int) -> list[ContentId]:
        """What has to go so that ``user`` may send a manifest. Raises `Refused` if they have most
        of it themselves."""
        leaving: list[ContentId] = []
        over = self.bytes + manifest_bytes + ROW_BYTES - limits.MANIFEST_IDLE_BYTES_MAX
        if over <= 0:
            return leaving
        left = self._bytes.copy()
        mine = left[user] + manifest_bytes + ROW_BYTES
        oldest_first = {sender: iter(theirs) for sender, theirs in self._of.items()}
        while over > 0:
            most = None if left[None] else max(left, key=lambda other: left[other])
            if most is not None and left[most] <= mine:
                raise Refused(
                    Code.BUSY, "too many manifests wait to be shared", "try again in some minutes"
                )
            content = next(oldest_first[most])
            size = self._all[content].size
            left[most] -= size
            over -= size
            leaving.append(content)
        return leaving
