"""What may be chosen about the swarm core, with the figures that simulation and measurement gave.

Owns the numbers and their units; what they do is told where they are used.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.limits import BUFFER_BYTES, KIB, MIB, SOURCES_MAX, SOURCES_USED
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


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """What may be chosen for serving. The defaults are right unless something is measured."""

    queue_max: int = 4_096
    """Requests that wait for one requester."""
    queue_all_max: int = 262_144
    """Requests that wait in all."""
    epoch_bytes: int = 4 * MIB
    """How far one user may get ahead of another who waits."""
    in_flight_s: float = 0.05
    """What all requesters take in this time may be on its way, and two pieces at least."""
    in_flight_max: int = 64 * MIB
    owed_max: int = 256 * MIB
    """Bytes on their way in all, those to stalled requesters included; to one user half of that,
    and less where others owe much."""
    stall_min_s: float = 0.5
    """A requester that owes credit for so long does not count against the others."""
    drop_after_s: float = 60.0
    """A requester that owes credit for so long is dropped, if others credit meanwhile; else after
    some times as long."""
    run_s: float = 0.02
    """Adjacent pieces go to a requester in one message when it takes no longer for them: it can
    make nothing of the first before the last has come."""
    frame_s: float = 1.0
    """A frame takes no longer than this, if there need not be too many of them."""
    frame_min: int = 64 * KIB
    blocked_s: float = 0.05
    """When to try a full socket again."""
    retry_after_s: float = 1.0
    """What is told to those for whom the queue is full."""
