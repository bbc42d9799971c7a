"""Families of metrics of a tracker, ``minitorrent_tracker_…``.

Not here: their values (see tracker.metrics.readings). Never a label: user, device, group, share.
"""

from __future__ import annotations

from typing import get_args

from common.messages import tracker
from common.metrics.families import counter, gauge, histogram
from tracker.service.meter import CLASSES, DURATIONS_S, LOGINS, OUTCOMES

PROGRAM = "tracker"
COMMANDS = tuple(kind.__name__ for kind in get_args(tracker.Command))
HEALTHY, SINGLE, UNSEEDED = "healthy", "single_seeder", "unseeded"

FAMILIES = (
    gauge("start_time_seconds", "Unix time at which the tracker started"),
    gauge("writable", "1 while the database can be written, 0 after a failure"),
    gauge("users", "Accounts"),
    gauge("devices", "Devices that are logged in", state=("online", "offline")),
    gauge("groups", "Groups"),
    gauge("shares", "Shares in all groups"),
    gauge(
        "shares_by_health",
        "Shares with several devices online that hold them whole, with one, and with none",
        health=(HEALTHY, SINGLE, UNSEEDED),
    ),
    gauge("swarm_members", "Devices online in swarms, by what they do", role=("seeder", "leecher")),
    gauge("share_bytes", "Bytes of all contents that are known"),
    counter(
        "commands_total",
        "Commands of devices, by outcome",
        command=COMMANDS,
        outcome=OUTCOMES,
    ),
    histogram(
        "command_duration_seconds",
        "Time from a command to its reply; logins hash a password",
        DURATIONS_S,
        **{"class": CLASSES},
    ),
    histogram("commit_duration_seconds", "Time of a commit of the database", DURATIONS_S),
    gauge("commit_batch_size", "Changes in the last commit"),
    counter(
        "handshakes_total",
        "Handshakes of connections, by result",
        result=("admit", "retry", "deny", "failures"),
    ),
    counter(
        "rejected_messages_total",
        "Messages that were dropped before they were commands, by reason",
        reason=("malformed", "version", "too_fast", "anonymous"),
    ),
    counter("events_published_total", "Messages that were published to subscribers"),
    counter("event_catchups_total", "Requests for events that a peer has missed"),
    counter("tickets_signed_total", "Tickets that were signed"),
    counter("logins_total", "Logins with a password, by result", result=LOGINS),
    gauge("queue_length", "Commands that wait for their decision"),
    gauge("loop_lag_seconds", "Largest delay of a timer of the event loop in the last 15 s"),
    gauge("database_bytes", "Size of the database with its journal"),
    gauge(
        "last_backup_timestamp_seconds",
        "Unix time of the last backup by the command; 0 if there was none",
    ),
)
