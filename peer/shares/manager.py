"""Shares of this device: uploaded, adopted from downloads, stopped, and served while logged in.

Three lists are kept in agreement: the records (the shares that the user wants), the inventory (the
contents that this device serves) and the tracker's list of offers. The records lead.

Owns: the commands, login and groups. Not here: records (see peer.shares.share_records), serving
(see peer.shares.open_shares), offers (see peer.shares.agreement) and checks (see
peer.shares.watching).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import names
from common.digests import Algorithm
from common.errors import Refused, StorageError
from common.host.clock import monotonic, wall_ms
from common.host.home import default_home
from common.ids import ContentId, GroupId, UserId
from common.manifest import Manifest
from common.messages import control, events, tracker
from common.messages.refusals import Code
from common.shared_refusals import no_group, not_logged_in, still_pending
from peer.background_tasks import BackgroundTasks
from peer.files.fingerprint import SharedLocation
from peer.files.open_files import HandleCache
from peer.files.scan_problems import Typed
from peer.files.scanning import DevicePaths, Scan, scan
from peer.files.sharing import checked_piece_length
from peer.files.sharing_rule import SharingRule, rule_of
from peer.records import Manifests, ShareRecord
from peer.serving.inventory import Inventory
from peer.shares.agreement import OfferAgreement
from peer.shares.digesting import Report
from peer.shares.expiry import ShareExpiry, is_over
from peer.shares.joining import Joining, Ready, with_path
from peer.shares.moving import ShareMover
from peer.shares.offers import TrackerOffers
from peer.shares.open_shares import OpenShares, Share
from peer.shares.owed_withdrawals import OwedWithdrawals
from peer.shares.share_records import ShareRecords, with_pieces
from peer.shares.upload_line import upload_options
from peer.shares.watching import ShareWatcher
from peer.shares.withdrawn import is_withdrawn, withdrawn_by
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink
from peer.workers import Workers


@dataclass(frozen=True, slots=True)
class Upload:
    """Result of an upload. ``joined``: other members offered the same content before; ``again``:
    this device did; ``notes``: differences from the request, a sentence each. ``scanned``: with
    what was left out."""

    row: tracker.FileRow
    elapsed_s: float
    joined: bool
    again: bool
    notes: list[str]
    scanned: Scan
    expires_ms: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Result of a dry run. ``outcome``: new, join or again; or a refusal."""

    group: GroupId
    name: str
    algorithm: Algorithm
    piece_length: int
    scanned: Scan
    outcome: str | Refused


class Shares:
    """Shares of the current user. The shares of other users rest in their records."""

    def __init__(
        self,
        home: Path,
        link: TrackerLink,
        replica: GroupReplica,
        inventory: Inventory,
        workers: Workers,
        handles: HandleCache,
        manifests: Manifests,
        notify: Callable[[str], None],
    ) -> None:
        self._replica = replica
        self._workers = workers
        self._homes = (str(home), str(default_home("peer")), str(default_home("tracker")))
        self.parts_under_way: Callable[[], tuple[str, ...]] = tuple
        """The parts of this peer's downloads, which are created after the shares."""
        self._tasks = BackgroundTasks()
        self._offers = TrackerOffers(link)
        self._joining = Joining(self._offers, workers, manifests)
        self._records = ShareRecords(home, workers, manifests, notify)
        self._open = OpenShares(self._records, inventory, workers, handles, notify)
        self.moving = ShareMover(self._records, self._open)
        self._agreement = OfferAgreement(
            self._offers,
            OwedWithdrawals(home, workers),
            self._records,
            self._open,
            inventory,
            replica,
            self._tasks.start,
        )
        self._watcher = ShareWatcher(
            self._records,
            self._open,
            self._agreement,
            self._offers,
            inventory,
            workers,
            self._tasks.start,
        )
        self._expiry = ShareExpiry(self._records, self._agreement, notify)
        inventory.on_changed = self._on_changed

    def __len__(self) -> int:
        """The number of shares that are served."""
        return len(self._open)

    def contents(self) -> set[ContentId]:
        """All contents that some record names."""
        return self._records.contents()

    def away(self) -> dict[tuple[str, str, int], str]:
        """The reasons of shares whose folder is away, by group, folded name and version."""
        return self._open.away()

    def open_in(self, group: GroupId) -> list[tuple[ShareRecord, Manifest]]:
        """The shares that are served in a group, with their manifests."""
        return [
            (share.record, share.open.manifest)
            for share in self._open
            if share.open is not None and share.record.group == group
        ]

    def versions_of(self, user: UserId, group: GroupId, name: str) -> list[ShareRecord]:
        """The records of all versions of a name that this device shares."""
        return self._records.of_name(user, group, name)

    def rest_at(self, path: str, content: ContentId) -> None:
        """Close the shares at a path whose files are about to be replaced by ``content``.

        They rest until `end_rest_at`: meanwhile no check takes them for changed.
        """
        for share in self._open:
            if share.record.place.path == path and share.record.content != content:
                self._open.close(share)
                share.resting = True

    def end_rest_at(self, path: str) -> None:
        """Let the watcher open the shares at a path again that were not replaced."""
        for share in self._open:
            if share.record.place.path == path:
                share.resting = False

    def all(self) -> list[Share]:
        """All shares of the current user, in every state."""
        return list(self._open)

    @property
    def user(self) -> UserId | None:
        """The user who is logged in."""
        return self._replica.user

    async def manifest_of(self, record: ShareRecord) -> Manifest:
        """The manifest of a content on this device. Raises `ManifestLost`."""
        return (await self._records.manifest_of(record))[0]

    async def size_of(self, share: Share) -> int | None:
        """The bytes of a share; None if its manifest is lost."""
        if share.open is not None:
            return share.open.manifest.size
        try:
            return (await self._records.manifest_of(share.record))[0].size
        except StorageError:
            return None

    def records_in(self, group: str) -> list[ShareRecord]:
        """The shares of the current user in a group, also those whose folder is away."""
        return [share.record for share in self._open if share.record.group == group]

    async def moved(self, path: str, version: int, place: SharedLocation) -> None:
        """Serve a version from another place, which has the same files, if it is served at all."""
        for share in self._open:
            if (share.record.place.path, share.record.version) == (path, version):
                await self._open.move(share, place)

    async def stop_at(self, path: str, version: int) -> None:
        """Stop the shares of a version at a path. Raises `MiniTorrentError`."""
        for share in self._open:
            record = share.record
            if (record.place.path, record.version) == (path, version):
                await self._agreement.stop(GroupId(record.group), record.name, version)

    async def watch_files(self) -> None:
        """Check the shared files, and end shares in time, until this is cancelled."""
        await asyncio.gather(self._watcher.watch(), self._expiry.watch())

    async def reconcile(self) -> None:
        """Make the tracker's list of offers that of the records."""
        await self._agreement.reconcile()

    def _on_changed(self, content: ContentId) -> None:
        self._tasks.start(self._watcher.on_changed(content))

    # -- login and groups -----------------------------------------------------------------------

    async def activate(self, user: UserId) -> None:
        """Serve the shares of ``user`` in the groups that the user is in by now."""
        if self._agreement.user != user:
            await self.deactivate()
            self._agreement.user = user
        mine = self._records.of_user(user)
        self._open.add([(key, record) for key, record in mine if not is_over(record)])
        self._expiry.review_soon()
        await self._forget_left_groups()
        await self._watcher.open_all()

    async def deactivate(self) -> None:
        """Serve nothing: the user was logged out."""
        self._agreement.end()
        await self._open.clear()

    async def groups_changed(self) -> None:
        """Serve in the groups of the user, and in no others."""
        await self._forget_left_groups()
        await self._watcher.open_all()
        await self._agreement.reconcile()

    async def _forget_left_groups(self) -> None:
        # Why: a member removed while this device was off starts anew, as if it had seen that.
        await self._agreement.forget_all(
            [key for key, share in self._open.items() if self._has_left(share.record)]
        )

    def _has_left(self, record: ShareRecord) -> bool:
        user, group = UserId(record.user), GroupId(record.group)
        return self._replica.has_left(user, group, record.topic)

    async def left_group(self, group: GroupId) -> None:
        """Forget the shares of a group that the user left or was removed from."""
        await self._agreement.forget_all(
            [key for key, share in self._open.items() if share.record.group == group]
        )

    # -- commands -------------------------------------------------------------------------------

    async def upload(self, command: control.UploadFile, report: Report) -> Upload:
        """Digest the files at a path, offer them, and serve them.

        Cancelling ends the digesting. Raises `MiniTorrentError`.
        """
        started = monotonic()
        user, group, name, rule, scanned = await self._scanned(command)
        if scanned.delicate and not command.yes:
            shown = names.quoted(scanned.place.path)
            raise Refused(Code.UNCONFIRMED, f"{shown} has {scanned.delicate.words()}")
        own = {each.version: each.content for each in self._records.of_name(user, group, name)}
        for attempt in range(2):
            end_ms = 0 if command.expires_s is None else wall_ms() + round(command.expires_s * 1000)
            rights = self._rights(user, group)
            ready = await self._joining.ready(command, group, name, scanned, rights, report)
            try:
                guess = ready.version or max(own, default=0) + 1
                offered = await self._offer(user, group, name, guess, rule, end_ms, ready, report)
            except Refused as error:
                # Another member may have shared the same bytes meanwhile: join that share.
                if error.code is not Code.TAKEN or ready.joining or attempt:
                    raise with_path(error, command.path) from None
            else:
                break
        self._expiry.review_soon()
        again = own.get(offered.row.version) == ready.content
        joined = offered.joined and not again
        elapsed_s = monotonic() - started
        return Upload(offered.row, elapsed_s, joined, again, ready.notes, scanned, end_ms)

    async def plan(self, command: control.UploadFile) -> Plan:
        """The result that `upload` would have. Digests and changes nothing."""
        user, group, name, _, scanned = await self._scanned(command)
        mine = self._records.of_name(user, group, name)
        own = ContentId(mine[-1].content) if mine else None
        rights = self._rights(user, group)
        outcome: str | Refused
        try:
            outcome = await self._joining.outcome(command, group, name, scanned, own, rights)
        except Refused as error:
            outcome = error
        length = checked_piece_length(command.piece_length, scanned.size)
        return Plan(group, name, Algorithm.named(command.digest), length, scanned, outcome)

    async def _scanned(
        self, command: control.UploadFile
    ) -> tuple[UserId, GroupId, str, SharingRule, Scan]:
        """The user, the group, the name, the rule, and the entries found by it.

        Everything is checked that can be before minutes are spent on digesting."""
        user, group = await self._require_member(command.group)
        await self._offers.reachable()
        own_name = os.path.basename(command.path.rstrip("/"))
        name = names.share_name(own_name if command.name is None else command.name)
        Algorithm.named(command.digest)
        rules = (command.links, command.link_roots, command.exclude, command.skip)
        rule = await self._workers.run(rule_of, *rules)
        paths = DevicePaths(self.parts_under_way(), self._homes)
        typed = Typed(command.group, tuple(upload_options(command, links=False)))
        scanned = await self._workers.run(scan, command.path, paths, rule, typed)
        return user, group, name, rule, scanned

    def _rights(self, user: UserId, group: GroupId) -> Callable[[tracker.ShareFound], bool]:
        """Return a check of whether ``user`` may replace a share of the group."""
        view = self._replica.groups.get(group)
        owner = None if view is None else view.owner
        return lambda found: user in (owner, names.fold_id(found.first_by or ""))

    async def _offer(
        self,
        user: UserId,
        group: GroupId,
        name: str,
        version: int,
        rule: SharingRule,
        end_ms: int,
        ready: Ready,
        report: Report,
    ) -> tracker.Offered:
        content, place = ready.content, ready.place
        record = ShareRecord(
            user, group, name, content, place, rule=rule, version=version, expires_ms=end_ms
        )
        record = with_pieces(record, ready.manifest)
        return await self._agreement.offer_new(
            record, ready.manifest, ready.encoded, report, replaces=ready.replaces
        )

    async def stop(self, group_text: str, text: str) -> None:
        """Stop sharing NAME, or NAME@K, in a group. Raises `MiniTorrentError`."""
        user, group = await self._require_member(group_text)
        name, version = names.split_version(text)
        if version and self._records.of_name(user, group, text):
            name, version = text, 0  # a share of an earlier release, of exactly that name
        await self._agreement.stop(group, name, version)

    async def withdraw(self, group_text: str, text: str) -> None:
        """Withdraw NAME, or NAME@K, from a group on all devices. Raises `MiniTorrentError`."""
        _, group = await self._require_member(group_text)
        await self._offers.withdraw_named(group, text)

    async def withdrawn(self, group: GroupId, event: events.Withdrawn) -> None:
        """Serve versions no longer that were withdrawn from the group; the files stay."""
        user = self._replica.user or ""
        records = [
            record
            for record in self._records.of_name(user, group, event.name)
            if is_withdrawn(event, record.name, record.version)
        ]
        ours = names.fold_id(event.user) == user
        error = withdrawn_by(event)
        await self._agreement.forget_withdrawn(records, error, notify=not ours)

    async def _require_member(self, group_text: str) -> tuple[UserId, GroupId]:
        """The current user and the group; raises `Refused` unless the user is a member."""
        group = names.group_id(group_text)
        user = self._replica.user
        if user is None:
            raise not_logged_in()
        if group not in self._replica.groups:
            await self._replica.sync()
        if group not in self._replica.groups:
            raise still_pending(group) if group in self._replica.pending else no_group(group)
        return user, group

    async def adopt_download(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        """Offer a finished download to its group, now or when its user and the tracker are back.

        Nothing is offered if the user has left the group meanwhile.
        """
        if self._has_left(record):
            return
        shared = self._open.get(self._records.key_of(record))
        if shared is not None and shared.open and shared.record.content == record.content:
            return  # a copy of a share of this device
        await self._agreement.adopt(with_pieces(record, decoded), decoded, encoded)

    def close(self) -> None:
        """End the background tasks and close the files. The tracker keeps listing the shares."""
        self._tasks.cancel()
        self._open.close_all_files()
