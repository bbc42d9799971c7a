"""Somebody is logged in on this device: what that begins, and what ends with it.

Owns the order of things when a user logs in or out, when the tracker comes back, and when the
user's groups change. What each part does then is its own affair.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from common.errors import MiniTorrentError
from common.ids import GroupId, UserId
from common.messages import events
from common.names import fold_id
from peer.downloads import Downloads
from peer.following import Following
from peer.presence import Presence
from peer.rights import Tickets
from peer.seeder import Seeder
from peer.shares import Shares

log = logging.getLogger(__name__)


class Session:
    """The user of this device, and all that lives by their right."""

    def __init__(
        self,
        following: Following,
        presence: Presence,
        tickets: Tickets,
        shares: Shares,
        downloads: Downloads,
        seeder: Seeder,
    ) -> None:
        self._following = following
        self._presence = presence
        self._tickets = tickets
        self._shares = shares
        self._downloads = downloads
        self._seeder = seeder
        self._errands: set[asyncio.Task[None]] = set()
        self._one_at_a_time = asyncio.Lock()

    async def begin(self, user: UserId) -> None:
        """``user`` is logged in: their shares come back, their downloads go on."""
        if self._following.user != user:
            self._tickets.clear()
        self._following.set_user(user)
        await self._bring_up(user)

    async def end(self) -> None:
        """Nobody is logged in any more: nothing is shared, nothing fetched."""
        self._following.set_user(None)
        async with self._one_at_a_time:
            self._shares.deactivate()
            await self._downloads.deactivate()
            self._tickets.clear()

    async def left_group(self, group: GroupId) -> None:
        """The user left ``group`` by their own wish."""
        await self._shares.left_group(group)
        await self._following.sync()

    def link_up(self) -> None:
        """The tracker is there (again), and has said who is logged in."""
        user = self._following.user
        self._run(self.end() if user is None else self._bring_up(user))

    def groups_changed(self) -> None:
        """The user is in other groups than before."""
        if self._following.user is not None:
            self._run(self._regroup())

    def entry(self, entry: events.LogEntry) -> None:
        """An event of a group that concerns the rights of somebody."""
        if not isinstance(entry.event, events.Left | events.Removed):
            return
        group, user = GroupId(fold_id(entry.group)), UserId(fold_id(entry.event.user))
        self._seeder.drop_user(group, user)
        if user == self._following.user:
            self._tickets.drop(group)
            self._run(self._shares.left_group(group))

    async def _bring_up(self, user: UserId) -> None:
        async with self._one_at_a_time:
            await self._following.sync()
            # Online first: what is offered then has somebody who serves it.
            await self._presence.announce()
            await self._shares.activate(user)
            await self._downloads.activate(user)
            self._downloads.link_up()
            await self._shares.reconcile()

    async def _regroup(self) -> None:
        async with self._one_at_a_time:
            await self._downloads.groups_changed()
            await self._shares.groups_changed()

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await errand
            except MiniTorrentError as error:
                log.info("not everything is as it should be yet: %s", error)

        task = asyncio.create_task(run())
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)

    def close(self) -> None:
        """End what is under way."""
        for errand in self._errands:
            errand.cancel()
