"""Settings of serving, with the figures that simulation and measurement gave."""

from __future__ import annotations

from dataclasses import dataclass

from common.limits import KIB, MIB


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
