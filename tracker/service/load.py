"""Load of a tracker: its counts for the operator's page, taken when they are asked for."""

from __future__ import annotations

from common import limits
from common.host.clock import monotonic
from common.messages.operator import LoadIs
from common.units import rfc3339
from tracker.core.presence import rates_of
from tracker.metrics.readings import TrackerMetrics
from tracker.service.meter import DURATIONS_S, OUTCOMES, READ, WRITE
from tracker.service.operator_socket import RunInfo
from tracker.service.sockets import Server


def load_of(server: Server, facts: RunInfo, metrics: TrackerMetrics) -> LoadIs:
    """Return the counts of a tracker that serves, as they are now."""
    loop = server.command_loop
    assert loop is not None
    meter, (queue, writable) = loop.meter, loop.load()
    commands = dict.fromkeys(OUTCOMES, 0)
    for (_, outcome), count in meter.commands.items():
        commands[outcome] += count
    reads, writes = (meter.durations[kind].cumulated() for kind in (READ, WRITE))
    leases = loop.context.presence.leases
    elsewhere = loop.context.fellows.rates
    received, sent = map(sum, zip(rates_of(leases.values()), elsewhere, strict=True))
    backed_up_at = metrics.backed_up_at()
    return LoadIs(
        uptime_s=round(monotonic() - facts.began_at, 3),
        commands=commands,
        logins=dict(meter.logins),
        bounds_s=list(DURATIONS_S),
        durations=[sum(both) for both in zip(reads, writes, strict=True)],
        commits=meter.commits.count,
        commits_s=meter.commits.sum,
        commit_changes=meter.batch_size,
        queue=queue,
        writable=writable,
        loop_lag_s=metrics.lag.seconds,
        database_bytes=metrics.database_bytes(),
        backup=rfc3339(round(backed_up_at * 1000)) if backed_up_at else None,
        events=server.published,
        tickets=server.tickets_signed,
        refusals=dict(server.turned_away()),
        devices_online=len(leases),
        received_bytes_per_s=min(received, limits.COUNT_MAX),
        sent_bytes_per_s=min(sent, limits.COUNT_MAX),
    )
