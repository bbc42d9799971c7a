"""Families of metrics of a peer, ``minitorrent_peer_…``.

Not here: their values (see peer.metrics.readings). Never a label: user, device, share, endpoint.
"""

from __future__ import annotations

from common.messages import control
from common.messages.refusals import Code
from common.metrics.families import OTHER, counter, gauge, histogram
from peer.downloads.counts import DURATIONS_S, ENDS, PIECE_RESULTS
from peer.files.errors import DISK_ERRORS
from peer.swarm.fetching.progress import VERDICTS

PROGRAM = "peer"
DIRECTIONS = ("up", "down")
DOWNLOAD_STATES = (control.DOWNLOADING, control.PAUSED, control.COMPLETE, control.FAILED)
TRANSPORTS = ("zmq", "bulk")
_REFUSALS = (
    Code.BUSY, Code.CHANGED, Code.GONE, Code.LIMIT, Code.REVOKED, Code.TICKET_EXPIRED,
    Code.TICKET_INVALID, Code.UNKNOWN_GROUP, Code.UNKNOWN_SHARE, Code.WITHDRAWN,
)  # fmt: skip
REFUSALS = (*(code.value for code in _REFUSALS), OTHER)
CONNECTION_RESULTS = ("up", "unreachable", "refused", "silent", "lost")

FAMILIES = (
    gauge("start_time_seconds", "Unix time at which the peer started"),
    gauge("tracker_connected", "1 while the peer is connected to its tracker"),
    gauge("downloads", "Downloads in the list, by state", state=DOWNLOAD_STATES),
    gauge("shares", "Shares that this device offers"),
    counter("received_bytes_total", "Bytes of pieces that arrived, by group", group=None),
    counter("sent_bytes_total", "Bytes of pieces that were sent, by group", group=None),
    counter(
        "pieces_received_total",
        "Pieces that arrived: written, wrong, had already, or not wanted",
        result=PIECE_RESULTS,
    ),
    counter(
        "pieces_served_total",
        "Pieces that other devices requested, by what became of it",
        outcome=("sent", "declined", "cancelled"),
    ),
    counter("downloads_finished_total", "Downloads that ended, by result", result=ENDS),
    histogram("download_duration_seconds", "Time that complete downloads took", DURATIONS_S),
    gauge("sources", "Sources of the running downloads, by verdict on them", verdict=VERDICTS),
    gauge("requesters", "Devices that fetched from here in the last 10 s"),
    gauge(
        "rate_limit_bytes_per_second",
        "Limit in force; 0 if there is none",
        direction=DIRECTIONS,
    ),
    counter(
        "throttled_seconds_total", "Time in which traffic waited for a limit", direction=DIRECTIONS
    ),
    counter(
        "disk_bytes_total",
        "Bytes of pieces that were read to serve them, written, or read to digest them",
        operation=("read", "write", "digest"),
    ),
    counter(
        "disk_errors_total",
        "Failed reads and writes of pieces: no space, a faulty device, or another error",
        error=DISK_ERRORS,
    ),
    counter(
        "refusals_total",
        "Channels that this peer refused or closed, by reason",
        reason=REFUSALS,
    ),
    counter(
        "connections_total",
        "Connections to sources, main (zmq) and bulk, by what became of them",
        transport=TRANSPORTS,
        result=CONNECTION_RESULTS,
    ),
    gauge("buffer_bytes", "Bytes of received pieces that wait to be written"),
    gauge("loop_lag_seconds", "Largest delay of a timer of the event loop in the last 15 s"),
    gauge(
        "ticket_expiry_timestamp_seconds",
        "Unix time at which the first ticket in use ends; 0 without tickets",
    ),
)
