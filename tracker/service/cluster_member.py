"""Membership of a tracker in a cluster: several trackers on one database.

Owns: the agreement of this tracker with the others, as far as it is not durable: presence, attempts
to log in, the clock, the numbers of devices, and whether the database is lost. Not here: reading
and writing (see tracker.service.follower), commits of others (see tracker.service.mirror).

Thread safety: the event loop's thread, but for the methods of `follower.Owner`.

Invariant: rows of presence are applied between batches, since a batch in progress may be taken
back; and only when the mirror has the commits that they refer to.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from common.host.clock import TrackerTime, monotonic, wall_ms
from common.host.release import RELEASE
from tracker.core.presence import SwarmChange, rates_of
from tracker.core.shared_presence import SharedPresence
from tracker.core.throttle import Attempt
from tracker.service.command_loop import CommandLoop
from tracker.service.follower import (
    DEAD_S,
    Follower,
    PresenceIn,
    PresenceOut,
    Report,
    Tables,
)
from tracker.service.passwords import Passwords
from tracker.store.cluster_rows import TrackerRow
from tracker.store.journal import FORMAT
from tracker.store.turns import Store

log = logging.getLogger(__name__)

GATHER_S = 0.05  # changes of presence are gathered in that time, and written together
_attempts = msgspec.msgpack.Decoder(Attempt)
LATE_S = 1.0  # a turn of the event loop takes milliseconds
STOP_S = 2.0  # to delete the rows of this tracker at its end
ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Cluster:
    """Meeting point of a tracker with the others on its database.

    ``own``: 16 bytes, new at each start. Why: a home may be copied to make another tracker.
    ``keys``: marks of its signing keys.
    """

    own: bytes
    keys: bytes
    tables: Tables
    on_trackers: Callable[[tuple[str, ...]], None]
    """Called with the endpoints of all trackers, this one's first, when they change."""


class ClusterMember:
    """This tracker among those of ``cluster``, whose database is ``store``.

    ``database_bytes``: the size of the database as it was read last; 0 before that.
    """

    def __init__(
        self,
        cluster: Cluster,
        command_loop: CommandLoop,
        passwords: Passwords,
        store: Store,
    ) -> None:
        self.database_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._commands = command_loop
        self._context = command_loop.context
        self._passwords = passwords
        self._shared = SharedPresence(self._context.presence, cluster.own)
        self._on_trackers = cluster.on_trackers
        endpoint = self._context.identity.endpoint
        self._own = TrackerRow(
            cluster.own, os.urandom(ID_BYTES), endpoint, RELEASE, FORMAT, 0, 0, keys=cluster.keys
        )
        self._time = TrackerTime()
        self._latest_ms = 0
        self._heard_at = self._interrupted_at = monotonic()
        self._waiting: deque[PresenceIn] = deque()
        self._store = store
        self._follower = Follower(cluster.tables, store.news, self)
        self._first = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self, timeout_s: float) -> None:
        """Begin to follow; return after the first report, or after ``timeout_s``."""
        self._commands.clock = self.now_ms
        self._commands.committed = self._follower.committed
        self._passwords.on_attempt = lambda attempt: self._follower.broadcast(_text_of(attempt))
        self._follower.start()
        self._task = asyncio.create_task(self._keep(), name="cluster")
        try:
            await asyncio.wait_for(self._first.wait(), timeout_s)
        except TimeoutError:
            log.warning("other trackers were not heard of yet")

    async def stop(self) -> None:
        """End in order: other trackers forget this one at once."""
        if self._task is not None:
            self._task.cancel()
        await self._loop.run_in_executor(None, self._follower.stop, STOP_S)

    def now_ms(self) -> int:
        """Return the time of the database. It never goes back; its own clock may."""
        now_ms = self._time.now_ms() if self._time.known else wall_ms()
        self._latest_ms = max(self._latest_ms, now_ms)
        return self._latest_ms

    # -- follower.Owner: on its thread ------------------------------------------------------------

    def own_row(self) -> TrackerRow:
        """Return the row of this tracker, with the position of its mirror."""
        return replace(self._own, position=self._context.state.position)

    def connected(self) -> None:
        """Have all rows of presence written, soon."""
        self._loop.call_soon_threadsafe(self._write_all)

    def report(self, report: Report) -> None:
        """Take what was read, soon."""
        self._loop.call_soon_threadsafe(self._on_report, report)

    # -- presence ---------------------------------------------------------------------------------

    async def _keep(self) -> None:
        while True:
            slept_at = monotonic()
            await asyncio.sleep(GATHER_S)
            if (late_s := monotonic() - slept_at) > LATE_S:
                # This process stood still: that is no silence of the database.
                self._heard_at += late_s
            if self._shared.has_news:
                rows = self._shared.changed_rows(self._context.state.position)
                if rows:
                    self._follower.write(PresenceOut(rows))
            if self._waiting:
                self._commands.between_batches(self._take_presence)
            fellows, silent_s = self._context.fellows, monotonic() - self._heard_at
            if fellows.cut_off != (silent_s > DEAD_S):
                fellows.cut_off = not fellows.cut_off
                text = "lost" if fellows.cut_off else "found again"
                log.warning("the database is %s; devices are told", text)
            if min(silent_s, monotonic() - self._interrupted_at) > DEAD_S:
                # Why: a frozen server holds calls for ever, also when a standby has taken over.
                self._interrupted_at = monotonic()
                self._follower.interrupt()
                self._store.interrupt()

    def _write_all(self) -> None:
        generation = os.urandom(ID_BYTES)
        self._own = replace(self._own, generation=generation)
        rows = self._shared.all_rows(self._context.state.position)
        self._follower.write(PresenceOut(rows, generation))

    def _take_presence(self) -> list[SwarmChange]:
        now, changes = monotonic(), list[SwarmChange]()
        while self._waiting:
            needed = max((row.position for row in self._waiting[0].rows), default=0)
            if needed > self._context.state.position:
                break
            one = self._waiting.popleft()
            changes += self._shared.take_in(
                self._context.state, one.tracker, one.generation, one.rows, now, whole=one.whole
            )
        return changes

    def _end_trackers(self, present: set[bytes]) -> list[SwarmChange]:
        ended = [tracker for tracker in self._shared.trackers() if tracker not in present]
        return [change for tracker in ended for change in self._shared.end_tracker(tracker)]

    # -- reports ----------------------------------------------------------------------------------

    def _on_report(self, report: Report) -> None:
        self._heard_at = monotonic()
        if report.now_ms:
            self._time.learn(report.now_ms, report.asked_at, report.read_at)
        if report.database_bytes is not None:
            self.database_bytes = report.database_bytes
        if report.stale is not None:
            self._commands.fell_behind(report.stale)
        if report.commits:
            self._commands.receive(report.commits)
        if report.presence:
            self._waiting.extend(report.presence)
            self._commands.between_batches(self._take_presence)
        for text in report.told:
            self._on_told(text)
        if report.trackers is not None:
            self._on_others(report.trackers)
        self._first.set()

    def _on_told(self, text: str) -> None:
        try:
            attempt = _attempts.decode(base64.b64decode(text))
        except (ValueError, msgspec.MsgspecError):
            log.warning("a notification of another release was not understood")
            return
        self._passwords.attempted_elsewhere(attempt)

    def _on_others(self, others: list[TrackerRow]) -> None:
        present = {row.tracker for row in others}
        if set(self._shared.trackers()) - present:
            self._commands.between_batches(lambda: self._end_trackers(present))
        fellows = self._context.fellows
        serving = [row for row in others if row.silent_ms < DEAD_S * 1000]
        own_leases = [lease for lease in self._context.presence.leases.values() if not lease.at]
        online, (received, sent) = len(own_leases), rates_of(own_leases)
        self._own = replace(self._own, online=online, received=received, sent=sent)
        fellows.count(online, [row.online for row in serving], monotonic())
        fellows.rates = (sum(row.received for row in serving), sum(row.sent for row in serving))
        own = self._own.endpoint
        endpoints = tuple(dict.fromkeys([own, *(row.endpoint for row in serving)]))
        if len(endpoints) < 2:
            endpoints = ()
        if endpoints != fellows.endpoints:
            fellows.endpoints = endpoints
            log.info("trackers on this database: %d", 1 + len(serving))
            self._on_trackers(endpoints or (own,))


def _text_of(attempt: Attempt) -> str:
    return base64.b64encode(msgspec.msgpack.encode(attempt)).decode()
