"""Kept versions of a follow: one more when the next version begins, fewer when it is in place.

Owns: which versions are kept, and their shares: each is served as ``NAME@K`` from where it is kept.
Not here: the files (see peer.follows.kept).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from common.errors import MiniTorrentError
from common.names import quoted, versioned
from peer.follows import kept
from peer.follows.placed import is_untouched, location_at
from peer.follows.records import FollowRecord, KeptVersion, MarkRecord
from peer.records import Manifests
from peer.shares.manager import Shares
from peer.workers import Workers


class KeptVersions:
    """Earlier versions of the shares of one follow."""

    def __init__(
        self,
        manifests: Manifests,
        shares: Shares,
        workers: Workers,
        notify: Callable[[str], None],
    ) -> None:
        self._manifests = manifests
        self._shares = shares
        self._workers = workers
        self._notify = notify

    async def kept(self, mark: MarkRecord) -> MarkRecord:
        """Give the version of ``mark`` its second name; return the mark with it.

        If that is not possible the version is not kept, with a notice.
        """
        if mark.place is None or any(each.version == mark.version for each in mark.kept):
            return mark
        path, run = mark.place.path, self._workers.run
        try:
            if not await run(is_untouched, self._manifests, mark.content, mark.place):
                return mark
            await run(kept.keep, self._manifests, mark.content, path, mark.version)
        except MiniTorrentError as error:
            shown = quoted(versioned(mark.name, mark.version))
            self._notify(f"{shown} is not kept: {error}")
            return mark
        now = await run(location_at, self._manifests, mark.content, path)
        if now is not None:
            await self._shares.moved(path, mark.version, now)
        return replace(mark, place=now, kept=[*mark.kept, KeptVersion(mark.version, mark.content)])

    async def serve_kept(self, mark: MarkRecord) -> None:
        """Serve a kept version from its second name: the first one is about to be replaced."""
        if mark.place is None or all(each.version != mark.version for each in mark.kept):
            return
        path = mark.place.path
        there = versioned(path, mark.version)
        place = await self._workers.run(location_at, self._manifests, mark.content, there)
        if place is not None:
            await self._shares.moved(path, mark.version, place)

    async def trimmed(
        self, follow: FollowRecord, name: str, versions: Sequence[KeptVersion]
    ) -> list[KeptVersion]:
        """Remove all but the last versions that the follow keeps; return the others."""
        count = max(0, len(versions) - follow.keep_versions)
        path = os.path.join(follow.text, name)
        for old in versions[:count]:
            place = versioned(path, old.version)
            try:
                await self._shares.stop_at(place, old.version)
                await self._workers.run(
                    kept.discard, self._manifests, old.content, path, old.version
                )
            except MiniTorrentError as error:
                self._notify(f"{quoted(place)} is not removed: {error}")
        return list(versions[count:])
