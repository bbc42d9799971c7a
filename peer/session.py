"""Session of the user who is logged in on this device.

Owns: the order of activation and deactivation when a user logs in or out, when the link to the
tracker returns, and when the user's groups change. Not here: the work of each part (see its
module).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from common.errors import MiniTorrentError, TransportError
from common.ids import GroupId, UserId
from common.messages import events
from common.names import fold_id, printable
from common.shared_refusals import not_logged_in
from common.units import count_text
from peer.background_tasks import BackgroundTasks
from peer.downloads.manager import Downloads
from peer.follows.manager import Follows
from peer.serving.server import PieceServer
from peer.shares.manager import Shares
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from peer.tracker_client.lease import LeaseKeeper
from peer.tracker_client.tickets import TicketWallet

log = logging.getLogger(__name__)

RETRY_S = 2.0  # until the next attempt after the tracker refused a part of an activation
BEGIN_S = 20.0  # a login waits that long for shares and downloads; activation goes on after it


class Session:
    """Activation of shares, downloads, tickets and lease of the logged-in user."""

    def __init__(
        self,
        replica: GroupReplica,
        lease: LeaseKeeper,
        tickets: TicketWallet,
        shares: Shares,
        downloads: Downloads,
        server: PieceServer,
        follows: Follows,
    ) -> None:
        self._replica = replica
        self._lease = lease
        self._tickets = tickets
        self._shares = shares
        self._downloads = downloads
        self._server = server
        self._follows = follows
        self._tasks = BackgroundTasks()
        self._lock = asyncio.Lock()
        self._ready = asyncio.Event()
        self._ready.set()
        self.logout_notice: str | None = None
        """Notice of a login that ended elsewhere, until a user logs in again."""

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until the user's shares and downloads are active, at most for ``timeout_s``.

        Why: a listing right after a start must not show half of them.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ready.wait(), timeout_s)

    @property
    def user(self) -> UserId | None:
        """The user who is logged in."""
        return self._replica.user

    def replaced_by(self, user: UserId) -> str | None:
        """Return a description of what a login as ``user`` would end here; None for nothing."""
        current = self._replica.user
        if current is None or current == user:
            return None
        shares = len(self._shares)
        downloads = sum(1 for row in self._downloads.rows() if row.state in "DP")
        if not shares and not downloads:
            return None
        return (
            f"{current} is logged in here: {count_text(shares, 'share')} and "
            f"{count_text(downloads, 'unfinished download')} stop until the next login as {current}"
        )

    async def begin(self, user: UserId) -> None:
        """Activate shares and downloads of ``user``, who has logged in.

        The activation goes on if the caller does not wait for it.
        """
        if self._replica.user != user:
            self._tickets.clear()
        self.logout_notice = None
        self._replica.set_user(user)
        self._ready.clear()
        await asyncio.wait({self._run(self._resume(user))}, timeout=BEGIN_S)

    async def end(self) -> None:
        """End all shares and downloads: the user has logged out here."""
        self.logout_notice = None
        self._replica.set_user(None)
        async with self._lock:
            await self._deactivate()

    async def _deactivate(self) -> None:
        await self._follows.deactivate()
        await self._shares.deactivate()
        await self._downloads.deactivate()
        self._tickets.clear()

    def logged_out(self, reason: str) -> None:
        """End all shares and downloads: the user was logged out of this device from elsewhere.

        The replica still knows the user. ``reason``: the tracker's refusal of a command.
        """
        self.logout_notice = f"{self._replica.user} was logged out of this device, from elsewhere"
        if reason != not_logged_in().message:
            self.logout_notice += f": {printable(reason)}"
        log.warning("%s", self.logout_notice)
        self._run(self._deactivate_if_logged_out())

    async def _deactivate_if_logged_out(self) -> None:
        async with self._lock:
            if self._replica.user is not None:
                return  # a user has logged in since, and has taken over
            await self._deactivate()

    async def left_group(self, group: GroupId) -> None:
        """End everything of ``group``, which the user has left."""
        self._tickets.drop(group)
        await self._shares.left_group(group)

    def link_up(self) -> None:
        """Activate or deactivate: the link is up, and the tracker has named the user."""
        user = self._replica.user
        if user is not None:
            self.logout_notice = None
            self._ready.clear()
        self._run(self._deactivate_if_logged_out() if user is None else self._resume(user))

    def groups_changed(self) -> None:
        """Apply a change of the user's groups."""
        user = self._replica.user
        if user is not None:
            self._run(self._apply_groups(user))

    def entry(self, entry: events.LogEntry) -> None:
        """Apply an entry of a group's log to the rights of users, and to the follows."""
        self._follows.entry(entry)
        if isinstance(entry.event, events.Device) and not entry.event.bound:
            self._server.drop_user(GroupId(fold_id(entry.group)), UserId(fold_id(entry.event.user)))
        group = GroupId(fold_id(entry.group))
        if isinstance(entry.event, events.Withdrawn):
            self._run(self._shares.withdrawn(group, entry.event))
            self._run(self._downloads.withdrawn(group, entry.event))
        if not isinstance(entry.event, events.Left | events.Removed):
            return
        user = UserId(fold_id(entry.event.user))
        self._server.drop_user(group, user)
        if user == self._replica.user:
            self._tickets.drop(group)
            self._run(self._shares.left_group(group))

    def presence_changed(self) -> None:
        """Have the follows reviewed: a download began or ended."""
        self._follows.review_soon()

    def gap(self, gap: Gap) -> None:
        """Drop the users of lost devices: entries of a group's log were lost for good.

        The group's other state was taken from the tracker's snapshot before.
        """
        self._follows.gap(gap.group)
        for user in gap.gone:
            self._server.drop_user(gap.group, user)
        self._run(self._shares.reconcile())  # a lost entry may have withdrawn a share

    async def _resume(self, user: UserId) -> None:
        """Activate everything; retry while the tracker refuses a part of it."""
        try:
            while user == self._replica.user:
                try:
                    await self._activate(user)
                    return
                except TransportError:
                    raise  # the next connection begins anew
                except MiniTorrentError as error:
                    log.info("session: not everything is active yet: %s", error)
                    await asyncio.sleep(RETRY_S)
        finally:
            self._ready.set()

    async def _activate(self, user: UserId) -> None:
        async with self._lock:
            if user != self._replica.user:
                return
            await self._replica.sync()
            # Online first: a share is offered by a device that serves it.
            await self._lease.announce()
            await self._shares.activate(user)
            await self._downloads.activate(user)
            self._downloads.link_up()
            await self._shares.reconcile()
            await self._follows.activate(user)

    async def _apply_groups(self, user: UserId) -> None:
        async with self._lock:
            # While this waited for the lock, the user may have logged out.
            if user != self._replica.user or not self._replica.known:
                return
            await self._follows.groups_changed()
            await self._downloads.groups_changed()
            await self._shares.groups_changed()

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await work
            except MiniTorrentError as error:
                log.info("session: a step failed: %s", error)

        return self._tasks.start(run())

    def close(self) -> None:
        """Cancel all tasks."""
        self._follows.close()
        self._tasks.cancel()
