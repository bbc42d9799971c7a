"""Paged listings of the tracker, read to their end within bounds.

Owns the paging. Invariant: keys grow strictly from row to row and over pages, and there are no more
rows than the bound, so a tracker that never ends a listing costs a bounded amount of memory.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from common import limits
from common.errors import RemoteProtocolError
from common.ids import DeviceKey, GroupId, UserId
from common.messages import tracker
from common.names import fold_id
from peer.tracker_client.link import TrackerLink

R = TypeVar("R", covariant=True)
Row = TypeVar("Row")


class Page(Protocol[R]):
    """A page of a listing, as all of the tracker's listings have it."""

    @property
    def rows(self) -> Sequence[R]: ...

    @property
    def more(self) -> bool: ...


async def listing(
    fetch: Callable[[Row | None], Awaitable[Page[Row]]],
    key: Callable[[Row], Any],
    what: str,
    rows_max: int,
) -> AsyncIterator[Row]:
    """Yield all rows of a listing. Raises `RemoteProtocolError` and the errors of ``fetch``.

    ``fetch`` returns the page after a row, the first one after None; rows are sorted by ``key``.
    """
    count, last = 0, None
    more = True
    while more:
        page = await fetch(last)
        for row in page.rows:
            if last is not None and not key(last) < key(row):
                raise RemoteProtocolError(f"list {what}: the tracker's rows are not in order")
            if count >= rows_max:
                raise RemoteProtocolError(
                    f"list {what}: the tracker sent more than {rows_max:,} rows, the most allowed"
                )
            count, last = count + 1, row
            yield row
        if page.more and not page.rows:
            raise RemoteProtocolError(f"list {what}: the tracker sent an empty page")
        more = page.more


async def devices_of(link: TrackerLink, group: GroupId) -> tuple[int, dict[DeviceKey, UserId]]:
    """Return the devices of a group's members, and the head of its log at the first page."""
    seq = 0

    async def page(last: tracker.DeviceRow | None) -> tracker.DeviceRows:
        nonlocal seq
        command = tracker.GetDevices(group, "" if last is None else last.device.hex())
        reply = await link.request(command, tracker.DeviceRows)
        seq = seq or reply.seq
        return reply

    rows = listing(page, lambda row: row.device, "devices", limits.DEVICES_PER_GROUP_MAX)
    users = {DeviceKey(row.device): UserId(sys.intern(fold_id(row.user))) async for row in rows}
    return seq, users
