"""Traffic of pieces of this device: its rates in both directions."""

from __future__ import annotations

from collections.abc import Iterable

from common.host.clock import monotonic
from peer.serving.meter import ServingMeter
from peer.swarm.fetching.progress import Progress


def rates(downloads: Iterable[Progress], meter: ServingMeter) -> tuple[float, float]:
    """Return the bytes a second that downloads receive, and those that are sent."""
    return sum(each.rate for each in downloads), meter.rate(monotonic())
