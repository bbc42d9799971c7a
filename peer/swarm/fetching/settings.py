"""Settings of a download, with the figures that simulation and measurement gave."""

from __future__ import annotations

from dataclasses import dataclass

from common.limits import BUFFER_BYTES, MIB, SOURCES_MAX, SOURCES_USED
from peer.swarm.fetching.picker import Order


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """Settings of a download. Change a default only after a measurement."""

    order: Order = Order.RAREST
    buffer_bytes: int = BUFFER_BYTES
    """Bytes in flight or received and not yet verified, in all. One piece is always allowed."""
    fast_rate: int = 32 * MIB
    """Rate of all sources from which whole runs are requested: each decision and message is then
    for several pieces. Why a bound: on slower links single pieces arrive sooner to be passed on."""
    horizon_s: float = 2.0
    """A window holds the bytes that its source gives in this time."""
    known_max: int = SOURCES_MAX
    used_max: int = SOURCES_USED
    announce_batch_s: float = 0.05
    announce_fast_s: float = 0.1
    """The same for small pieces from `fast_rate` on: a message costs as much work as a piece."""
    open_timeout_s: float = 15.0
    settle_s: float = 10.0
    """Time for which a source must be open before it can be replaced."""
    review_s: float = 0.25
    """Interval of the review of all sources."""
    make_bytes: int = 8 * MIB
    """Bytes of local pieces that are made at the same time. One piece is always allowed."""
    storage_pause_s: float = 1.0
    """Time without requests after a piece could not be written."""
