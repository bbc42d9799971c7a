"""Dispatch of the commands of the command line to the parts of the peer.

Owns the commands about files and the peer itself, and the watchers, its only state. Not here:
accounts and groups (see peer.control.account, peer.control.groups).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, assert_never

from common import names
from common.crypto.keys import KeyPair, key_text, short_id
from common.host.clock import monotonic, wall_ms
from common.ids import DeviceKey, GroupId
from common.messages import control, events
from common.shared_refusals import no_group, not_logged_in
from common.units import count_text
from peer.address_changes import AddressWatch
from peer.bandwidth import Bandwidth
from peer.control.account import Account
from peer.control.follows import FollowCommands
from peer.control.groups import GroupCommands
from peer.control.health import findings, hook_findings
from peer.control.holders import HolderCommands
from peer.control.invitations import InvitationCommands
from peer.control.notices import Notifications
from peer.control.relocation import Relocation
from peer.control.server import Notify, Waiting
from peer.control.share_info import share_info
from peer.control.share_rows import fetching_rows, share_rows
from peer.control.verification import verify_copy
from peer.control.views import happened, missed, planned, qr_rows, time_text, uploaded
from peer.downloads.manager import Downloads
from peer.downloads.views import piece_map_of, rest_reason, source_rows
from peer.files.free_space import free_space
from peer.follows.manager import Follows
from peer.hooks.runner import HookRunner
from peer.native import library as native
from peer.reading.manager import Reading
from peer.serving.server import PieceServer
from peer.session import Session
from peer.shares.manager import Shares
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from peer.tracker_client.link import TrackerLink

R = TypeVar("R")
WATCH_POLL_S = 1.0  # how soon watchers are told of a lost or new connection to the tracker
SETTLE_S = 10.0  # how long a command about files waits until the session has started
SETTLE_STATUS_S = 2.0
UNFINISHED = (control.DOWNLOADING, control.PAUSED)


@dataclass(slots=True)
class _Watcher:
    group: GroupId | None
    notify: Notify


@dataclass(frozen=True, slots=True)
class PeerServices:
    """The parts of a running peer that commands use."""

    pair: KeyPair
    link: TrackerLink
    replica: GroupReplica
    session: Session
    shares: Shares
    downloads: Downloads
    follows: Follows
    piece_server: PieceServer
    whereabouts: AddressWatch
    notices: Notifications
    bandwidth: Bandwidth
    reading: Reading
    hooks: HookRunner
    pid: int
    release: str
    home: str
    stop: Callable[[], None]
    open_page: Callable[[], control.PageOpened]
    metrics: Callable[[], str]


class Commands:
    """Carries out the commands of the command line."""

    def __init__(self, services: PeerServices) -> None:
        self._services = services
        self._account = Account(services.pair.public, services.link, services.session)
        self._groups = GroupCommands(
            services.link, services.replica, services.session, services.shares
        )
        self._invitations = InvitationCommands(services.link, services.replica, self._account)
        self._holders = HolderCommands(services.link, DeviceKey(services.pair.public))
        self._follows = FollowCommands(services.follows, services.replica)
        self._relocation = Relocation(services.shares, services.downloads, services.follows)
        self._watchers: list[_Watcher] = []

    def listen(self, notify: Notify) -> Callable[[], None]:
        """Report the events of all groups of any user; return the function that ends it."""
        watcher = _Watcher(None, notify)
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def entry(self, entry: events.LogEntry) -> None:
        """Report an event to the watchers, and run its hook."""
        self._services.hooks.entry(entry)
        group = GroupId(names.fold_id(entry.group))
        for watcher in self._watchers:
            if watcher.group in (None, group):
                watcher.notify(happened(entry))

    def gap(self, gap: Gap) -> None:
        """Report events that the tracker no longer has to the watchers."""
        for watcher in self._watchers:
            if watcher.group in (None, gap.group):
                watcher.notify(missed(gap, wall_ms()))

    def answered(self, group: GroupId, accepted: bool) -> None:
        """Report the answer to a request of the user to the watchers."""
        now, user = time_text(self._services.link.time.now_ms()), self._services.replica.user
        details: dict[str, str | int | bool] = {"user": user or ""}
        event = "accepted" if accepted else "rejected"
        for watcher in self._watchers:
            if watcher.group in (None, group):
                watcher.notify(control.Happened(0, now, group, event, details))

    async def handle(self, command: control.Command, notify: Notify) -> control.Answer | Waiting:
        """Carry ``command`` out. Raises `MiniTorrentError`; cancellation stops the command."""
        match command:
            case control.Status():
                await self._services.session.wait_ready(SETTLE_STATUS_S)
                return self._status()
            case control.Down():
                self._services.stop()
                return control.Done("the peer stops", {"running": False})
            case control.FreeSpace(path):
                return control.SpaceIs(path, *await asyncio.to_thread(free_space, path))
            case control.QrCode(text):
                return control.QrCodeIs(qr_rows(text))
            case control.Metrics():
                return control.MetricsAre(self._services.metrics())
            case control.OpenPage():
                return self._services.open_page()
            case control.Doctor():
                services = self._services
                where = (services.whereabouts, services.piece_server, services.notices)
                found = await findings(services.link, services.replica, *where)
                return control.Checks([*found, *hook_findings(services.hooks.settings)])
            case control.Limit():
                return control.LimitsAre(await self._services.bandwidth.change(command))
            case control.ReadFile():
                await self._services.session.wait_ready(SETTLE_S)
                return Waiting(self._services.reading.read(command, notify))
            case control.Watch(group):
                return Waiting(self._watch(group, notify))
            case control.WhoHas(group, name):
                return await self._holders.who_has(group, name)
            case control.AwaitCopies():
                return Waiting(self._holders.wait(command, notify))
            case control.Follow() | control.Unfollow() | control.ListFollows():
                await self._services.session.wait_ready(SETTLE_S)
                return await self._follows.handle(command)
            case control.HangUp() | control.Hello():
                return control.Done()
            case (
                control.UploadFile()
                | control.DownloadFile()
                | control.AwaitDownload()
                | control.ShowDownloads()
                | control.ListShares()
                | control.StopShare()
                | control.Withdraw()
                | control.Info()
                | control.Pause()
                | control.Resume()
                | control.Cancel()
                | control.Clear()
                | control.WhySlow()
                | control.PieceMap()
                | control.Verify()
                | control.Move()
            ):
                await self._services.session.wait_ready(SETTLE_S)
                return await self._files(command, notify)
            case (
                control.CreateUser()
                | control.Login()
                | control.Logout()
                | control.ChangePassword()
                | control.ListDevices()
                | control.ForgetDevice()
            ):
                return await self._account.handle(command)
            case control.Invite() | control.ListInvites() | control.RevokeInvite():
                return await self._invitations.handle(command)
            case control.Redeem():
                return await self._invitations.handle(command)
            case _:
                return await self._groups.handle(command)

    # -- files ----------------------------------------------------------------------------------

    async def _files(
        self,
        command: control.UploadFile
        | control.DownloadFile
        | control.AwaitDownload
        | control.ShowDownloads
        | control.ListShares
        | control.StopShare
        | control.Withdraw
        | control.Info
        | control.Pause
        | control.Resume
        | control.Cancel
        | control.Clear
        | control.WhySlow
        | control.PieceMap
        | control.Verify
        | control.Move,
        notify: Notify,
    ) -> control.Answer | Waiting:
        downloads = self._services.downloads
        match command:
            case control.UploadFile():
                if command.dry_run:
                    return planned(await self._services.shares.plan(command))
                return uploaded(await self._services.shares.upload(command, notify))
            case control.DownloadFile():
                began = monotonic()
                key = await downloads.begin(command, notify)
                if not command.wait:
                    text = f"downloading {names.printable(command.name)}"
                    return control.Begun(text, command.group, downloads.path_of(key), command.name)
                left_s = None
                if command.timeout_s is not None:
                    left_s = max(0.0, began + command.timeout_s - monotonic())
                return Waiting(downloads.wait(key, notify, left_s))
            case control.AwaitDownload(group, path, timeout_s):
                key = downloads.latest_to(group, path)
                return Waiting(downloads.wait(key, notify, timeout_s))
            case control.ShowDownloads():
                await downloads.check_disk()
                return control.Downloads(downloads.rows())
            case control.ListShares():
                meter = self._services.piece_server.meter
                return control.ShareRows(await share_rows(self._services.shares, meter))
            case control.StopShare(group, name):
                await self._services.shares.stop(group, name)
                return _done(command, f"{names.printable(name)} is no longer shared from here")
            case control.Withdraw(group, name):
                await self._services.shares.withdraw(group, name)
                return _done(command, f"{names.printable(name)} is withdrawn from the group")
            case control.Info():
                services = self._services
                return Waiting(
                    share_info(services.link, services.shares, downloads, command, notify)
                )
            case control.Pause(group, name):
                await downloads.pause(group, name)
                return _done(command, f"paused {names.printable(name)}", control.PAUSED)
            case control.Resume(group, name):
                await downloads.resume(group, name)
                return _done(command, f"resumed {names.printable(name)}", control.DOWNLOADING)
            case control.Cancel(group, name):
                shown = names.printable(name)
                if await downloads.cancel(group, name):
                    return _done(
                        command, f"cancelled {shown}; its partial data is deleted", "cancelled"
                    )
                return _done(
                    command, f"{shown} is off the list; the file stays where it is", "cleared"
                )
            case control.Clear():
                rows = await downloads.clear()
                what = count_text(len(rows), "complete download")
                return control.DoneAll(
                    f"{what} taken off the list; the files stay",
                    [{"group": row.group, "name": row.name, "path": row.path} for row in rows],
                )
            case control.Verify():
                shares = self._services.shares
                return Waiting(verify_copy(command, shares, downloads, notify))
            case control.Move():
                return Waiting(self._relocation.move(command, notify))
            case control.WhySlow(group, name):
                jobs = downloads.active(group, name)
                return control.SourceRows(
                    [row for job in jobs for row in source_rows(job)], rest_reason(jobs)
                )
            case control.PieceMap(group, name):
                return piece_map_of(downloads.active(group, name)[0])
            case _:
                assert_never(command)

    # -- looking --------------------------------------------------------------------------------

    def _status(self) -> control.StatusIs:
        services = self._services
        where = services.whereabouts
        trouble = None if services.link.connected else services.link.last_error
        advice, meter = where.advice, services.piece_server.meter
        rows = services.downloads.rows()
        return control.StatusIs(
            user=services.replica.user,
            connected=services.link.connected,
            tracker=services.link.known.text,
            listen=services.piece_server.endpoint,
            device=key_text(services.pair.public),
            id=short_id(services.pair.public),
            shares=len(services.shares),
            downloads=sum(1 for row in rows if row.state in UNFINISHED),
            up_bytes_per_s=meter.rate(monotonic()),
            down_bytes_per_s=sum(row.rate_bytes_per_s for row in rows),
            served_bytes=meter.served_bytes,
            fetching=fetching_rows(meter),
            limits=services.bandwidth.row(),
            data_path=native.state(),
            pid=services.pid,
            version=services.release,
            home=services.home,
            requests=sum(services.replica.requests.values()),
            requests_by_group={str(g): n for g, n in services.replica.requests.items()},
            pending=sorted(services.replica.pending),
            trouble=trouble
            or where.last_error
            or services.session.logout_notice
            or services.notices.latest,
            announced=where.announced or "",
            advertise=where.advertise or "",
            advice=None if advice is None else "; ".join(advice),
            away=[
                f"{names.versioned(name, version if version > 1 else 0)} in {group}: {why}"
                for (group, name, version), why in services.shares.away().items()
            ],
        )

    async def _watch(self, group_text: str | None, notify: Notify) -> control.Answer:
        group = None if group_text is None else names.group_id(group_text)
        replica = self._services.replica
        if replica.user is None:
            raise not_logged_in()
        if group is not None and group not in replica.groups:
            await replica.sync()
            if group not in replica.groups and group not in replica.pending:
                raise no_group(group)
        watcher = _Watcher(group, notify)
        self._watchers.append(watcher)
        try:
            connected = None
            while True:
                if connected is not self._services.link.connected:
                    connected = self._services.link.connected
                    note = None if connected else "not connected to the tracker: events come later"
                    notify(control.Progress("watching", 0, 0, note=note))
                await asyncio.sleep(WATCH_POLL_S)
        finally:
            self._watchers.remove(watcher)


def _done(
    command: control.StopShare | control.Withdraw | control.Pause | control.Resume | control.Cancel,
    text: str,
    state: str = "",
) -> control.Done:
    changed: dict[str, control.Value] = {"group": command.group, "name": command.name}
    return control.Done(text, {**changed, "state": state} if state else changed)
