"""Agreement between the records of shares and the tracker's list of offers.

Owns: offers and withdrawals, one at a time. The records lead: a share that the tracker forgot is
offered again, and an offer of this home that is no longer wanted is withdrawn.

Invariants: a share is recorded before it is offered, so that this home always knows that it made
the offer. An offer that this home did not make is left alone: another machine may have the same
key. A withdrawal is recorded before its share is forgotten (see peer.shares.owed_withdrawals).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from common import names
from common.errors import IntegrityError, MiniTorrentError, Refused, StorageError
from common.hints import hint
from common.ids import ContentId, GroupId, UserId
from common.manifest import Manifest
from common.messages import tracker
from common.messages.refusals import Code
from peer.files.errors import ContentChanged
from peer.records import ShareRecord
from peer.serving.inventory import Inventory
from peer.shares.digesting import Report
from peer.shares.offers import TrackerOffers
from peer.shares.open_shares import OpenShares, Share
from peer.shares.owed_withdrawals import OwedWithdrawals, share_key
from peer.shares.share_records import ShareRecords
from peer.tracker_client.claims import check_summary
from peer.tracker_client.group_replica import GroupReplica

log = logging.getLogger(__name__)

AGAIN_S = 60.0  # until the next comparison after a refusal for now: budgets refill meanwhile
_FOR_NOW = {Code.BUSY, Code.SLOW_DOWN, Code.READ_ONLY}  # refusals that end by themselves
_NOT_LISTED = {Code.UNKNOWN_SHARE, Code.UNKNOWN_GROUP}  # refusals that mean: there is no such offer


class OfferAgreement:
    """Makes offers and withdrawals for the current user. ``spawn`` starts a background task."""

    def __init__(
        self,
        offers: TrackerOffers,
        owed: OwedWithdrawals,
        records: ShareRecords,
        shares: OpenShares,
        inventory: Inventory,
        replica: GroupReplica,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._offers = offers
        self._owed = owed
        self._records = records
        self._shares = shares
        self._inventory = inventory
        self._replica = replica
        self._spawn = spawn
        self._lock = asyncio.Lock()  # held while records and the tracker's list may disagree
        self._again: asyncio.Task[None] | None = None  # the one comparison that waits
        self.user: UserId | None = None

    def end(self) -> None:
        """Compare nothing from here on: the user was logged out."""
        self.user = None
        if self._again is not None:
            self._again.cancel()

    # -- offering -------------------------------------------------------------------------------

    async def offer_new(
        self,
        record: ShareRecord,
        decoded: Manifest,
        encoded: bytes,
        report: Report,
        *,
        replaces: int | None = None,
    ) -> tracker.Offered:
        """Record a share, offer it and serve it. If it cannot be offered, nothing has changed.

        ``replaces``: the version after which it is to become the next one, 0 for any; None for an
        offer of the current version, or of a new name. The tracker decides the version.
        """
        async with self._lock:
            if self._replica.user != record.user:
                raise Refused(
                    Code.NOT_LOGGED_IN, f"{record.user} was logged out before it was offered"
                )
            group, content = GroupId(record.group), ContentId(record.content)
            record = replace(record, topic=self._replica.topic_of(group))
            before = self._records.get(self._records.key_of(record))
            await self._records.put_manifest(record.content, encoded)
            await self._records.put(record)
            try:
                offered = await self._offers.offer(
                    group,
                    record.name,
                    content,
                    encoded,
                    report,
                    replace=replaces is not None,
                    version=replaces + 1 if replaces else 0,
                )
                check_summary(offered.row, decoded, record.name)
            except Refused:
                await self._restore(record, before)
                raise
            except MiniTorrentError:  # the tracker may have listed it
                await self._take_back(record, before)
                raise
            except asyncio.CancelledError:
                self._spawn(self._take_back_later(record, before))
                raise
            if offered.row.version != record.version:
                guessed, record = record, replace(record, version=offered.row.version)
                await self._records.put(record)
                await self._restore(guessed, before)
            self._serve(record, decoded, encoded)
            await self._forget_displaced(record)
            return offered

    async def _forget_displaced(self, record: ShareRecord) -> None:
        """End the shares of other versions of a name whose files ``record`` has taken the place
        of."""
        for other in self._records.of_name(record.user, record.group, record.name):
            if other.content != record.content and other.place.path == record.place.path:
                await self._owed.add(other)  # as in `withdraw`
                await self.forget(self._records.key_of(other))
                await self._withdraw_recorded(other)

    async def adopt(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        """Record a finished download as a share, serve it and offer it.

        If the tracker is away, `reconcile` offers it later.
        """
        await self._records.put_manifest(record.content, encoded)
        await self._records.put(record)
        self._serve(record, decoded, encoded)
        await self._forget_displaced(record)
        if self.user != record.user:
            return
        try:
            await self._offer_version(record, encoded)
        except MiniTorrentError as error:
            if isinstance(error, Refused) and error.code is Code.WITHDRAWN:
                await self.forget_withdrawn([record], error)
                return
            shown = names.printable(record.name)
            log.info("%s is offered when that is possible: %s", shown, error)
            self._compare_again(error)

    async def _offer_version(self, record: ShareRecord, encoded: bytes) -> None:
        """Offer a version that this device holds, and that some device offered before."""
        group, content = GroupId(record.group), ContentId(record.content)
        await self._offers.offer(
            group, record.name, content, encoded, lambda _: None, version=record.version
        )

    def _serve(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        if self.user == record.user:  # otherwise it is opened when they log in again
            self._shares.put(record, decoded, encoded)

    async def _take_back_later(self, record: ShareRecord, before: ShareRecord | None) -> None:
        async with self._lock:
            if self._records.get(self._records.key_of(record)) is record:
                await self._take_back(record, before)

    async def _take_back(self, record: ShareRecord, before: ShareRecord | None) -> None:
        """Withdraw an offer that may or may not have been made."""
        if before is None or before.content != record.content:
            await self._withdraw_recorded(record)
        await self._restore(record, before)

    async def _restore(self, record: ShareRecord, before: ShareRecord | None) -> None:
        """Put the former record back in place of a share that was not offered."""
        try:
            if before is not None:
                await self._records.put(before)
            else:
                await self.forget(self._records.key_of(record))
        except StorageError as error:
            log.warning("a share that was not offered stays recorded: %s", error)

    # -- withdrawing ----------------------------------------------------------------------------

    async def stop(self, group: GroupId, name: str, version: int) -> None:
        """Withdraw the offers of a version of ``name``, 0 for all, and forget their shares.

        Raises `MiniTorrentError`. The tracker judges names that are not shared from here: the user
        has other devices.
        """
        ours = self._records.of_name(self._replica.user or "", group, name)
        shares = [record for record in ours if version in (0, record.version)]
        async with self._lock:
            try:
                await self._offers.withdraw(group, shares[0].name if shares else name, version)
            except Refused as error:
                # The name may have gone to another content meanwhile.
                if not shares or error.code is not Code.UNKNOWN_SHARE:
                    raise
            await self.forget_all([self._records.key_of(record) for record in shares])

    async def forget_withdrawn(
        self, records: list[ShareRecord], error: Refused, *, notify: bool = True
    ) -> None:
        """Serve shares no longer that were withdrawn from their group; the files stay."""
        for record in records:
            key = self._records.key_of(record)
            share = self._shares.get(key)
            if share is not None and notify:
                self._shares.report(share, error)
            await self.forget(key)

    async def withdraw(self, share: Share, error: MiniTorrentError) -> None:
        """Withdraw a share whose files were changed, with a notification."""
        record = share.record
        if share.resting:
            return  # a download began to replace the files while they were checked
        self._shares.report(share, error, _next_step(record, error))
        if not self._shares.has(share):
            return
        await self._owed.add(record)  # before the record goes, which shows that it is ours
        await self.forget(self._records.key_of(record))
        await self._withdraw_recorded(record)

    async def end_for_all(self, record: ShareRecord) -> bool:
        """Withdraw a share from its whole group, or else only the offer of this device.

        It is served no longer at once. Return whether the tracker agreed, which removes the record.
        """
        key = self._records.key_of(record)
        self._shares.remove(key)
        async with self._lock:
            if self._records.get(key) is not record:
                return False  # it was shared again meanwhile
            try:
                try:
                    await self._offers.withdraw_for_all(record.group, record.name, record.version)
                except Refused as error:
                    if _is_for_now(error):
                        raise
                    log.info("only the offer of this device ends: %s", error)
                    await self._offers.withdraw(record.group, record.name, record.version)
            except MiniTorrentError as error:
                if not isinstance(error, Refused) or error.code not in _NOT_LISTED:
                    log.info("a share is withdrawn when that is possible: %s", error)
                    return False
            await self.forget(key)
            return True

    async def _withdraw_recorded(self, record: ShareRecord) -> None:
        """Withdraw an offer now, or when the tracker is back."""
        await self._owed.add(record)
        try:
            await self._offers.withdraw(record.group, record.name, record.version)
        except MiniTorrentError as error:
            # Any other refusal (read-only, busy, not logged in) leaves the offer listed.
            if not isinstance(error, Refused) or error.code not in _NOT_LISTED:
                log.info("an offer is withdrawn when that is possible: %s", error)
                self._compare_again(error)
                return
            log.info("the tracker lists it no longer: %s", error)
        await self._owed.settle([self._records.key_of(record)])

    async def forget(self, key: str) -> None:
        """Close a share and remove its record."""
        self._shares.remove(key)
        await self._records.remove(key)

    async def forget_all(self, keys: list[str]) -> None:
        """Close many shares and remove their records."""
        await self._shares.remove_all(keys)
        await self._records.remove_all(keys)

    # -- comparison with the tracker ------------------------------------------------------------

    async def reconcile(self) -> None:
        """Make the tracker's list that of the records; an error of the tracker is logged."""
        try:
            async with self._lock:
                missing = await self._compare()
            for share in missing:
                # One lock for each: thousands take a while, and commands must get their turn.
                async with self._lock:
                    await self._offer_again(share)
        except MiniTorrentError as error:
            log.info("the shares could not be compared with the tracker's list: %s", error)
            self._compare_again(error)

    def _compare_again(self, error: MiniTorrentError) -> None:
        """Compare in a while, unless that waits already, after an error that is a refusal for now.

        After other errors the next login compares."""
        waits = self._again is not None and not self._again.done()
        if _is_for_now(error) and not waits and self.user is not None:
            self._again = self._spawn(self._wait_and_reconcile())

    async def _wait_and_reconcile(self) -> None:
        await asyncio.sleep(AGAIN_S)
        self._again = None  # from here on another one may wait
        await self.reconcile()

    async def _compare(self) -> list[Share]:
        """Withdraw the offers that are no longer wanted; return the shares that are not listed."""
        missing = []
        listed = await self._offers.listed()
        wanted = {
            (share.record.group, names.fold_name(share.record.name), share.record.version): share
            for share in self._shares
            if share.open is not None or share.checking or share.resting or share.away is not None
        }
        for reference, share in wanted.items():
            row = listed.pop(reference, None)
            if share.open is not None and (row is None or row.content != share.record.content):
                missing.append(share)
        for row in listed.values():
            if self._is_ours(row):
                await self._offers.withdraw(row.group, row.name, row.version)
            else:
                log.warning(
                    "%s in %s is listed for this device and was not shared from here",
                    names.printable(row.name),
                    names.printable(row.group),
                )
        await self._owed.settle(self._owed.keys_of(self.user or ""))
        # In order: a tracker restored from a backup counts on from the versions that it knows.
        return sorted(missing, key=lambda share: share.record.version)

    def _is_ours(self, row: tracker.OfferRow) -> bool:
        """Whether this home made a listed offer, by a record, a damaged record, or an owed
        withdrawal."""
        user, group = self.user or "", names.fold_id(row.group)
        if self._records.was_damaged(share_key(user, group, row.name, row.version)):
            return True
        made = (
            *self._records.of_name(user, group, row.name),
            *self._owed.of_name(user, group, row.name),
        )
        return any(record.content == row.content for record in made)

    async def _offer_again(self, share: Share) -> None:
        record = share.record
        if share.open is None or not self._shares.has(share):
            return
        content = ContentId(record.content)
        served = self._inventory.get(content)
        encoded = b"" if served is None else served.encoded
        try:
            await self._offer_version(record, encoded)
        except (Refused, IntegrityError) as error:
            if _is_for_now(error):
                raise
            if isinstance(error, Refused) and error.code is Code.WITHDRAWN:
                await self.forget_withdrawn([record], error)
                return
            self._shares.report(share, error)


def _next_step(record: ShareRecord, error: MiniTorrentError) -> str | None:
    """The command that shares changed files again; None if they cannot be read."""
    if not isinstance(error, ContentChanged):
        return None
    path = record.place.path
    named = [] if os.path.basename(path) == record.name else ["--name", record.name]
    options = ["--replace", *named]
    return hint("make it the next version", "upload-file", path, record.group, options=options)


def _is_for_now(error: MiniTorrentError) -> bool:
    return isinstance(error, Refused) and error.code in _FOR_NOW
