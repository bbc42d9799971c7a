"""Survey of users, groups, devices and swarms, page by page.

Owns: the pace. After each page all surveys rest for `REST` times as long as the page took, so that
they take at most a fifth of the tracker's time, and commands of devices come between. The tracker
chooses rows by text and hands them out in their order, so a search is one page; the busiest devices
and the worst swarms are found here.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from common.host.clock import monotonic, wall_ms
from common.messages import operator as messages
from common.units import rfc3339
from tracker.http import commands as c
from tracker.http.commands import Health, HealthRow, ListSwarms, SwarmsAre
from tracker.http.tracker_client import TrackerClient

REST = 4.0
REST_S_MAX = 1.0  # after a page that took long for other reasons
ROWS_KEPT = 2_000  # of each health; those that most devices fetch
A = TypeVar("A", bound=messages.Answer)
P = TypeVar("P", messages.Users, messages.Groups, messages.Devices)


class Swarms:
    """Shares by health, as one survey found them. ``rows``: the most wanted ones first."""

    def __init__(self) -> None:
        self.counts: Counter[Health] = Counter()
        self.wanted = 0
        self.time = ""
        self._rows: dict[Health, list[HealthRow]] = {health: [] for health in Health}

    def add(self, row: messages.SwarmRow) -> None:
        """Count a share, and keep its row if there are not too many that matter more."""
        health = health_of(row)
        self.counts[health] += 1
        self.wanted += health is Health.UNSEEDED and row.leechers > 0
        kept = self._rows[health]
        kept.append(HealthRow(health=health, **msgspec.structs.asdict(row)))
        if len(kept) >= 2 * ROWS_KEPT:
            self._rows[health] = _most_wanted(kept)

    def end(self) -> None:
        """Put the rows in order, at the end of the survey."""
        self._rows = {health: _most_wanted(rows) for health, rows in self._rows.items()}
        self.time = rfc3339(wall_ms())

    def answer(self, command: ListSwarms) -> SwarmsAre:
        """Return the rows that match, by health: unseeded ones first."""
        text, group = command.text.lower(), command.group.lower()
        healths = (Health.UNSEEDED, Health.SINGLE, Health.HEALTHY)
        found = [
            row
            for health in healths
            if command.health in (None, health)
            for row in self._rows[health]
            if (not group or row.group == group) and (text in row.name.lower() or text in row.group)
        ]
        return SwarmsAre(
            shares=self.counts.total(),
            healthy=self.counts[Health.HEALTHY],
            single_seeder=self.counts[Health.SINGLE],
            unseeded=self.counts[Health.UNSEEDED],
            wanted=self.wanted,
            matching=len(found),
            complete=all(self.counts[health] <= ROWS_KEPT for health in healths),
            time=self.time,
            rows=found[: command.limit],
        )


def health_of(row: messages.SwarmRow) -> Health:
    """Return the health of a share, by its devices online that hold it whole."""
    if row.seeders == 0:
        return Health.UNSEEDED
    return Health.SINGLE if row.seeders == 1 else Health.HEALTHY


def _most_wanted(rows: list[HealthRow]) -> list[HealthRow]:
    return heapq.nsmallest(
        ROWS_KEPT, rows, key=lambda row: (-row.leechers, row.group, row.name, -row.version)
    )


class Survey:
    """Surveys of one tracker."""

    def __init__(self, client: TrackerClient) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._resting_until = 0.0

    async def users(self, command: c.ListUsers) -> list[messages.UserRow]:
        """Return the accounts that match."""

        def after(rows: list[messages.UserRow]) -> messages.ListUsers:
            last = rows[-1].user if rows else ""
            missing = min(command.limit - len(rows), messages.ROWS_MAX)
            return messages.ListUsers(last, command.text, command.online, missing)

        return await self._all(after, messages.Users, command.limit)

    async def groups(self, command: c.ListGroups) -> list[messages.GroupRow]:
        """Return the groups that match."""

        def after(rows: list[messages.GroupRow]) -> messages.ListGroups:
            last = rows[-1].group if rows else ""
            missing = min(command.limit - len(rows), messages.ROWS_MAX)
            return messages.ListGroups(last, command.text, missing)

        return await self._all(after, messages.Groups, command.limit)

    async def devices(self, command: c.ListDevices) -> list[messages.DeviceRow]:
        """Return the devices that match; those online first, the busiest on top."""

        def after(rows: list[messages.DeviceRow]) -> messages.ListDevices:
            last = rows[-1].key if rows else ""
            return messages.ListDevices(last, command.text, command.online)

        rows = await self._all(after, messages.Devices)
        return heapq.nsmallest(command.limit, rows, key=_busiest_first)

    async def _all(
        self,
        after: Callable[[list[Any]], messages.Command],
        answer: type[P],
        limit: float = math.inf,
    ) -> list[Any]:
        """Return at most ``limit`` rows. ``after``: the command for those after these."""
        rows: list[Any] = []
        more = True
        while more and len(rows) < limit:
            page = await self._page(after(rows), answer)
            more = page.more
            rows += page.rows
        return rows

    async def swarms(self) -> Swarms:
        """Return all shares by health."""
        found = Swarms()
        command: messages.ListSwarms | None = messages.ListSwarms()
        while command is not None:
            page = await self._page(command, messages.Swarms)
            for row in page.rows:
                found.add(row)
            at = page.next
            command = None if at is None else messages.ListSwarms(at.group, at.name, at.version)
        found.end()
        return found

    async def _page(self, command: messages.Command, answer: type[A]) -> A:
        """Return a page, once the rest after the last one of any survey is over."""
        async with self._lock:
            await asyncio.sleep(self._resting_until - monotonic())
            began = monotonic()
            try:
                return await self._client.request(command, answer)
            finally:
                now = monotonic()
                self._resting_until = now + min(REST * (now - began), REST_S_MAX)


def _busiest_first(row: messages.DeviceRow) -> tuple[bool, int, str, str]:
    return (not row.online, -row.received_bytes_per_s - row.sent_bytes_per_s, row.user, row.key)
