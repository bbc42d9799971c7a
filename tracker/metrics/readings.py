"""Readings of a tracker's metrics, taken from the counts of its parts at each scrape.

Not here: the counts (see tracker.service), and the text (see common.metrics.exposition).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

from common.host.clock import wall_ms
from common.messages import tracker
from common.metrics.exposition import Exposition
from common.metrics.families import Readings
from common.metrics.loop_lag import LoopLag
from tracker.admin.home import LAST_BACKUP
from tracker.metrics.families import FAMILIES, HEALTHY, PROGRAM, SINGLE, UNSEEDED
from tracker.service.command_loop import CommandLoop
from tracker.service.sockets import Server

REJECTED = {
    "malformed": "malformed",
    "version": "version",
    "too fast": "too_fast",
    "anonymous": "anonymous",
}


class TrackerMetrics:
    """Metrics of one tracker that serves."""

    def __init__(self, server: Server, loop: CommandLoop, home: Path, database: Path) -> None:
        self.lag = LoopLag()
        self._server = server
        self._loop = loop
        self._home = home
        self._database = database
        self._began_ms = wall_ms()
        self._exposition = Exposition(PROGRAM, FAMILIES, self._read)

    def text(self) -> str:
        """Return all metrics as they are now. Raises `ConfigError` if the library is missing."""
        return self._exposition.text()

    def database_bytes(self) -> int:
        """Return the size of the database with its journal, without waiting for a server."""
        shared = self._server.shared_database_bytes
        return _file_bytes(self._database) if shared is None else shared

    def backed_up_at(self) -> float:
        """Return the Unix time of the last backup; 0 if there was none."""
        try:
            return (self._home / LAST_BACKUP).stat().st_mtime
        except OSError:
            return 0.0

    def _read(self, readings: Readings) -> None:
        server, loop = self._server, self._loop
        readings.add("start_time_seconds", self._began_ms / 1000)
        queued, writable = loop.load()
        readings.add("writable", float(writable))
        readings.add("queue_length", queued)
        readings.add("loop_lag_seconds", self.lag.seconds)
        readings.add("database_bytes", self.database_bytes())
        readings.add("last_backup_timestamp_seconds", self.backed_up_at())
        readings.add("events_published_total", server.published)
        readings.add("tickets_signed_total", server.tickets_signed)
        readings.add_each("handshakes_total", "result", server.handshakes)
        rejected = {reason: server.counts[count] for count, reason in REJECTED.items()}
        readings.add_each("rejected_messages_total", "reason", rejected)
        self._read_commands(readings)
        self._read_state(readings)

    def _read_commands(self, readings: Readings) -> None:
        meter, catchups = self._loop.meter, tracker.EventsSince.__name__
        for (command, outcome), count in meter.commands.items():
            readings.add("commands_total", count, command=command, outcome=outcome)
        asked = sum(count for (name, _), count in meter.commands.items() if name == catchups)
        readings.add("event_catchups_total", asked)
        for kind, histogram in meter.durations.items():
            readings.put_histogram("command_duration_seconds", histogram, **{"class": kind})
        readings.put_histogram("commit_duration_seconds", meter.commits)
        readings.add("commit_batch_size", meter.batch_size)
        readings.add_each("logins_total", "result", meter.logins)

    def _read_state(self, readings: Readings) -> None:
        context = self._loop.context
        state, presence = context.state, context.presence
        online = len(presence.leases)
        readings.add("users", len(state.accounts))
        readings.add("devices", online, state="online")
        readings.add("devices", max(0, len(state.devices) - online), state="offline")
        readings.add("groups", len(state.groups))
        shares = sum(len(group.shares) for group in state.groups.values())
        readings.add("shares", shares)
        readings.add("share_bytes", state.manifests.size_bytes)
        seeders = Counter[int]()
        roles = Counter[str]()
        for swarm in presence.swarms():
            seeders[min(2, len(swarm.seeders))] += 1
            roles["seeder"] += len(swarm.seeders)
            roles["leecher"] += len(swarm.leechers)
        readings.add_each("swarm_members", "role", roles)
        health = {HEALTHY: seeders[2], SINGLE: seeders[1]}
        health[UNSEEDED] = max(0, shares - sum(health.values()))
        readings.add_each("shares_by_health", "health", health)


def _file_bytes(database: Path) -> int:
    size = 0
    for path in (database, database.with_name(f"{database.name}-wal")):
        with contextlib.suppress(OSError):
            size += path.stat().st_size
    return size
