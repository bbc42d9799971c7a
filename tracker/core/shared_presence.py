"""Presence over several trackers: the rows that each one writes, and what others make of them.

Owns: which rows of its own devices a tracker has to write, and the leases that follow from rows of
others. Not here: the leases themselves (see tracker.core.presence), and the table of the rows (see
tracker.store.cluster_tables).

Each tracker writes rows about its own devices only, numbered by ``version``. Its commits are in
order, so a reader that asks for later versions misses none. Rows are written for changes: a device
comes, goes, moves, begins to fetch, or has its first piece. Renewals stay at one tracker.

Invariant: a device is online at one tracker, that of its latest lease by the database's clock. A
tracker whose device announced itself elsewhere later gives it up. Why: the row of the former
tracker would otherwise outlive the device.

A ``generation`` begins when a tracker writes all its rows anew, since the table may have been
emptied: it loses its content when the database crashes. Devices that are not among them are gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from common.ids import ContentId, DeviceKey, GroupId, UserId
from tracker.core.presence import Lease, Presence, SwarmChange
from tracker.core.state import State

ROWS_MAX = 2_000  # in one write: some 20 ms of the database


@dataclass(frozen=True, slots=True)
class PresenceRow:
    """A device at ``tracker``; without a lease it has left.

    ``since_ms``: the beginning of its lease there. ``position``: the last commit that the writer
    had applied; a reader needs as many.
    """

    tracker: bytes
    device: DeviceKey
    version: int
    since_ms: int
    position: int
    lease: SharedLease | None


@dataclass(frozen=True, slots=True)
class SharedLease:
    """Lease as other trackers know it. ``leeching``: with whether a piece is held."""

    user: UserId
    endpoint: str
    instance: bytes
    leeching: tuple[tuple[GroupId, ContentId, bool], ...]


class SharedPresence:
    """Presence of the devices of all trackers, as seen by the tracker ``own``."""

    def __init__(self, presence: Presence, own: bytes) -> None:
        self._presence = presence
        self._own = own
        self._version = 0
        self._written: dict[DeviceKey, tuple[int, SharedLease]] = {}
        self._generations: dict[bytes, bytes] = {}
        presence.touched = {}

    # -- out ------------------------------------------------------------------------------------

    @property
    def has_news(self) -> bool:
        """Whether `changed_rows` has rows to write."""
        return bool(self._presence.touched)

    def changed_rows(self, position: int) -> list[PresenceRow]:
        """Return the rows to write now, at most ``ROWS_MAX``."""
        touched = self._presence.touched
        assert touched is not None
        rows = []
        for device in list(touched)[:ROWS_MAX]:
            del touched[device]
            now = self._lease_of(device)
            if now != self._written.get(device):
                rows.append(self._row(device, now, position))
        return rows

    def all_rows(self, position: int) -> list[PresenceRow]:
        """Return the rows of all devices here: they replace whatever was written before."""
        self._written.clear()
        self._presence.touched = {}
        own = (device for device, lease in self._presence.leases.items() if not lease.at)
        return [self._row(device, self._lease_of(device), position) for device in own]

    def _row(
        self, device: DeviceKey, now: tuple[int, SharedLease] | None, position: int
    ) -> PresenceRow:
        self._version += 1
        if now is None:
            since_ms, _ = self._written.pop(device)
            return PresenceRow(self._own, device, self._version, since_ms, position, None)
        self._written[device] = now
        return PresenceRow(self._own, device, self._version, now[0], position, now[1])

    def _lease_of(self, device: DeviceKey) -> tuple[int, SharedLease] | None:
        lease = self._presence.leases.get(device)
        if lease is None or lease.at:
            return None
        leeching = tuple((*key, held > 0) for key, held in lease.leeching.items())
        return lease.since_ms, SharedLease(lease.user, lease.endpoint, lease.instance, leeching)

    # -- in -------------------------------------------------------------------------------------

    def take_in(
        self,
        state: State,
        tracker: bytes,
        generation: bytes,
        rows: Iterable[PresenceRow],
        now: float,
        *,
        whole: bool = False,
    ) -> list[SwarmChange]:
        """Apply rows of another tracker, in order.

        ``whole``: these are all of it, as they are of a new ``generation``.
        """
        changes: list[SwarmChange] = []
        rows = list(rows)
        if whole or self._generations.get(tracker) != generation:
            self._generations[tracker] = generation
            present = {row.device for row in rows if row.lease is not None}
            changes += self._drop(tracker, present)
        for row in rows:
            changes += self._take_row(state, row, now)
        return changes

    def end_tracker(self, tracker: bytes) -> list[SwarmChange]:
        """End all leases at a tracker that has ended."""
        self._generations.pop(tracker, None)
        return self._drop(tracker, set())

    def trackers(self) -> list[bytes]:
        """Return the trackers of which rows were taken in."""
        return list(self._generations)

    def _drop(self, tracker: bytes, present: set[DeviceKey]) -> list[SwarmChange]:
        leases = self._presence.leases
        gone = [d for d, lease in leases.items() if lease.at == tracker and d not in present]
        return [change for device in gone for change in self._presence.depart(device)]

    def _take_row(self, state: State, row: PresenceRow, now: float) -> list[SwarmChange]:
        known = self._presence.leases.get(row.device)
        if known is not None and self._is_later(known, row):
            return []
        if row.lease is None:
            return self._presence.depart(row.device)
        if state.devices.get(row.device) != row.lease.user:
            return []  # it was unbound meanwhile
        return self._presence.take_over(
            state,
            row.device,
            Lease(
                user=row.lease.user,
                endpoint=row.lease.endpoint,
                ends_at=float("inf"),
                leeching={
                    (group, content): int(held) for group, content, held in row.lease.leeching
                },
                instance=row.lease.instance,
                since_ms=row.since_ms,
                at=row.tracker,
            ),
            now,
        )

    def _is_later(self, known: Lease, row: PresenceRow) -> bool:
        """Whether the known lease is a later one, at another tracker, than that of ``row``."""
        at = known.at or self._own
        return at != row.tracker and (known.since_ms, at) > (row.since_ms, row.tracker)
