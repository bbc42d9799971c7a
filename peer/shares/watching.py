"""Watch over the files of shares: changes, lost manifests, and disks that go and come back.

Owns: when shares are opened, verified and checked. Not here: serving (see peer.shares.open_shares)
and withdrawing (see peer.shares.agreement).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from common import names
from common.errors import MiniTorrentError, TransportError
from common.host.clock import monotonic
from common.ids import ContentId
from peer.files.errors import Away, ContentChanged, IOFailed, Unreadable
from peer.files.library import SharedContent
from peer.serving.inventory import Inventory
from peer.shares.agreement import OfferAgreement
from peer.shares.folders import FOLDERS_INTERVAL_S, any_away, by_folder
from peer.shares.offers import TrackerOffers
from peer.shares.open_shares import AWAY_ERRORS, OpenShares, Share
from peer.shares.restoring import restore
from peer.shares.share_records import ManifestLost, ShareRecords
from peer.workers import Workers

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 60.0  # between two checks of files that no peer fetches


class ShareWatcher:
    """Opens the shares of the current user, again and again where necessary."""

    def __init__(
        self,
        records: ShareRecords,
        shares: OpenShares,
        agreement: OfferAgreement,
        offers: TrackerOffers,
        inventory: Inventory,
        workers: Workers,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._records = records
        self._shares = shares
        self._agreement = agreement
        self._offers = offers
        self._inventory = inventory
        self._workers = workers
        self._spawn = spawn

    async def open_all(self) -> None:
        """Open the shares that are closed."""
        for share in self._shares:
            if share.open is not None or share.checking or share.resting:
                continue
            try:
                await self._shares.open(share)
            except (ContentChanged, ManifestLost) as error:
                # It may take minutes, and the other shares need not wait for it.
                share.checking = True
                lost = isinstance(error, ManifestLost)
                self._spawn(self._restore(share) if lost else self._verify(share))
            except AWAY_ERRORS as error:
                self._shares.set_away(share, error)
            except MiniTorrentError as error:
                self._shares.report(share, error)

    async def _verify(self, share: Share) -> None:
        """Open a share whose files were touched, or withdraw it if they were changed."""
        try:
            await self._shares.verify_and_open(share)
        except ContentChanged as error:
            await self._agreement.withdraw(share, error)
        except AWAY_ERRORS as error:
            self._shares.set_away(share, error)
        except MiniTorrentError as error:
            self._shares.report(share, error)
        await self._agreement.reconcile()

    async def _restore(self, share: Share) -> None:
        """Open a share whose manifest the disk has lost."""
        try:
            record, encoded = await restore(self._offers, self._workers, share.record)
            await self._records.put_manifest(record.content, encoded)
            share.record = record
            if self._shares.has(share):
                await self._records.put(record)
            log.info("the manifest of %s is restored", names.printable(record.name))
            await self._shares.open(share)
        except ContentChanged:
            await self._verify(share)
            return
        except (*AWAY_ERRORS, TransportError) as error:
            self._shares.set_away(share, error)
        except MiniTorrentError as error:
            self._shares.report(share, error)  # the next check tries again
        share.checking = False
        await self._agreement.reconcile()

    async def on_changed(self, content: ContentId) -> None:
        """Digest a content whose files are no longer as they were.

        If it is the same it is served again; otherwise it is withdrawn, with a notification.
        """
        for share in self._shares:
            if share.record.content != content or share.resting:
                continue
            self._shares.close_files(share)
            try:
                await self._shares.verify_and_open(share)
            except (ContentChanged, Unreadable) as error:
                await self._agreement.withdraw(share, error)
            except AWAY_ERRORS as error:
                self._shares.set_away(share, error)
            except MiniTorrentError as error:
                self._shares.report(share, error)
                await self._agreement.reconcile()

    # -- periodic checks ------------------------------------------------------------------------

    async def watch(self) -> None:
        """Check files and folders from time to time, until this is cancelled."""
        due = monotonic() + CHECK_INTERVAL_S
        while True:
            await asyncio.sleep(min(FOLDERS_INTERVAL_S, CHECK_INTERVAL_S))
            try:
                if monotonic() < due:
                    await self._check_folders()
                    continue
                due = monotonic() + CHECK_INTERVAL_S
                await self.check_files()
            except Exception:
                log.exception("the shared files could not be checked")

    async def check_files(self) -> None:
        """Check the files of every share, and try the closed ones again."""
        closed = False
        for share in self._shares:
            if share.open is None:
                closed = True
                continue
            await self._check(share, share.open)
        if closed:
            await self.open_all()
            await self._agreement.reconcile()

    async def _check(self, share: Share, opened: SharedContent) -> None:
        try:
            await self._workers.run(opened.check)
        except ContentChanged:
            self._inventory.changed(ContentId(share.record.content))
        except (Away, IOFailed) as error:
            self._shares.set_away(share, error)
        except MiniTorrentError as error:
            log.info("a share could not be checked: %s", error)

    async def _check_folders(self) -> None:
        """Notice disks that go and come back: check each folder once, and no file."""
        folders = by_folder(
            (share.record.place, share) for share in self._shares if share.open is not None
        )
        away = await self._workers.run(any_away, [place for place, _ in folders])
        for (_, shares), is_away in zip(folders, away, strict=True):
            for share in shares:
                if is_away and share.open is not None:
                    # Open handles may lead to a detached disk: open again by the path.
                    share.open.close()
                    await self._check(share, share.open)
        if any(share.away is not None for share in self._shares):
            before = len(self._shares)
            await self.open_all()
            if len(self._shares) != before:
                await self._agreement.reconcile()
