"""Settings of serving, with the figures that simulation and measurement gave."""

from __future__ import annotations

from dataclasses import dataclass

from common.limits import KIB, MIB


@dataclass(frozen=True, slots=True)
class ServingSettings:
    """Settings of serving. Change a default only after a measurement."""

    queue_max: int = 4_096
    """Waiting requests of one requester."""
    queue_all_max: int = 262_144
    """Waiting requests of all requesters."""
    epoch_bytes: int = 4 * MIB
    """Bytes that one user may get ahead of another that waits."""
    in_flight_s: float = 0.05
    """The bytes that all requesters take in this time may be in flight; at least two pieces. Why
    more than `run_s`: if one message is lost, the next one shows the gap."""
    in_flight_max: int = 64 * MIB
    unacked_max: int = 256 * MIB
    """Unacknowledged bytes, with those of stalled requesters. One user may hold half of what the
    others leave."""
    stall_min_s: float = 0.5
    """Minimum stall timeout: with an acknowledgement overdue for longer, a requester's bytes do not
    count against others."""
    drop_after_s: float = 60.0
    """A requester with an acknowledgement overdue for this time is dropped, if others acknowledge
    meanwhile; otherwise after a multiple of it."""
    run_s: float = 0.02
    """Adjacent pieces go to a requester in one message if it takes them in this time. Why a bound:
    the requester cannot use the first before the last has arrived."""
    fast_uplink: int = 16 * MIB
    """Rate from which the pieces of a run that are requested together are sent together: to send
    them takes each peer the same work, whatever their number."""
    fast_run_s: float = 0.25
    """Instead of `run_s`, on a fast uplink: a peer that serves many gives each of them little."""
    notify_s: float = 0.01
    """A requester is told that a piece is on its way if it takes this time or longer. Why a bound:
    on faster links the piece arrives before anything could be decided by the notice."""
    frame_s: float = 1.0
    """Time that a frame may take, unless that needs too many frames."""
    frame_min: int = 64 * KIB
    blocked_s: float = 0.05
    """Delay before a full socket is tried again."""
    retry_after_s: float = 1.0
    """Delay that a declined requester is told if the queue is full."""
