"""Somebody is logged in on this device: what that begins, and what ends with it.

Owns the order of things when a user logs in or out, when the tracker comes back, and when the
user's groups change. What each part does then is its own affair.
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
from common.names import fold_id
from peer.downloads.manager import Downloads
from peer.serving.server import PieceServer
from peer.shares.manager import Shares
from peer.tracker_client.group_replica import GroupReplica
from peer.tracker_client.group_view import Gap
from peer.tracker_client.lease import LeaseKeeper
from peer.tracker_client.tickets import TicketWallet

log = logging.getLogger(__name__)

RETRY_S = 2.0  # how soon what the tracker refused to a returning device is tried again
BEGIN_S = 20.0  # how long a login waits for shares and downloads; they come back after it as well


class Session:
    """The user of this device, and all that lives by their right."""

    def __init__(
        self,
        replica: GroupReplica,
        presence: LeaseKeeper,
        tickets: TicketWallet,
        shares: Shares,
        downloads: Downloads,
        seeder: PieceServer,
    ) -> None:
        self._replica = replica
        self._presence = presence
        self._tickets = tickets
        self._shares = shares
        self._downloads = downloads
        self._seeder = seeder
        self._errands: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()
        self._settled = asyncio.Event()
        self._settled.set()
        self.farewell: str | None = None
        """How the last login ended, if that was not done here and nobody has logged in since."""

    async def settled(self, timeout_s: float) -> None:
        """Wait until the user's shares and downloads are back, for a time at most: whoever asks for
        them right after a start shall not find half of them."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), timeout_s)

    def replaced_by(self, user: UserId) -> str | None:
        """What a login as ``user`` ends here, to be asked before; None when nothing runs."""
        current = self._replica.user
        if current is None or current == user:
            return None
        shares = len(self._shares)
        downloads = sum(1 for row in self._downloads.rows() if row.state in "DP")
        if not shares and not downloads:
            return None
        return (
            f"{current} is logged in here: {shares:,} shares and {downloads:,} unfinished "
            f"downloads stop until the next login as {current}"
        )

    async def begin(self, user: UserId) -> None:
        """``user`` is logged in: their shares come back, their downloads go on.

        That goes on by itself if whoever asked for the login does not wait for it.
        """
        if self._replica.user != user:
            self._tickets.clear()
        self.farewell = None
        self._replica.set_user(user)
        self._settled.clear()
        await asyncio.wait({self._run(self._come_back(user))}, timeout=BEGIN_S)

    async def end(self) -> None:
        """The user has logged out here: nothing is shared any more, nothing fetched."""
        self.farewell = None
        self._replica.set_user(None)
        async with self._one_at_a_time:
            await self._rest()

    async def _rest(self) -> None:
        await self._shares.deactivate()
        await self._downloads.deactivate()
        self._tickets.clear()

    def logged_out(self) -> None:
        """The user, who is still known, was logged out of this device from elsewhere."""
        self.farewell = f"{self._replica.user} was logged out of this device, from elsewhere"
        log.warning("%s", self.farewell)
        self._run(self._wind_down())

    async def _wind_down(self) -> None:
        async with self._one_at_a_time:
            if self._replica.user is not None:
                return  # somebody has logged in since, and has taken over
            await self._rest()

    async def left_group(self, group: GroupId) -> None:
        """The user left ``group`` by their own wish."""
        self._tickets.drop(group)
        await self._shares.left_group(group)
        await self._replica.sync()

    def link_up(self) -> None:
        """The tracker is there (again), and has said who is logged in."""
        user = self._replica.user
        if user is not None:
            self.farewell = None
            self._settled.clear()
        self._run(self._wind_down() if user is None else self._come_back(user))

    def groups_changed(self) -> None:
        """The user is in other groups than before."""
        user = self._replica.user
        if user is not None:
            self._run(self._regroup(user))

    def entry(self, entry: events.LogEntry) -> None:
        """An event of a group that concerns the rights of somebody."""
        if isinstance(entry.event, events.Device) and not entry.event.bound:
            self._seeder.drop_user(GroupId(fold_id(entry.group)), UserId(fold_id(entry.event.user)))
        if not isinstance(entry.event, events.Left | events.Removed):
            return
        group, user = GroupId(fold_id(entry.group)), UserId(fold_id(entry.event.user))
        self._seeder.drop_user(group, user)
        if user == self._replica.user:
            self._tickets.drop(group)
            self._run(self._shares.left_group(group))

    def gap(self, gap: Gap) -> None:
        """Events of a group were missed for good: end what the lost devices had open here.

        The group's other state was taken from the tracker's snapshot by then.
        """
        for user in gap.gone:
            self._seeder.drop_user(gap.group, user)

    async def _come_back(self, user: UserId) -> None:
        """Bring everything up, and again when the tracker refuses a part of it for now."""
        try:
            while user == self._replica.user:
                try:
                    await self._bring_up(user)
                    return
                except TransportError:
                    raise  # the next connection begins anew
                except MiniTorrentError as error:
                    log.info("not everything is back yet: %s", error)
                    await asyncio.sleep(RETRY_S)
        finally:
            self._settled.set()

    async def _bring_up(self, user: UserId) -> None:
        async with self._one_at_a_time:
            if user != self._replica.user:
                return
            await self._replica.sync()
            # Online first: what is offered then has somebody who serves it.
            await self._presence.announce()
            await self._shares.activate(user)
            await self._downloads.activate(user)
            self._downloads.link_up()
            await self._shares.reconcile()

    async def _regroup(self, user: UserId) -> None:
        async with self._one_at_a_time:
            # While it waited for its turn the user may have gone, and with them their groups.
            if user != self._replica.user or not self._replica.known:
                return
            await self._downloads.groups_changed()
            await self._shares.groups_changed()

    def _run(self, errand: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await errand
            except MiniTorrentError as error:
                log.info("not everything is as it should be yet: %s", error)

        task = asyncio.create_task(run())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)
        return task

    def close(self) -> None:
        """End what is under way."""
        for errand in self._errands:
            errand.cancel()
