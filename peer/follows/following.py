"""One follow at work: its list of shares, the facts for its plan, and the deeds of that plan.

Owns: when the group is listed, and the pauses after a deed that failed. Not here: the decision
(see peer.follows.plan), and the list of follows (see peer.follows.manager).

The list of shares follows the group's log. It is read anew after each connection, after a gap in
the log and every `RELIST_S`: whatever was missed is then found.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field
from typing import Any

from common import limits
from common.errors import MiniTorrentError, Refused, TransportError
from common.host.clock import monotonic
from common.ids import ContentId
from common.messages import events, tracker
from common.messages.refusals import Code
from common.names import fold_name, printable
from peer.downloads.earlier_versions import Version
from peer.downloads.for_follows import FollowedDownloads
from peer.files.errors import Away
from peer.files.folder_identity import FolderIdentity, why_away
from peer.follows import plan
from peer.follows.held import downloads_in, held_shares
from peer.follows.kept_versions import KeptVersions
from peer.follows.placed import location_at
from peer.follows.plan import Cancel, Fetch, Hindrance, Listed, Plan, PlanInput, Settle, Settled
from peer.follows.records import FollowRecord, FollowRecords, MarkRecord
from peer.records import Manifests
from peer.shares.manager import Shares
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing
from peer.workers import Workers

log = logging.getLogger(__name__)

REVIEW_S = 5.0  # between two reviews of the facts, if nothing happens
REVIEW_PART = 10  # between two reviews, at least as many times the work of the first one
RELIST_S = 900.0  # the safety net below the events
RELIST_RETRY_S = 10.0
SPREAD_RATE = 5_000.0  # followers of one group that begin at the same moment, a second
GONE_S = 60.0  # a share that is unlisted that long does not return with a restarted tracker
PAUSE_MIN_S, PAUSE_MAX_S = 5.0, 600.0  # after a deed that failed, doubled each time
RETRY_FAILED_S = 600.0  # until a failed download is tried again


@dataclass(frozen=True, slots=True)
class FollowServices:
    """Parts of the peer that follows use. ``beginning``: contents whose download begins now."""

    link: TrackerLink
    shares: Shares
    downloads: FollowedDownloads
    workers: Workers
    records: FollowRecords
    manifests: Manifests
    notify: Callable[[str], None]
    followers: Callable[[str], int]
    rng: random.Random
    beginning: dict[bytes, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Pause:
    hindrance: Hindrance
    until: float
    length_s: float


class Following:
    """A follow of the user who is logged in. ``folders``: those of all follows of that user."""

    def __init__(
        self,
        record: FollowRecord,
        services: FollowServices,
        folders: Callable[[], Collection[str]],
    ) -> None:
        self.record = record
        self.away: str | None = None
        self.plan = Plan((), ())
        self.listed: dict[str, Listed] = {}
        self._services = services
        self._folders = folders
        self._dismissing: set[bytes] = set()  # cancelled by the user, and not on record yet
        self._gone: dict[str, float] = {}
        self._pauses: dict[str, _Pause] = {}
        self._retried: dict[str, float] = {}
        self._relist_at = 0.0
        self._planned_s = 0.0
        self._versions = KeptVersions(
            services.manifests, services.shares, services.workers, services.notify
        )
        self._known = False
        self._closed = False
        self._review = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look, until `close`."""
        self._task = asyncio.create_task(self._run(), name="follow")

    async def close(self) -> None:
        """End the work; downloads go on."""
        self.cancel()
        if self._task is not None:
            await asyncio.wait({self._task})

    def cancel(self) -> None:
        """End the work soon."""
        # Why both: `asyncio.wait_for` of Python 3.11 loses a cancellation at its very end.
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    def review_soon(self) -> None:
        """Review the facts: something changed."""
        self._review.set()

    def relist_soon(self) -> None:
        """List the group again: events may have been missed."""
        self._relist_at = 0.0
        self._review.set()

    def forget_pauses(self) -> None:
        """Try everything again at once."""
        self._pauses.clear()
        self._retried.clear()
        self._review.set()

    # -- the list of shares ---------------------------------------------------------------------

    def entry(self, event: events.GroupEvent) -> None:
        """Apply an event of the group to the list."""
        match event:
            case events.Shared():
                known = self.listed.get(fold_name(event.name))
                if known is None or event.version >= known.version:
                    self._put(Listed(event.name, event.version, event.content, event.size))
            case events.Unshared(_, name, _, version):
                self._drop(name, version, version)
            case events.Withdrawn(_, name, version, earlier):
                self._drop(name, 0 if earlier else version, version)
            case _:
                return
        # Why a pause: the followers of a large group must not all ask at the same moment.
        spread_s = self._services.followers(self.record.group) / SPREAD_RATE
        delay_s = self._services.rng.uniform(0.0, spread_s)
        asyncio.get_running_loop().call_later(delay_s, self.review_soon)

    def _put(self, share: Listed) -> None:
        key = fold_name(share.name)
        if key not in self.listed and len(self.listed) >= limits.SHARES_PER_GROUP_MAX:
            return  # of a tracker that breaks the bound; a listing tells
        self.listed[key] = share
        self._gone.pop(key, None)

    def _drop(self, name: str, first: int, last: int) -> None:
        key = fold_name(name)
        known = self.listed.get(key)
        if known is not None and first <= known.version <= last:
            del self.listed[key]
            self._gone[key] = monotonic()

    async def _relist(self) -> None:
        group = self.record.group

        async def page(last: tracker.FileRow | None) -> tracker.FileRows:
            command = tracker.ListFiles(group, "" if last is None else last.name)
            return await self._services.link.request(command, tracker.FileRows)

        rows = listing(page, lambda row: fold_name(row.name), "files", limits.SHARES_PER_GROUP_MAX)
        before, self.listed = self.listed, {}
        try:
            found = [Listed(row.name, row.version, row.content, row.size) async for row in rows]
        except BaseException:
            self.listed = {**before, **self.listed}  # with what events brought meanwhile
            raise
        # Events that came during the listing are newer than its pages.
        fresh, self.listed = self.listed, {fold_name(each.name): each for each in found}
        for share in fresh.values():
            self._put(share)
        for key in before.keys() - self.listed.keys():
            self._gone.setdefault(key, monotonic())
        for key in self.listed.keys() & self._gone.keys():
            del self._gone[key]
        self._known = True

    # -- looking --------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._closed:
            self._planned_s = 0.0
            try:
                await self._step()
            except MiniTorrentError as error:
                log.info("a follow of %s waits: %s", self.record.group, error)
            except Exception:
                log.exception("a follow of %s failed", self.record.group)
            # Why: members choose how often something changes, and a list may have 20,000 rows.
            await asyncio.sleep(min(REVIEW_S, REVIEW_PART * self._planned_s))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._review.wait(), REVIEW_S)
            self._review.clear()

    async def _step(self) -> None:
        now = monotonic()
        if now >= self._relist_at and self._services.link.connected:
            self._relist_at = now + RELIST_RETRY_S
            await self._relist()
            self._relist_at = now + RELIST_S * self._services.rng.uniform(0.8, 1.2)
        if not self._known:
            return
        await self._check_folder()
        await self._plan_anew()
        for deed in self.plan.deeds:
            await self._do(deed)
        if self.plan.deeds:
            await self._plan_anew()
        await self._retry_failed()

    async def _plan_anew(self) -> None:
        facts = await self._facts()
        began = monotonic()
        self.plan = plan.plan(facts)
        self._planned_s += monotonic() - began

    async def _check_folder(self) -> None:
        path = os.path.join(self.record.text, "name")
        where = FolderIdentity(self.record.folder)
        away = await self._services.workers.run(why_away, path, where)
        if away is not None and away != self.away:
            self._services.notify(f"the follow of {self.record.group} waits: {away}")
        self.away = away

    async def _downloads(self) -> list[plan.Fetched]:
        return await downloads_in(self.record, self._services.downloads, self._services.workers)

    async def _facts(self) -> PlanInput:
        services, record = self._services, self.record
        downloads = await self._downloads()
        marked = services.records.marks.get(record.key, {})
        marks = {name: each.mark for name, each in marked.items()}
        held = await held_shares(services.shares, record, marks, self._folders(), services.workers)
        now = monotonic()
        self._tidy(downloads, now)
        return PlanInput(
            folder=record.text,
            globs=record.globs,
            listed=self.listed,
            marks=marks,
            downloads=downloads,
            held=held,
            busy={**services.downloads.active(), **services.beginning},
            hindered={k: v.hindrance for k, v in self._pauses.items() if v.until > now},
            away=self.away,
            gone={name for name, since in self._gone.items() if now - since > GONE_S},
        )

    def _tidy(self, downloads: list[plan.Fetched], now: float) -> None:
        """Forget what no later plan needs: other members choose how many names come and go."""
        own = {fold_name(each.name) for each in downloads if each.own}
        gone, pauses = self._gone.items(), self._pauses.items()
        self._gone = {k: at for k, at in gone if now - at <= GONE_S or k in own}
        self._pauses = {k: v for k, v in pauses if v.until > now or k in self.listed}
        keys = {each.key for each in downloads}
        self._retried = {k: at for k, at in self._retried.items() if k in keys}

    # -- deeds ----------------------------------------------------------------------------------

    async def _do(self, deed: plan.Deed) -> None:
        match deed:
            case Settle(share, how):
                await self.settle(share, how)
            case Cancel(key):
                await self._services.downloads.discard(key)
            case Fetch(share, path):
                await self._fetch(share, path)

    async def settle(self, share: Listed, how: Settled) -> None:
        """Note durably that a version needs no fetch."""
        services, place = self._services, None
        if how is Settled.PLACED:
            path = os.path.join(self.record.text, share.name)
            place = await services.workers.run(location_at, services.manifests, share.content, path)
        before = self._mark_of(share)
        kept = [] if before is None else before.kept
        if how is Settled.PLACED:
            if before is not None and before.version != share.version:
                await services.shares.stop_at(path, before.version)  # its place is taken
            kept = await self._versions.trimmed(self.record, share.name, kept)
        key, version = self.record.key, share.version
        mark = MarkRecord(key, share.name, version, share.content, how, place, kept)
        await services.records.mark(mark)

    def _mark_of(self, share: Listed) -> MarkRecord | None:
        return self._services.records.marks.get(self.record.key, {}).get(fold_name(share.name))

    async def _placed(self, share: Listed) -> MarkRecord | None:
        """Return the mark of the earlier version that stands in the place of ``share``, if any.

        It has a second name from here on, if earlier versions are kept.
        """
        services, mark = self._services, self._mark_of(share)
        if mark is None or mark.place is None or mark.content == share.content:
            return None
        if self.record.keep_versions:
            mark = await self._versions.kept(mark)
            await services.records.mark(mark)
        return mark

    def dismiss(self, name: str, version: int, content: bytes) -> Coroutine[Any, Any, None]:
        """Note that the user cancelled the download of a version; the result records it.

        Invariant: from the call on it is not begun. Why: a look may be at work that saw neither the
        download nor the record.
        """
        self._dismissing.add(content)
        return self._record_dismissal(Listed(name, version, content))

    async def _record_dismissal(self, share: Listed) -> None:
        try:
            await self.settle(share, Settled.DISMISSED)
        finally:
            self._dismissing.discard(share.content)
        self.review_soon()

    def _is_dismissed(self, share: Listed) -> bool:
        if share.content in self._dismissing:
            return True
        mark = self._mark_of(share)
        return mark is not None and (mark.how, mark.content) == (Settled.DISMISSED, share.content)

    async def cancel_downloads(self) -> None:
        """Cancel the unfinished downloads of this follow: it ends."""
        await self._services.downloads.settle()
        for download in await self._downloads():
            here = os.path.dirname(download.path) == self.record.text
            if download.own and here:
                await self._services.downloads.discard(download.key)

    async def _fetch(self, share: Listed, path: str) -> None:
        services, key = self._services, fold_name(share.name)
        if share.content in services.beginning or self._is_dismissed(share):
            return
        services.beginning[share.content] = path
        try:
            mark = await self._placed(share)
            placed = None if mark is None else Version(ContentId(mark.content), mark.place)
            begun = await services.downloads.begin(
                self.record.group, share.name, path, self.record.folder, placed
            )
            if mark is not None:
                await self._versions.serve_kept(mark)
        except TransportError:
            raise  # everything waits for the tracker
        except Away as error:
            self.away = str(error)
        except MiniTorrentError as error:
            if isinstance(error, Refused) and error.code is Code.UNKNOWN_SHARE:
                self._drop(share.name, share.version, share.version)
            elif isinstance(error, Refused) and error.code is Code.NOT_LOGGED_IN:
                raise
            else:
                self._pause(key, share, error)
        else:
            self._pauses.pop(key, None)
            if begun.version >= share.version and begun.content != share.content:
                self._put(Listed(share.name, begun.version, begun.content, begun.size))
        finally:
            services.beginning.pop(share.content, None)

    def _pause(self, key: str, share: Listed, error: MiniTorrentError) -> None:
        before = self._pauses.get(key)
        length_s = PAUSE_MIN_S if before is None else min(PAUSE_MAX_S, 2 * before.length_s)
        hindrance = Hindrance(share.version, share.content, str(error))
        self._pauses[key] = _Pause(hindrance, monotonic() + length_s, length_s)
        if before is None or before.hindrance != hindrance:
            name, group = printable(share.name), self.record.group
            self._services.notify(f"the follow of {group} cannot fetch {name} yet: {error}")

    async def _retry_failed(self) -> None:
        now = monotonic()
        for download in await self._downloads():
            if download.own and download.state == "F":
                at = self._retried.setdefault(download.key, now + RETRY_FAILED_S)
                if now >= at:
                    self._retried[download.key] = now + RETRY_FAILED_S
                    await self._services.downloads.retry(download.key)
