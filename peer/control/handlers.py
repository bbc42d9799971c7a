"""What the command line asks of its peer, one case a command.

Owns the way from a control message to whoever does it, and back to the rows that are shown. It
keeps no state but who is watching.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, assert_never

from msgspec.structs import replace

from common import limits, names
from common.crypto.keys import KeyPair, key_text
from common.host.clock import wall_ms
from common.ids import GroupId
from common.messages import control, events, tracker
from common.shared_refusals import no_group, not_logged_in
from peer.address_changes import AddressWatch
from peer.control.account import Account
from peer.control.health import findings
from peer.control.notices import Notifications
from peer.control.server import Tell, Waiting
from peer.control.views import (
    file_row,
    group_row,
    happened,
    missed,
    short_id,
    time_text,
    uploaded,
    user_row,
)
from peer.downloads.manager import Downloads
from peer.serving.server import PieceServer
from peer.session import Session
from peer.shares.manager import Shares
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

R = TypeVar("R")
WATCH_LOOK_S = 1.0  # how soon those who watch are told that the tracker went or came back
SETTLE_S = 10.0  # how long a command about files waits for a start to be over
SETTLE_STATUS_S = 2.0


@dataclass(slots=True)
class _Watcher:
    group: GroupId | None
    tell: Tell


@dataclass(frozen=True, slots=True)
class PeerServices:
    """The parts of a running peer that commands reach for."""

    pair: KeyPair
    link: TrackerLink
    replica: GroupReplica
    session: Session
    shares: Shares
    downloads: Downloads
    seeder: PieceServer
    whereabouts: AddressWatch
    notices: Notifications
    pid: int
    stop: Callable[[], None]


class Commands:
    """Carries out what the command line asks."""

    def __init__(self, parts: PeerServices) -> None:
        self._parts = parts
        self._account = Account(parts.pair.public, parts.link, parts.session)
        self._watchers: list[_Watcher] = []

    def entry(self, entry: events.LogEntry) -> None:
        """An event happened: tell those who watch."""
        group = GroupId(names.fold_id(entry.group))
        for watcher in self._watchers:
            if watcher.group in (None, group):
                watcher.tell(happened(entry))

    def gap(self, gap: Gap) -> None:
        """Events can no longer be had from the tracker: tell that to those who watch."""
        for watcher in self._watchers:
            if watcher.group in (None, gap.group):
                watcher.tell(missed(gap, wall_ms()))

    def answered(self, group: GroupId, accepted: bool) -> None:
        """A request of the user's was answered: tell those who watch."""
        now, user = time_text(self._parts.link.time.now_ms()), self._parts.replica.user
        details: dict[str, str | int | bool] = {"user": user or ""}
        event = "accepted" if accepted else "rejected"
        for watcher in self._watchers:
            if watcher.group in (None, group):
                watcher.tell(control.Happened(0, now, group, event, details))

    async def handle(self, ask: control.Ask, tell: Tell) -> control.Answer | Waiting:
        """Carry ``ask`` out. Raises `MiniTorrentError`; cancelling it gives the command up."""
        match ask:
            case control.Status():
                await self._parts.session.wait_ready(SETTLE_STATUS_S)
                return self._status()
            case control.Down():
                self._parts.stop()
                return control.Done("the peer ends")
            case control.Doctor():
                parts = self._parts
                where = (parts.whereabouts, parts.seeder, parts.notices)
                return control.Checks(await findings(parts.link, parts.replica, *where))
            case control.Watch(group):
                return Waiting(self._watch(group, tell))
            case control.HangUp() | control.Hello():
                return control.Done()
            case (
                control.UploadFile()
                | control.DownloadFile()
                | control.AwaitDownload()
                | control.ShowDownloads()
                | control.StopShare()
                | control.Pause()
                | control.Resume()
                | control.Cancel()
                | control.Clear()
                | control.WhySlow()
            ):
                await self._parts.session.wait_ready(SETTLE_S)
                return await self._files(ask, tell)
            case (
                control.CreateUser()
                | control.Login()
                | control.Logout()
                | control.ChangePassword()
                | control.ListDevices()
                | control.ForgetDevice()
            ):
                return await self._account.handle(ask)
            case _:
                return await self._group(ask)

    # -- groups ---------------------------------------------------------------------------------

    async def _group(
        self,
        ask: control.CreateGroup
        | control.JoinGroup
        | control.LeaveGroup
        | control.ListGroups
        | control.ListRequests
        | control.ListMembers
        | control.AcceptRequest
        | control.RejectRequest
        | control.RemoveMember
        | control.ListFiles,
    ) -> control.Answer:
        replica = self._parts.replica
        match ask:
            case control.CreateGroup(typed):
                group = names.new_group_id(typed)
                await self._tracker(tracker.CreateGroup(group), tracker.Done)
                await replica.sync()
                return control.Done(f"group {group} created; you own it")
            case control.JoinGroup(typed):
                group = names.group_id(typed)
                await self._tracker(tracker.JoinGroup(group), tracker.Done)
                await replica.sync()
                return control.Done(f"asked to join {group}; its owner decides")
            case control.LeaveGroup(typed, yes):
                return await self._leave(names.group_id(typed), yes)
            case control.ListGroups():
                return await self._all_groups()
            case control.ListRequests(group):
                requests = tracker.ListRequests(names.group_id(group))
                return await self._users(requests, limits.REQUESTS_PER_GROUP_MAX)
            case control.ListMembers(group):
                members = tracker.ListMembers(names.group_id(group))
                return await self._users(members, limits.MEMBERS_PER_GROUP_MAX)
            case control.AcceptRequest(typed, named):
                group, user = names.group_id(typed), names.user_id(named)
                await self._tracker(tracker.AcceptRequest(group, user), tracker.Done)
                return control.Done(f"{user} is a member of {group}")
            case control.RejectRequest(typed, named):
                group, user = names.group_id(typed), names.user_id(named)
                await self._tracker(tracker.RejectRequest(group, user), tracker.Done)
                return control.Done(f"the request of {user} to join {group} was rejected")
            case control.RemoveMember(typed, named):
                group, user = names.group_id(typed), names.user_id(named)
                await self._tracker(tracker.RemoveMember(group, user), tracker.Done)
                return control.Done(f"{user} is no longer a member of {group}")
            case control.ListFiles(group):
                return await self._all_files(names.group_id(group))
            case _:
                assert_never(ask)

    async def _leave(self, group: GroupId, yes: bool) -> control.Answer:
        replica = self._parts.replica
        withdraws = group in replica.pending
        row = await self._group_row(group)  # who owns it may have changed a moment ago
        owned = row is not None and row.role == "owner"
        if row is not None and owned and not yes:
            return control.NeedsConsent(leaving_question(group, row.members))
        replica.pending.discard(group)  # what is taken back is not answered
        await self._tracker(tracker.LeaveGroup(group), tracker.Done)
        await self._parts.session.left_group(group)
        if withdraws:
            return control.Left(f"you no longer ask to join {group}", group)
        if not owned:
            return control.Left(f"left {group}", group)
        row = await self._group_row(group)
        if row is None:
            return control.Left(f"left {group}; the group is no more", group, "")
        owner = names.printable(row.owner)
        return control.Left(f"left {group}; {owner} owns it now", group, row.owner)

    async def _group_row(self, group: GroupId) -> tracker.GroupRow | None:
        """The row of one group among those of the tracker, which are in order."""
        page = await self._tracker(tracker.ListGroups(group[:-1]), tracker.GroupRows)
        while page.rows:
            for row in page.rows:
                if names.fold_id(row.group) == group:
                    return row
            last = names.fold_id(page.rows[-1].group)
            if not page.more or last > group:
                return None
            page = await self._tracker(tracker.ListGroups(last), tracker.GroupRows)
        return None

    async def _all_groups(self) -> control.Groups:
        async def page(last: tracker.GroupRow | None) -> tracker.GroupRows:
            ask = tracker.ListGroups("" if last is None else last.group)
            return await self._tracker(ask, tracker.GroupRows)

        rows = listing(
            page, lambda row: names.fold_id(row.group), "groups", limits.GROUPS_LISTED_MAX
        )
        return control.Groups([group_row(row) async for row in rows])

    async def _all_files(self, group: GroupId) -> control.Files:
        async def page(last: tracker.FileRow | None) -> tracker.FileRows:
            ask = tracker.ListFiles(group, "" if last is None else last.name)
            return await self._tracker(ask, tracker.FileRows)

        rows = listing(
            page, lambda row: names.fold_name(row.name), "files", limits.SHARES_PER_GROUP_MAX
        )
        away = self._parts.shares.away()
        return control.Files(
            [
                replace(file_row(row), away=(group, names.fold_name(row.name)) in away)
                async for row in rows
            ]
        )

    async def _users(
        self, ask: tracker.ListRequests | tracker.ListMembers, rows_max: int
    ) -> control.Users:
        async def page(last: tracker.UserRow | None) -> tracker.UserRows:
            after = "" if last is None else last.user
            return await self._tracker(type(ask)(ask.group, after), tracker.UserRows)

        rows = listing(page, lambda row: names.fold_id(row.user), "users", rows_max)
        return control.Users([user_row(row) async for row in rows])

    async def _tracker(self, command: tracker.Command, answer: type[R]) -> R:
        return (await self._parts.link.ask(command, answer)).reply

    # -- files ----------------------------------------------------------------------------------

    async def _files(
        self,
        ask: control.UploadFile
        | control.DownloadFile
        | control.AwaitDownload
        | control.ShowDownloads
        | control.StopShare
        | control.Pause
        | control.Resume
        | control.Cancel
        | control.Clear
        | control.WhySlow,
        tell: Tell,
    ) -> control.Answer | Waiting:
        downloads = self._parts.downloads
        match ask:
            case control.UploadFile():
                return uploaded(await self._parts.shares.upload(ask, tell))
            case control.DownloadFile():
                key = await downloads.begin(ask, tell)
                if not ask.wait:
                    text = f"downloading {names.printable(ask.name)}"
                    return control.Begun(text, ask.group, downloads.path_of(key))
                return Waiting(downloads.wait(key, tell))
            case control.AwaitDownload(group, path):
                return Waiting(downloads.wait(downloads.latest_to(group, path), tell))
            case control.ShowDownloads():
                await downloads.check_disk()
                return control.Downloads(downloads.rows())
            case control.StopShare(group, name):
                await self._parts.shares.stop(group, name)
                return control.Done(f"{names.printable(name)} is no longer shared from here")
            case control.Pause(group, name):
                await downloads.pause(group, name)
                return control.Done(f"paused {names.printable(name)}")
            case control.Resume(group, name):
                await downloads.resume(group, name)
                return control.Done(f"resumed {names.printable(name)}")
            case control.Cancel(group, name):
                shown = names.printable(name)
                if await downloads.cancel(group, name):
                    return control.Done(f"cancelled {shown}; its partial data is deleted")
                return control.Done(f"{shown} is off the list; the file stays where it is")
            case control.Clear():
                count = await downloads.clear()
                what = "1 complete download" if count == 1 else f"{count:,} complete downloads"
                return control.Done(f"{what} taken off the list; the files stay")
            case control.WhySlow(group, name):
                return control.SourceRows(downloads.why_slow(group, name))
            case _:
                assert_never(ask)

    # -- looking --------------------------------------------------------------------------------

    def _status(self) -> control.StatusIs:
        parts = self._parts
        where = parts.whereabouts
        trouble = None if parts.link.connected else parts.link.last_error
        advice = where.advice
        return control.StatusIs(
            user=parts.replica.user,
            connected=parts.link.connected,
            tracker=parts.link.where.link,
            listen=parts.seeder.endpoint,
            device=key_text(parts.pair.public),
            id=short_id(parts.pair.public),
            shares=len(parts.shares),
            downloads=sum(1 for row in parts.downloads.rows() if row.state in "DP"),
            pid=parts.pid,
            requests=sum(parts.replica.requests.values()),
            requests_by_group={str(g): n for g, n in parts.replica.requests.items()},
            pending=sorted(parts.replica.pending),
            trouble=trouble or where.trouble or parts.session.logout_notice or parts.notices.latest,
            announced=where.announced or "",
            advertise=where.advertise or "",
            advice=None if advice is None else "; ".join(advice),
            away=[
                f"{name} in {group}: {why}" for (group, name), why in parts.shares.away().items()
            ],
        )

    async def _watch(self, group_text: str | None, tell: Tell) -> control.Answer:
        group = None if group_text is None else names.group_id(group_text)
        replica = self._parts.replica
        if replica.user is None:
            raise not_logged_in()
        if group is not None and group not in replica.groups:
            await replica.sync()
            if group not in replica.groups and group not in replica.pending:
                raise no_group(group)
        watcher = _Watcher(group, tell)
        self._watchers.append(watcher)
        try:
            connected = None
            while True:
                if connected is not self._parts.link.connected:
                    connected = self._parts.link.connected
                    note = None if connected else "the tracker is away: events come later"
                    tell(control.Progress("watching", 0, 0, note=note))
                await asyncio.sleep(WATCH_LOOK_S)
        finally:
            self._watchers.remove(watcher)


def leaving_question(group: str, members: int) -> str:
    """What an owner is asked who leaves."""
    if members <= 1:
        return f"you are the only member of {group}: the group and its list of shares will be gone"
    return f"you own {group}: it passes to the member who joined first"
