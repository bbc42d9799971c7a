"""Settings of a download, with the figures that simulation and measurement gave."""

from __future__ import annotations

from dataclasses import dataclass

from common.limits import BUFFER_BYTES, MIB, SOURCES_MAX, SOURCES_USED
from peer.swarm.fetching.picker import Order


@dataclass(frozen=True, slots=True)
class DownloadSettings:
    """What may be chosen for a download. The defaults are right unless something is measured."""

    order: Order = Order.RAREST
    buffer_bytes: int = BUFFER_BYTES
    """Asked for, received and not yet verified, in all; at least one piece is always asked for."""
    horizon_s: float = 2.0
    """A window holds what its source gives in this time."""
    known_max: int = SOURCES_MAX
    used_max: int = SOURCES_USED
    announce_batch_s: float = 0.05
    open_timeout_s: float = 15.0
    settle_s: float = 10.0
    """A source is not replaced before it was open for so long."""
    look_s: float = 0.25
    """How often sources are judged and idle ones looked after."""
    make_bytes: int = 8 * MIB
    """Made or copied at once of what need not be fetched; at least one piece."""
    storage_pause_s: float = 1.0
    """After a piece could not be written, nothing is asked for that long."""
