"""Shares of the current user: each open and served, being verified, or away.

States of a share: *open*, its files are served; *checking*, its touched files are digested; *away*,
its folder cannot be reached; *resting*, a download is about to replace its files; or *closed*, with
an error that its user was notified of. The tracker keeps listing a share in every state but the
last.

Owns: the open files, and their contents in the inventory. Not here: when shares are opened again
(see peer.shares.watching).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from common import names
from common.errors import MiniTorrentError
from common.ids import ContentId, GroupId
from common.manifest import Manifest
from peer.files.errors import Away, IOFailed, TooManyOpenFiles
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import FolderIdentity, identity_of
from peer.files.library import SharedContent
from peer.files.open_files import HandleCache
from peer.records import ShareRecord
from peer.serving.inventory import Inventory
from peer.shares.share_records import ShareRecords
from peer.workers import Workers

log = logging.getLogger(__name__)

AWAY_ERRORS = (Away, IOFailed, TooManyOpenFiles)
"""Errors that prove nothing about a share: it is opened again later."""
AT_A_TIME = 50  # shares closed before other tasks of the loop run: some milliseconds


@dataclass(slots=True)
class Share:
    """A record, and its content while it is open."""

    record: ShareRecord
    open: SharedContent | None = None
    checking: bool = False
    resting: bool = False
    reported: str | None = None
    """The last reason for not serving it that its user was notified of."""
    away: str | None = None
    """Why its folder cannot be reached now. It stays listed, and is served again by itself."""


class OpenShares:
    """Shares by the key of their record."""

    def __init__(
        self,
        records: ShareRecords,
        inventory: Inventory,
        workers: Workers,
        handles: HandleCache,
        notify: Callable[[str], None],
    ) -> None:
        self._records = records
        self._inventory = inventory
        self._workers = workers
        self._handles = handles
        self._notify = notify
        self._shares: dict[str, Share] = {}
        self._open: Counter[tuple[str, bytes]] = Counter()  # open shares by group and content

    def __len__(self) -> int:
        """The number of shares that are served."""
        return sum(1 for share in self._shares.values() if share.open is not None)

    def __iter__(self) -> Iterator[Share]:
        return iter(list(self._shares.values()))

    def items(self) -> list[tuple[str, Share]]:
        """All shares with their keys."""
        return list(self._shares.items())

    def get(self, key: str) -> Share | None:
        """The share of a key, if the current user has it."""
        return self._shares.get(key)

    def has(self, share: Share) -> bool:
        """Whether ``share`` still stands for its key."""
        return self._shares.get(self._records.key_of(share.record)) is share

    def add(self, records: Iterable[tuple[str, ShareRecord]]) -> None:
        """Add the shares of a user who logs in, closed."""
        for key, record in records:
            if key not in self._shares:
                self._shares[key] = Share(record)

    # -- opening --------------------------------------------------------------------------------

    def put(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        """Serve a share whose files were just digested, in place of a former one."""
        key = self._records.key_of(record)
        before = self._shares.get(key)
        share = self._shares[key] = Share(record)
        if before is not None:
            self.close(before)
        self._serve(share, SharedContent(decoded, record.place, self._handles), encoded)

    async def open(self, share: Share) -> None:
        """Serve a share. Raises `ContentChanged` if its files were touched, `ManifestLost`."""
        record = share.record
        decoded, encoded = await self._records.manifest_of(record)
        opened = SharedContent(decoded, record.place, self._handles)

        def look() -> FolderIdentity | None:
            opened.check()
            return identity_of(record.place.path)

        where = await self._workers.run(look)
        if where is not None and not where.agrees(record.place.where):
            await self._move(share, replace(record.place, where=where))
            opened.place = share.record.place
        if not self.has(share):
            opened.close()
            return
        self._set_back(share)
        self.close_files(share)
        self._serve(share, opened, encoded)

    async def verify_and_open(self, share: Share) -> None:
        """Serve a share whose files were touched, if their digests are the same."""
        share.checking = True
        try:
            decoded, _ = await self._records.manifest_of(share.record)
            opened = SharedContent(decoded, share.record.place, self._handles)
            # On a thread of its own: it may take minutes, and pieces are served meanwhile.
            await self._move(share, await asyncio.to_thread(opened.recheck))
            await self.open(share)
            log.info("%s was touched but not changed", names.printable(share.record.name))
        finally:
            share.checking = False

    async def move(self, share: Share, place: SharedLocation) -> None:
        """Serve a share from another place with the same files. Raises as `open`."""
        await self._move(share, place)
        if share.open is not None and share.open.place is place:
            return  # its reader was moved already
        self.close_files(share)
        await self.open(share)

    async def set_place(self, share: Share, place: SharedLocation) -> None:
        """Record the place of a share that is not open."""
        await self._move(share, place)

    def readers(self, path: str, content: ContentId) -> list[SharedContent]:
        """The open contents that read from ``path``."""
        found = [share.open for share in self if share.record.content == content]
        served = self._inventory.get(content)
        if served is not None and isinstance(served.reader, SharedContent):
            found.append(served.reader)  # perhaps of a share that ended while another one goes on
        opened = [each for each in dict.fromkeys(found) if each is not None]
        return [each for each in opened if each.place.path == path]

    async def _move(self, share: Share, place: SharedLocation) -> None:
        share.record = replace(share.record, place=place)
        if self.has(share):
            await self._records.put(share.record)

    def _serve(self, share: Share, opened: SharedContent, encoded: bytes) -> None:
        record = share.record
        group, content = GroupId(record.group), ContentId(record.content)
        if share.open is None:
            self._open[group, content] += 1
        share.open = opened
        self._inventory.put(group, content, opened.manifest, encoded, opened, None)

    # -- closing --------------------------------------------------------------------------------

    def close_files(self, share: Share) -> None:
        """Close the files of a share; the inventory still has its content."""
        opened, share.open = share.open, None
        if opened is None:
            return
        opened.close()
        served = share.record.group, share.record.content
        self._open[served] -= 1
        if not self._open[served]:
            del self._open[served]

    def close(self, share: Share) -> None:
        """Serve a share no longer."""
        self.close_files(share)
        record = share.record
        # The same content may be shared in the same group under another name.
        if (record.group, record.content) not in self._open:
            self._inventory.withdraw(GroupId(record.group), ContentId(record.content))

    def remove(self, key: str) -> None:
        """Close a share and forget it."""
        share = self._shares.pop(key, None)
        if share is not None:
            self.close(share)

    async def remove_all(self, keys: Sequence[str]) -> None:
        """Close many shares and forget them; other tasks run after every few."""
        shares = [self._shares.pop(key) for key in keys]
        for count, share in enumerate(shares, 1):
            self.close(share)
            if count % AT_A_TIME == 0:
                await asyncio.sleep(0)

    async def clear(self) -> None:
        """Close and forget all shares: their user was logged out."""
        await self.remove_all(list(self._shares))

    def close_all_files(self) -> None:
        """Close all files at the end of the process."""
        for share in self._shares.values():
            if share.open is not None:
                share.open.close()

    # -- shares that cannot be served -----------------------------------------------------------

    def away(self) -> dict[tuple[str, str, int], str]:
        """The reasons of shares that are away, by group, folded name and version."""
        return {
            (share.record.group, names.fold_name(share.record.name), share.record.version): (
                share.away
            )
            for share in self._shares.values()
            if share.away is not None
        }

    def set_away(self, share: Share, error: MiniTorrentError) -> None:
        """The folder of a share cannot be reached: serve nothing of it, and forget nothing."""
        if not self.has(share):
            return
        self.close(share)
        share.away = str(error)
        if share.reported != share.away:
            share.reported = share.away
            shown, group = names.printable(share.record.name), share.record.group
            self._notify(f"{shown} in {group} is away, and served again when it is back: {error}")

    def _set_back(self, share: Share) -> None:
        was_away, share.away = share.away, None
        if was_away is not None:
            share.reported = None
            shown = names.printable(share.record.name)
            self._notify(f"{shown} in {share.record.group} is back, and served again")

    def report(self, share: Share, error: MiniTorrentError, step: str | None = None) -> None:
        """Notify the user that a share is not served, unless the last try ended alike.

        ``step``: a hint, with a command.
        """
        if share.reported == str(error):
            return
        share.reported = str(error)
        version = share.record.version if share.record.version > 1 else 0
        name, group = names.versioned(share.record.name, version), share.record.group
        shown = names.printable(name)
        hinted = "" if step is None else f"; {step}"
        self._notify(f"{shown} in {group} is no longer shared: {error}{hinted}")
