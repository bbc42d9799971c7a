"""Publisher of what the tracker sends by itself: log entries, nudges, swarm updates, beacons.

Owns: the order of publications and the time at which each leaves. Not here: what is published (see
tracker.core.outbox) and sockets (see tracker.service.sockets).

Invariant: nothing leaves that a failed commit could roll back (`Publisher.paused`). Many messages
leave in slices, between which the event loop serves others. The beat waits for the event loop only.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from typing import assert_never

from common.host.clock import monotonic
from tracker.core.context import Context, Decision, Now, Nudge, ReleaseLease, RenewLease
from tracker.core.outbox import Outbox, Outgoing, nudge
from tracker.core.presence import SwarmChange
from tracker.core.state import State

SLICE_MESSAGES = 256  # some milliseconds of sealing
SLICE_SHARE = 16  # a longer backlog leaves by a 16th a slice, so that it cannot grow without bound


class Publisher:
    """Sends by ``send``; calls ``wake`` when `next_slice` is needed."""

    def __init__(
        self, context: Context, send: Callable[[Outgoing], None], wake: Callable[[], None]
    ) -> None:
        self._context = context
        self._send = send
        self._wake = wake
        self._outbox = Outbox()
        self._waiting: deque[Outgoing] = deque()
        self._sent = 0  # in this slice
        self._paused = False
        self._heads_due = False
        self._flush: asyncio.TimerHandle | None = None
        self._flush_at = 0.0

    @property
    def waits(self) -> bool:
        """Whether messages are left for the next slice."""
        return bool(self._waiting)

    @property
    def flush_at(self) -> float | None:
        """Time at which changes of swarms are due; None while there are none."""
        return self._outbox.flush_at

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Publish nothing that is read from the mirror while it is ahead of the database."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    # -- sources ---------------------------------------------------------------------------------

    def publish(self, decision: Decision, now: Now) -> None:
        """Publish what follows from a decision. Its changes must be durable."""
        state, presence = self._context.state, self._context.presence
        for outgoing in self._outbox.log_entries(decision.changes, now.mono_s):
            self._send_or_queue(outgoing)
        self.gather(presence.follow(state, decision.changes), now.mono_s)
        for effect in decision.effects:
            match effect:
                case Nudge():
                    self._send_or_queue(nudge(self._context.identity, effect))
                case RenewLease(device, user, endpoint, leeching, instance, rates, elsewhere):
                    now_s = now.mono_s
                    if elsewhere:
                        self._context.fellows.sent_away(now_s)
                    self.gather(
                        presence.announce(
                            state,
                            device,
                            user,
                            endpoint,
                            leeching,
                            now_s,
                            instance,
                            rates,
                            now.wall_ms,
                        ),
                        now_s,
                    )
                case ReleaseLease(device):
                    self.gather(presence.depart(device), now.mono_s)
                case _:
                    assert_never(effect)

    def gather(self, changes: list[SwarmChange], now: float) -> None:
        """Add changes of swarms, to be published when they are due."""
        if changes:
            self._outbox.gather(changes, self._context.presence, now)
            self._schedule_flush(now)

    def reloaded(self, before: State, now: float) -> None:
        """Publish what changed while the state was not followed: it was ``before`` then.

        Heads tell members of the entries that they missed.
        """
        state = self._context.state
        self.gather(self._context.presence.rebuild(state), now)
        for group in state.groups.values():
            known = before.groups.get(group.id)
            if known is None or known.seq != group.seq:
                self._outbox.activate(group.id, now)

    def beat(self, now: Now) -> None:
        """Send the beat at once, and the heads of active groups unless paused."""
        self._send(self._outbox.beat(self._context.identity, now, self._context.fellows.cut_off))
        self._heads_due = True
        if not self._paused:
            self._send_heads(now.mono_s)

    # -- sending -------------------------------------------------------------------------------

    def next_slice(self, now: float) -> None:
        """Send the next slice, and what came due during the pause."""
        self._sent = 0
        for _ in range(self._slice()):
            self._send(self._waiting.popleft())
        if self._heads_due:
            self._send_heads(now)
        self._flush_due(now)

    def close(self) -> None:
        """Send the backlog."""
        if self._flush is not None:
            self._flush.cancel()
        while self._waiting:
            self._send(self._waiting.popleft())

    def _slice(self) -> int:
        return min(len(self._waiting), max(SLICE_MESSAGES, len(self._waiting) // SLICE_SHARE))

    def _send_or_queue(self, outgoing: Outgoing) -> None:
        if self._waiting or self._sent >= SLICE_MESSAGES:
            self._waiting.append(outgoing)
            self._wake()
        else:
            self._sent += 1
            self._send(outgoing)

    def _send_heads(self, now: float) -> None:
        self._heads_due = False
        for outgoing in self._outbox.heads(self._context.state, now):
            self._send_or_queue(outgoing)

    def _schedule_flush(self, now: float) -> None:
        flush_at = self._outbox.flush_at
        if flush_at is not None and (self._flush is None or flush_at < self._flush_at):
            if self._flush is not None:
                self._flush.cancel()
            self._flush_at = flush_at
            delay = max(0.0, flush_at - now)
            self._flush = asyncio.get_running_loop().call_later(delay, self._flush_now)

    def _flush_now(self) -> None:
        self._flush = None
        if not self._paused:  # else `next_slice` does it
            # The event loop's timers may fire a little early.
            self._flush_due(max(monotonic(), self._flush_at))

    def _flush_due(self, now: float) -> None:
        flush_at = self._outbox.flush_at
        if flush_at is None or flush_at > now:
            return
        for outgoing in self._outbox.flush(self._context.state, self._context.rng, now):
            self._send_or_queue(outgoing)
        self._schedule_flush(now)
