"""Timers of the tracker: expiry of leases, beacons and housekeeping.

Owns: the rhythm. Not here: what is published (see tracker.service.publisher), and the decisions of
housekeeping (see tracker.core.commands).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from common import limits
from common.ids import DeviceKey
from tracker.core import commands
from tracker.core.context import Caller, Context, Now
from tracker.core.presence import SWEEP_S
from tracker.service.batch import Job
from tracker.service.deferred_tasks import DeferredTasks
from tracker.service.publisher import Publisher

log = logging.getLogger(__name__)


async def keep_time(
    context: Context,
    publisher: Publisher,
    deferred: DeferredTasks,
    enqueue: Callable[[Job], None],
    now: Callable[[], Now],
) -> None:
    """Expire leases, send beacons and queue housekeeping, until cancelled."""
    beat_at = tidy_at = now().mono_s
    while True:
        try:
            at = now()
            publisher.gather(context.presence.sweep(at.mono_s), at.mono_s)
            if at.mono_s >= beat_at:
                beat_at = at.mono_s + limits.BEACON_S
                publisher.beat(at)
            if at.mono_s >= tidy_at:
                tidy_at = at.mono_s + limits.HOUSEKEEPING_S
                deferred.tidy(at.mono_s)
                tracker_itself = Caller(DeviceKey(b""))
                enqueue(Job(tracker_itself, commands.Housekeep(), lambda *_: None))
        except Exception:
            log.exception("a timer of the tracker failed")
        await asyncio.sleep(SWEEP_S)
