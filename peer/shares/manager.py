"""What this device shares: digesting, offering, bringing back, withdrawing.

Owns the records of the shares and keeps three things in agreement: the records (what the user
wants), the shelf (what is served) and the tracker's catalogue (what is listed). The records lead:
whatever the tracker forgot is offered again, and what this home offered and wants no longer is
withdrawn (``peer.shares.owed_withdrawals``). What it never offered is left alone.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from common import manifest, names
from common.digests import Algorithm
from common.errors import (
    IntegrityError,
    MiniTorrentError,
    Refused,
    StorageError,
    TransportError,
)
from common.host.clock import monotonic
from common.host.home import default_home
from common.ids import ContentId, GroupId, UserId
from common.manifest import Manifest
from common.messages import control, tracker
from common.messages.refusals import Code
from common.shared_refusals import no_group, not_logged_in, still_pending
from peer.control.views import file_row
from peer.files.errors import Away, ContentChanged, IOFailed, TooManyOpenFiles, Unreadable
from peer.files.fingerprint import SharedLocation
from peer.files.folder_identity import FolderIdentity, whereabouts
from peer.files.library import SharedContent
from peer.files.open_files import HandleCache
from peer.files.scanning import Around, scan
from peer.records import Manifests, Records, ShareRecord, record_key
from peer.serving.inventory import Inventory
from peer.shares.digesting import Tell
from peer.shares.folders import PLACES_INTERVAL_S, any_away, by_folder
from peer.shares.joining import Joining, Ready
from peer.shares.offers import Catalogue
from peer.shares.owed_withdrawals import Owed, share_key
from peer.shares.restoring import restore
from peer.tracker_client.claims import check_facts
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.link import TrackerLink
from peer.workers import Workers

log = logging.getLogger(__name__)

# Nothing follows from these for what is shared: it is looked for again.
_AWAY = (Away, IOFailed, TooManyOpenFiles)
AT_A_TIME = 50  # shares taken down before the loop has its turn: some milliseconds
REMOVED_AT_A_TIME = 1_000  # records removed by one job of a worker
CHECK_INTERVAL_S = 60.0  # how often the shared files are looked at even if nobody fetches them


@dataclass(slots=True)
class _Share:
    """A record, and its content as it lies open; None while it cannot be served.

    ``checking``: its files were touched, and are digested to see whether they are the same.
    ``told`` is what the user was told last of why it cannot be served."""

    record: ShareRecord
    open: SharedContent | None = None
    checking: bool = False
    told: str | None = None
    away: str | None = None
    """Why its place cannot be reached now. It stays offered, and is served again by itself."""


class _ManifestLost(StorageError):
    """A manifest that is not there, or not what its name says: it is restored."""


class Shares:
    """The shares of the user who is logged in. Those of others rest in their records."""

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
        self._records = Records(home / "shares", ShareRecord)
        self._all = self._records.load()
        for path in self._records.damaged:
            notify(f"a share is not remembered any more: its record was damaged, and is now {path}")
        self._catalogue = Catalogue(link)
        self._joining = Joining(self._catalogue, workers, manifests)
        self._homes = (str(home), str(default_home("peer")), str(default_home("tracker")))
        self.parts_under_way: Callable[[], tuple[str, ...]] = tuple
        """The parts of this peer's downloads; told by those, which are made after the shares."""
        self._replica = replica
        self._inventory = inventory
        self._workers = workers
        self._owed = Owed(home, workers)
        self._handles = handles
        self._manifests = manifests
        self._notify = notify
        self._user: UserId | None = None
        self._shares: dict[str, _Share] = {}
        self._served: Counter[tuple[str, bytes]] = Counter()  # open ones by group and content
        self._background: set[asyncio.Task[None]] = set()
        # Between what the tracker lists and what is recorded nobody may look.
        self._agreeing = asyncio.Lock()
        inventory.on_changed = lambda content: self._spawn(self._look_again(content))

    # -- who is logged in -----------------------------------------------------------------------

    def __len__(self) -> int:
        return sum(1 for share in self._shares.values() if share.open is not None)

    def contents(self) -> set[ContentId]:
        """All contents that some record names."""
        return {ContentId(record.content) for record in self._all.values()}

    async def activate(self, user: UserId) -> None:
        """Bring back what ``user`` shared before, in the groups that it is in by now."""
        if self._user != user:
            await self.deactivate()
            self._user = user
        for key, record in list(self._all.items()):
            if record.user == user and key not in self._shares:
                self._shares[key] = _Share(record)
        await self._forget_left_groups()
        await self._open_all()

    async def _open_all(self) -> None:
        for share in list(self._shares.values()):
            if share.open is not None or share.checking:
                continue
            try:
                await self._open(share)
            except (ContentChanged, _ManifestLost) as error:
                # It may take minutes, and the others need not wait for it.
                share.checking = True
                lost = isinstance(error, _ManifestLost)
                bring_back = self._bring_back_unknown if lost else self._bring_back_touched
                self._spawn(bring_back(share))
            except _AWAY as error:
                self._set_away(share, error)
            except MiniTorrentError as error:
                self._tell_trouble(share, error)

    async def _bring_back_touched(self, share: _Share) -> None:
        try:
            await self._open_touched(share)
        except ContentChanged as error:
            await self._withdraw(share, error)
        except _AWAY as error:
            self._set_away(share, error)
        except MiniTorrentError as error:
            self._tell_trouble(share, error)
        await self.reconcile()

    async def _bring_back_unknown(self, share: _Share) -> None:
        """Bring back a share whose manifest the disk has lost."""
        try:
            record, encoded = await restore(self._catalogue, self._workers, share.record)
            await self._workers.run(self._manifests.put, ContentId(record.content), encoded)
            share.record = record
            if self._shares.get(self._key(record)) is share:
                await self._remember(record)
            log.info("the manifest of %s is restored", names.printable(record.name))
            await self._open(share)
        except ContentChanged:
            await self._bring_back_touched(share)
            return
        except (*_AWAY, TransportError) as error:
            self._set_away(share, error)
        except MiniTorrentError as error:
            self._tell_trouble(share, error)  # and tried again in a while
        share.checking = False
        await self.reconcile()

    async def deactivate(self) -> None:
        """Serve nothing any more: nobody is logged in."""
        self._user = None
        shares, self._shares = self._shares, {}
        await self._take_down_all(list(shares.values()))

    async def _take_down_all(self, shares: Sequence[_Share]) -> None:
        """Take all of them down, and let the loop have its turn after each few."""
        for count, share in enumerate(shares, 1):
            self._take_down(share)
            if count % AT_A_TIME == 0:
                await asyncio.sleep(0)

    def _serve(self, share: _Share, opened: SharedContent, encoded: bytes) -> None:
        record = share.record
        group, content = GroupId(record.group), ContentId(record.content)
        if share.open is None:
            self._served[group, content] += 1
        share.open = opened
        self._inventory.put(group, content, opened.manifest, encoded, opened, None)

    def _no_longer_open(self, share: _Share) -> None:
        opened, share.open = share.open, None
        if opened is None:
            return
        opened.close()
        place = share.record.group, share.record.content
        self._served[place] -= 1
        if not self._served[place]:
            del self._served[place]

    def _take_down(self, share: _Share) -> None:
        self._no_longer_open(share)
        record = share.record
        # The same content may be offered in the same group under another name.
        if (record.group, record.content) not in self._served:
            self._inventory.withdraw(GroupId(record.group), ContentId(record.content))

    async def groups_changed(self) -> None:
        """Serve in the groups that we are in, and in no others."""
        await self._forget_left_groups()
        await self._open_all()
        await self.reconcile()

    async def _forget_left_groups(self) -> None:
        # Who was removed while this device was off begins anew, like one who saw it happen.
        await self._forget_all(
            [key for key, share in self._shares.items() if self._has_left(share.record)]
        )

    def _has_left(self, record: ShareRecord) -> bool:
        user, group = UserId(record.user), GroupId(record.group)
        return self._replica.has_left(user, group, record.topic)

    async def left_group(self, group: GroupId) -> None:
        """The user left or was removed: what was shared there is not shared again by itself."""
        await self._forget_all(
            [key for key, share in self._shares.items() if share.record.group == group]
        )

    # -- opening --------------------------------------------------------------------------------

    async def _open(self, share: _Share) -> None:
        """Put a share on the shelf. Raises `ContentChanged` when its files were touched."""
        record = share.record
        decoded, encoded = await self._manifest_of(record)
        opened = SharedContent(decoded, record.place, self._handles)

        def look() -> FolderIdentity | None:
            opened.check()
            return whereabouts(record.place.path)

        where = await self._workers.run(look)
        if where is not None and not where.agrees(record.place.where):
            await self._keep_place(share, replace(record.place, where=where))
            opened.place = share.record.place
        if self._shares.get(self._key(record)) is not share:
            opened.close()
            return
        self._set_back(share)
        self._no_longer_open(share)
        self._serve(share, opened, encoded)

    async def _open_touched(self, share: _Share) -> None:
        """Put a share on the shelf if its files hold what they held, as their digests tell."""
        share.checking = True
        try:
            decoded, _ = await self._manifest_of(share.record)
            opened = SharedContent(decoded, share.record.place, self._handles)
            # On a thread of its own: it may take minutes, and pieces are served meanwhile.
            await self._keep_place(share, await asyncio.to_thread(opened.recheck))
            await self._open(share)
            log.info("%s was touched but not changed", names.printable(share.record.name))
        finally:
            share.checking = False

    async def _manifest_of(self, record: ShareRecord) -> tuple[Manifest, bytes]:
        content = ContentId(record.content)
        encoded = self._manifests.get(content)
        if encoded is None or manifest.manifest_id(encoded) != content:
            raise _ManifestLost(f"the manifest of {names.printable(record.name)} is lost")
        return await self._workers.run(manifest.decode, encoded, content), encoded

    async def _keep_place(self, share: _Share, place: SharedLocation) -> None:
        record = share.record
        share.record = replace(record, place=place)
        if self._shares.get(self._key(record)) is share:
            await self._remember(share.record)

    async def _remember(self, record: ShareRecord) -> str:
        key = self._key(record)
        await self._workers.run(self._records.put, key, record)
        self._all[key] = record
        return key

    async def _forget(self, key: str) -> None:
        share = self._shares.pop(key, None)
        if share is not None:
            self._take_down(share)
        self._all.pop(key, None)
        await self._workers.run(self._records.remove, key)

    async def _forget_all(self, keys: Sequence[str]) -> None:
        """Forget many shares: a file's removal is cheap, and one sync of the folder is enough."""
        shares = [self._shares.pop(key) for key in keys]
        await self._take_down_all(shares)
        for key in keys:
            self._all.pop(key, None)
        for at in range(0, len(keys), REMOVED_AT_A_TIME):
            some = keys[at : at + REMOVED_AT_A_TIME]
            await self._workers.run(self._records.remove_all, some)

    @staticmethod
    def _key(record: ShareRecord) -> str:
        return share_key(record.user, record.group, record.name)

    # -- sharing --------------------------------------------------------------------------------

    async def upload(self, ask: control.UploadFile, tell: Tell) -> control.Uploaded:
        """Digest what stands at a path, offer it, and serve it from here on.

        Cancelling ends the digesting. Raises `MiniTorrentError`s of all kinds.
        """
        started = monotonic()
        user, group = await self._member(ask.group)
        await self._catalogue.reachable()  # to digest a large file for nothing may take minutes
        own_name = os.path.basename(ask.path.rstrip("/"))
        name = names.share_name(own_name if ask.name is None else ask.name)
        Algorithm.named(ask.digest)  # refused before minutes are spent
        services = Around(self.parts_under_way(), self._homes)
        scanned = await self._workers.run(scan, ask.path, services)
        if scanned.delicate and not ask.yes:
            shown = names.quoted(scanned.place.path)
            raise Refused(Code.UNCONFIRMED, f"{shown} has {scanned.delicate.words()}")
        for attempt in range(2):
            before = self._all.get(share_key(user, group, name))
            own = None if before is None else ContentId(before.content)
            ready = await self._joining.ready(ask, group, name, scanned, own, tell)
            try:
                offered = await self._offer_ready(user, group, name, ready, tell)
            except Refused as error:
                # Another member may have shared the same meanwhile: then it is joined.
                if error.code is not Code.TAKEN or ready.joining or attempt:
                    raise
            else:
                break
        again = own == ready.content
        row, elapsed_s = file_row(offered.row), monotonic() - started
        joined = offered.joined and not again
        return control.Uploaded(row, elapsed_s, joined, again, ready.notes)

    async def _offer_ready(
        self, user: UserId, group: GroupId, name: str, ready: Ready, tell: Tell
    ) -> tracker.Offered:
        async with self._agreeing:
            if self._replica.user != user:
                raise Refused(Code.NOT_LOGGED_IN, f"{user} was logged out before it was offered")
            topic = self._replica.topic_of(group)
            record = ShareRecord(user, group, name, ready.content, ready.place, topic)
            record = _with_pieces(record, ready.manifest)
            return await self._offer_new(record, ready.manifest, ready.encoded, tell)

    async def _offer_new(
        self, record: ShareRecord, decoded: Manifest, encoded: bytes, tell: Tell
    ) -> tracker.Offered:
        """Record a share, offer it and serve it.

        Invariant: what is offered is recorded before, so that whatever happens this home knows
        that it made the offer, and that it is the one to take it back.
        """
        group, content = GroupId(record.group), ContentId(record.content)
        before = self._all.get(self._key(record))
        await self._record(record, encoded)
        try:
            offered = await self._catalogue.offer(group, record.name, content, encoded, tell)
            check_facts(offered.row, decoded, record.name)
        except Refused:
            await self._restore(record, before)
            raise
        except MiniTorrentError:  # it may be listed
            await self._take_back(record, before)
            raise
        except asyncio.CancelledError:
            self._spawn(self._take_back_later(record, before))
            raise
        self._put_up(record, decoded, encoded)
        return offered

    async def _take_back_later(self, record: ShareRecord, before: ShareRecord | None) -> None:
        async with self._agreeing:
            if self._all.get(self._key(record)) is record:
                await self._take_back(record, before)

    async def _take_back(self, record: ShareRecord, before: ShareRecord | None) -> None:
        """End an offer that may or may not have been made."""
        if before is None or before.content != record.content:
            await self._withdraw_recorded(record)
        await self._restore(record, before)

    async def _restore(self, record: ShareRecord, before: ShareRecord | None) -> None:
        """Have the record of a share that is none be as it was before."""
        try:
            if before is not None:
                await self._remember(before)
            else:
                await self._forget(self._key(record))
        except StorageError as error:
            log.warning("a share that was not offered stays recorded: %s", error)

    async def _withdraw_recorded(self, record: ShareRecord) -> None:
        """Withdraw an offer now, or when that is possible."""
        key = self._key(record)
        await self._owed.add(record)
        try:
            await self._catalogue.withdraw(record.group, record.name)
        except Refused as error:
            log.info("the tracker lists it no longer: %s", error)
        except MiniTorrentError as error:
            log.info("an offer is withdrawn when that is possible: %s", error)
            return
        await self._owed.settle([key])

    async def _member(self, group_text: str) -> tuple[UserId, GroupId]:
        """Who asks, and the group; raises `Refused` unless they are in it."""
        group = names.group_id(group_text)
        user = self._replica.user
        if user is None:
            raise not_logged_in()
        if group not in self._replica.groups:
            await self._replica.sync()
        if group not in self._replica.groups:
            raise still_pending(group) if group in self._replica.pending else no_group(group)
        return user, group

    async def _adopt(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        """Record it, and serve it if its user is there still."""
        await self._record(record, encoded)
        self._put_up(record, decoded, encoded)

    async def _record(self, record: ShareRecord, encoded: bytes) -> None:
        await self._workers.run(self._manifests.put, ContentId(record.content), encoded)
        await self._remember(record)

    def _put_up(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        key = self._key(record)
        if self._user != record.user:
            return  # it comes back with them
        before = self._shares.get(key)
        share = _Share(record)
        self._shares[key] = share
        if before is not None:
            self._take_down(before)
        self._serve(share, SharedContent(decoded, record.place, self._handles), encoded)

    async def adopt_download(self, record: ShareRecord, decoded: Manifest, encoded: bytes) -> None:
        """A finished download is offered to the group; later, if its user or the tracker is away
        just now, and never if they have left it since."""
        if self._has_left(record):
            return
        group, content = GroupId(record.group), ContentId(record.content)
        shared = self._shares.get(self._key(record))
        if shared is not None and shared.open is not None and shared.record.content == content:
            return  # a copy of what is shared from here already
        await self._adopt(_with_pieces(record, decoded), decoded, encoded)
        if self._user != record.user:
            return
        try:
            await self._catalogue.offer(group, record.name, content, encoded, lambda _: None)
        except MiniTorrentError as error:
            shown = names.printable(record.name)
            log.info("%s is offered when that is possible: %s", shown, error)

    async def stop(self, group_text: str, name: str) -> None:
        """Stop sharing ``name`` in that group. What is not shared from here is the tracker's to
        judge: it knows the user's other devices. Raises `MiniTorrentError`."""
        user, group = await self._member(group_text)
        key = record_key(user, group, names.fold_name(name))
        share = self._shares.get(key)
        async with self._agreeing:
            try:
                await self._catalogue.withdraw(group, name if share is None else share.record.name)
            except Refused as error:
                # The tracker may have it no more: the name went to another content meanwhile.
                if share is None or error.code is not Code.UNKNOWN_SHARE:
                    raise
            if share is not None:
                await self._forget(key)

    # -- agreement with the tracker -------------------------------------------------------------

    async def reconcile(self) -> None:
        """Make the tracker's list of our offers that of our records. Quiet when it is away."""
        try:
            async with self._agreeing:
                missing = await self._compare()
            for share in missing:
                # Each by itself: thousands of them take a while, and others want their turn.
                async with self._agreeing:
                    await self._offer_again(share)
        except MiniTorrentError as error:
            log.info("the shares could not be compared with the tracker's: %s", error)

    async def _compare(self) -> list[_Share]:
        """Withdraw what the tracker lists in error; returns what it does not list."""
        missing = []
        listed = await self._catalogue.listed()
        wanted = {
            (share.record.group, names.fold_name(share.record.name)): share
            for share in list(self._shares.values())
            if share.open is not None or share.checking or share.away is not None
        }
        for place, share in wanted.items():
            row = listed.pop(place, None)
            if share.open is not None and (row is None or row.content != share.record.content):
                missing.append(share)
        for row in listed.values():
            if self._made(row):
                await self._catalogue.withdraw(row.group, row.name)
            else:
                log.warning(
                    "%s in %s is listed for this device and was not shared from here",
                    names.printable(row.name),
                    names.printable(row.group),
                )
        await self._owed.settle(self._owed.keys_of(self._user or ""))
        return missing

    def _made(self, row: tracker.OfferRow) -> bool:
        """Whether this home made an offer that the tracker lists: by a record of it, be it one that
        was damaged since, or by a withdrawal that is owed."""
        key = share_key(self._user or "", names.fold_id(row.group), row.name)
        if any(path.stem == key for path in self._records.damaged):
            return True
        made = self._all.get(key), self._owed.get(key)
        return any(record is not None and record.content == row.content for record in made)

    async def _offer_again(self, share: _Share) -> None:
        record = share.record
        if share.open is None or self._shares.get(self._key(record)) is not share:
            return
        content = ContentId(record.content)
        served = self._inventory.get(content)
        encoded = b"" if served is None else served.encoded
        try:
            await self._catalogue.offer(
                GroupId(record.group), record.name, content, encoded, lambda _: None
            )
        except (Refused, IntegrityError) as error:
            self._tell_trouble(share, error)

    # -- files that change ----------------------------------------------------------------------

    async def watch_files(self) -> None:
        """Look at the shared files once in a while, for as long as the process lives."""
        due = monotonic() + CHECK_INTERVAL_S
        while True:
            await asyncio.sleep(min(PLACES_INTERVAL_S, CHECK_INTERVAL_S))
            try:
                if monotonic() < due:
                    await self._look_at_places()
                    continue
                due = monotonic() + CHECK_INTERVAL_S
                await self._look_at_files()
            except Exception:
                log.exception("the shared files could not be looked at")

    async def _look_at_files(self) -> None:
        closed = False
        for share in list(self._shares.values()):
            if share.open is None:
                closed = True
                continue
            await self._look_at(share, share.open)
        if closed:
            await self._open_all()
            await self.reconcile()

    async def _look_at(self, share: _Share, opened: SharedContent) -> None:
        try:
            await self._workers.run(opened.check)
        except ContentChanged:
            self._inventory.changed(ContentId(share.record.content))
        except (Away, IOFailed) as error:
            self._set_away(share, error)
        except MiniTorrentError as error:
            log.info("a share could not be looked at: %s", error)

    async def _look_at_places(self) -> None:
        """Notice disks that went or came: a look at each folder, not at each file."""
        folders = by_folder(
            (share.record.place, share) for share in self._shares.values() if share.open is not None
        )
        away = await self._workers.run(any_away, [place for place, _ in folders])
        for (_, shares), is_away in zip(folders, away, strict=True):
            for share in shares:
                if is_away and share.open is not None:
                    # Open handles may lead to a disk that was detached: by the path once more.
                    share.open.close()
                    await self._look_at(share, share.open)
        if any(share.away is not None for share in self._shares.values()):
            before = len(self)
            await self._open_all()
            if len(self) != before:
                await self.reconcile()

    def _set_away(self, share: _Share, error: MiniTorrentError) -> None:
        """Its place cannot be reached: serve nothing of it, and forget nothing."""
        if self._shares.get(self._key(share.record)) is not share:
            return
        self._take_down(share)
        share.away = str(error)
        if share.told != share.away:
            share.told = share.away
            shown, group = names.printable(share.record.name), share.record.group
            self._notify(f"{shown} in {group} is away, and served again when it is back: {error}")

    def _set_back(self, share: _Share) -> None:
        was_away, share.away = share.away, None
        if was_away is not None:
            share.told = None
            shown = names.printable(share.record.name)
            self._notify(f"{shown} in {share.record.group} is back, and served again")

    def away(self) -> dict[tuple[str, str], str]:
        """Shares whose place cannot be reached now, by group and folded name, and why."""
        return {
            (share.record.group, names.fold_name(share.record.name)): share.away
            for share in self._shares.values()
            if share.away is not None
        }

    async def _look_again(self, content: ContentId) -> None:
        """The files of a content are not as they were: digest them again, and either serve on or
        withdraw the content everywhere, with a notice."""
        for share in list(self._shares.values()):
            if share.record.content != content:
                continue
            self._no_longer_open(share)
            try:
                await self._open_touched(share)
            except (ContentChanged, Unreadable) as error:
                await self._withdraw(share, error)
            except _AWAY as error:
                self._set_away(share, error)
            except MiniTorrentError as error:
                self._tell_trouble(share, error)
                await self.reconcile()

    async def _withdraw(self, share: _Share, error: MiniTorrentError) -> None:
        record = share.record
        self._tell_trouble(share, error)
        if self._shares.get(self._key(record)) is not share:
            return
        await self._owed.add(record)  # before the record goes by which we know that it is ours
        await self._forget(self._key(record))
        await self._withdraw_recorded(record)

    def _tell_trouble(self, share: _Share, error: MiniTorrentError) -> None:
        if share.told == str(error):
            return  # it was tried again, with the same end
        share.told = str(error)
        record = share.record
        self._notify(
            f"{names.printable(record.name)} in {record.group} is not shared any more: {error}"
        )

    # -- errands --------------------------------------------------------------------------------

    def _spawn(self, errand: object) -> None:
        task = asyncio.ensure_future(errand)  # type: ignore[call-overload]
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def close(self) -> None:
        """End the errands and close the files. What the tracker lists stays listed."""
        for task in self._background:
            task.cancel()
        for share in self._shares.values():
            if share.open is not None:
                share.open.close()


def _with_pieces(record: ShareRecord, decoded: Manifest) -> ShareRecord:
    """The record with what its manifest can be made anew from."""
    return replace(record, algorithm=decoded.algorithm.value, piece_length=decoded.piece_length)
