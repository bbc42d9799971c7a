"""Readings of a peer's metrics, taken from the counts of its parts at each scrape.

Owns: which groups have series of their own. Not here: the counts (see the parts), and the text (see
common.metrics.exposition).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from common.host.clock import monotonic, wall_ms
from common.ids import GroupId
from common.metrics.exposition import Exposition
from common.metrics.families import OPEN_OTHER, OPEN_VALUES_MAX, Readings
from common.metrics.loop_lag import LoopLag
from peer.bandwidth import Bandwidth
from peer.downloads.counts import DownloadCounts
from peer.downloads.manager import Downloads
from peer.fetching.pool import ConnectionPool
from peer.files.byte_count import DIGESTED
from peer.files.errors import DISK_ERRORS
from peer.metrics.families import FAMILIES, PROGRAM, REFUSALS
from peer.serving.server import PieceServer
from peer.shares.manager import Shares
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.tickets import TicketWallet

# Counts of `ConnectionPool`, and the transport and result that they stand for.
_CONNECTIONS = {
    "link up": ("zmq", "up"),
    "link unreachable": ("zmq", "unreachable"),
    "link failed": ("zmq", "refused"),
    "link silent": ("zmq", "silent"),
    "link down": ("zmq", "lost"),
    "bulk up": ("bulk", "up"),
    "bulk unreachable": ("bulk", "unreachable"),
    "bulk failed": ("bulk", "lost"),
}


@dataclass(frozen=True, slots=True)
class PeerParts:
    """The parts of a peer that count."""

    link: TrackerLink
    tickets: TicketWallet
    shares: Shares
    downloads: Downloads
    download_counts: DownloadCounts
    pool: ConnectionPool
    server: PieceServer
    bandwidth: Bandwidth


class PeerMetrics:
    """Metrics of one peer. ``name_groups``: groups have series of their own."""

    def __init__(self, parts: PeerParts, *, name_groups: bool) -> None:
        self.lag = LoopLag()
        self._parts = parts
        self._groups = NamedGroups() if name_groups else NamedGroups(most=0)
        self._began_ms = wall_ms()
        self._exposition = Exposition(PROGRAM, FAMILIES, self._read)

    def text(self) -> str:
        """Return all metrics as they are now. Raises `ConfigError` if the library is missing."""
        return self._exposition.text()

    def _read(self, readings: Readings) -> None:
        parts = self._parts
        readings.add("start_time_seconds", self._began_ms / 1000)
        readings.add("tracker_connected", float(parts.link.connected))
        readings.add("shares", len(parts.shares))
        readings.add("loop_lag_seconds", self.lag.seconds)
        ends_ms = parts.tickets.first_expiry_ms
        # By this machine's clock, which the one that scrapes compares with its own.
        ahead_ms = parts.link.time.now_ms() - wall_ms()
        readings.add(
            "ticket_expiry_timestamp_seconds", 0 if ends_ms is None else (ends_ms - ahead_ms) / 1000
        )
        for direction, limit in (("up", parts.bandwidth.up), ("down", parts.bandwidth.down)):
            readings.add("rate_limit_bytes_per_second", limit.rate, direction=direction)
            readings.add("throttled_seconds_total", limit.throttled_s, direction=direction)
        self._read_fetching(readings)
        self._read_serving(readings)
        errors, served = Counter(parts.download_counts.disk_errors), parts.server.counts
        errors.update({word: served[f"disk error {word}"] for word in DISK_ERRORS})
        readings.add_each("disk_errors_total", "error", errors)

    def _read_fetching(self, readings: Readings) -> None:
        parts, counts = self._parts, self._parts.download_counts
        states = Counter(row.state for row in parts.downloads.rows())
        readings.add_each("downloads", "state", states)
        readings.add_each("downloads_finished_total", "result", counts.ends)
        readings.put_histogram("download_duration_seconds", counts.durations)
        readings.add_each("pieces_received_total", "result", counts.pieces)
        readings.add("buffer_bytes", counts.waiting_bytes)
        readings.add("disk_bytes_total", counts.written_bytes, operation="write")
        readings.add("disk_bytes_total", DIGESTED.total, operation="digest")
        for group, size in self._groups.named(counts.received_bytes).items():
            readings.add("received_bytes_total", size, group=group)
        downloads = parts.downloads.progress()
        verdicts = Counter(one.verdict_on(source) for one in downloads for source in one.sources)
        readings.add_each("sources", "verdict", verdicts)
        for count, (transport, result) in _CONNECTIONS.items():
            value = parts.pool.counts[count]
            readings.add("connections_total", value, transport=transport, result=result)

    def _read_serving(self, readings: Readings) -> None:
        server = self._parts.server
        for outcome, count in (
            ("sent", "pieces"),
            ("declined", "declined"),
            ("cancelled", "cancelled"),
        ):
            readings.add("pieces_served_total", server.counts[count], outcome=outcome)
        refusals = {reason: server.counts[f"refusal {reason}"] for reason in REFUSALS}
        readings.add_each("refusals_total", "reason", refusals)
        readings.add("requesters", len(server.meter.fetching(monotonic())))
        readings.add("disk_bytes_total", server.counts["read bytes"], operation="read")
        for group, size in self._groups.named(server.meter.by_group).items():
            readings.add("sent_bytes_total", size, group=group)


class NamedGroups:
    """Groups that have series of their own: the first ``most`` that counted something.

    A group keeps its series until the peer ends. Why: a count that moved to another series and back
    would look like a restart to the monitoring.
    """

    def __init__(self, most: int = OPEN_VALUES_MAX) -> None:
        self._most = most
        self._named: set[GroupId] = set()

    def named(self, counts: Mapping[GroupId, int]) -> dict[str, int]:
        """Return the counts of the named groups, and of all others together."""
        found: dict[str, int] = {OPEN_OTHER: 0}
        for group, count in counts.items():
            if group not in self._named and len(self._named) < self._most:
                self._named.add(group)
            name = group if group in self._named else OPEN_OTHER
            found[name] = found.get(name, 0) + count
        return found
