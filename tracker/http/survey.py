"""Survey of all users, groups, devices and swarms, page by page.

Owns: the pace. After each page the survey rests for `REST` times as long as the page took, so that
it takes at most a fifth of the tracker's time, and commands of devices come between. The tracker
hands out rows in their order; what is worst is found here.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from common.host.clock import monotonic, wall_ms
from common.messages import operator as messages
from common.units import rfc3339
from tracker.http.commands import Health, HealthRow, ListSwarms, SwarmsAre
from tracker.http.tracker_client import TrackerClient

REST = 4.0
REST_S_MAX = 1.0  # after a page that took long for other reasons
ROWS_KEPT = 2_000  # of each health; those that most devices fetch
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

    async def users(self) -> list[messages.UserRow]:
        """Return all accounts."""
        return await self._all(messages.ListUsers, messages.Users, lambda row: row.user)

    async def groups(self) -> list[messages.GroupRow]:
        """Return all groups."""
        return await self._all(messages.ListGroups, messages.Groups, lambda row: row.group)

    async def devices(self) -> list[messages.DeviceRow]:
        """Return all devices that are logged in; those online first, the busiest on top."""
        rows = await self._all(messages.ListDevices, messages.Devices, lambda row: row.key)
        rows.sort(key=_busiest_first)
        return rows

    async def _all(
        self, after: Callable[[str], messages.Command], answer: type[P], key: Callable[[Any], str]
    ) -> list[Any]:
        """Return the rows of all pages. ``after``: the command for those after a ``key``."""
        rows: list[Any] = []
        pace, more = Pace(), True
        while more:
            await pace.rest()
            page = await self._client.request(after(key(rows[-1]) if rows else ""), answer)
            more = page.more
            rows += page.rows
        return rows

    async def swarms(self) -> Swarms:
        """Return all shares by health."""
        found, pace = Swarms(), Pace()
        command: messages.ListSwarms | None = messages.ListSwarms()
        while command is not None:
            await pace.rest()
            page = await self._client.request(command, messages.Swarms)
            for row in page.rows:
                found.add(row)
            at = page.next
            command = None if at is None else messages.ListSwarms(at.group, at.name, at.version)
        found.end()
        return found


class Pace:
    """Pace of one survey: `rest` is called before each page."""

    def __init__(self) -> None:
        self._began: float | None = None

    async def rest(self) -> None:
        """Wait, unless this is the first page."""
        if self._began is not None:
            await asyncio.sleep(min(REST * (monotonic() - self._began), REST_S_MAX))
        self._began = monotonic()


def _busiest_first(row: messages.DeviceRow) -> tuple[bool, int, str, str]:
    return (not row.online, -row.received_bytes_per_s - row.sent_bytes_per_s, row.user, row.key)
