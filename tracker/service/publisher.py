"""What the tracker tells by itself: entries, nudges, changes of swarms, beats.

Owns their order and when they go out. Nothing is said of what may yet be lost (`Publishing.held`),
a great deal is said in stretches between which others have their turn, and the sign of life waits
for nothing but the event loop. What there is to tell is gathered in ``tracker.core.outbox``;
sockets are ``tracker.service.sockets``'s.
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

TOLD_AT_ONCE = 256  # some milliseconds of sealing
TOLD_SHARE = 16  # of more than that a part goes out at once, so that it does not grow for ever


class Publisher:
    """``publish`` sends; ``wake`` is called when `go_on` has to be."""

    def __init__(
        self, context: Context, publish: Callable[[Outgoing], None], wake: Callable[[], None]
    ) -> None:
        self._context = context
        self._publish = publish
        self._wake = wake
        self._outbox = Outbox()
        self._waiting: deque[Outgoing] = deque()
        self._told = 0  # in this stretch
        self._held = False
        self._heads_due = False
        self._flush: asyncio.TimerHandle | None = None
        self._flush_at = 0.0

    @property
    def waits(self) -> bool:
        """Whether something was too much for one stretch."""
        return bool(self._waiting)

    @property
    def flush_at(self) -> float | None:
        """When changes of swarms are to be told; None while there are none."""
        return self._outbox.flush_at

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While the mirror is ahead of the database, what is read from it is not told."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    # -- what there is to tell ------------------------------------------------------------------

    def tell(self, decision: Decision, now: Now) -> None:
        """What follows from a decision, once its changes are durable."""
        state, presence = self._context.state, self._context.presence
        for outgoing in self._outbox.told(decision.changes, now.mono_s):
            self._say(outgoing)
        self.gather(presence.follow(state, decision.changes), now.mono_s)
        for notice in decision.notices:
            match notice:
                case Nudge():
                    self._say(nudge(self._context.facts, notice))
                case RenewLease(device, user, endpoint, leeching, instance):
                    now_s = now.mono_s
                    self.gather(
                        presence.announce(state, device, user, endpoint, leeching, now_s, instance),
                        now_s,
                    )
                case ReleaseLease(device):
                    self.gather(presence.depart(device), now.mono_s)
                case _:
                    assert_never(notice)

    def gather(self, changes: list[SwarmChange], now: float) -> None:
        """Changes of swarms, to be told when they are due."""
        if changes:
            self._outbox.gather(changes, self._context.presence, now)
            self._schedule_flush(now)

    def beat(self, now: Now) -> None:
        """The sign of life, and as soon as that is known the heads of the active groups."""
        self._publish(self._outbox.beat(self._context.facts, now))
        self._heads_due = True
        if not self._held:
            self._tell_heads(now.mono_s)

    # -- telling it -----------------------------------------------------------------------------

    def go_on(self, now: float) -> None:
        """The next stretch, and what came due while that was held."""
        self._told = 0
        for _ in range(self._stretch()):
            self._publish(self._waiting.popleft())
        if self._heads_due:
            self._tell_heads(now)
        self._flush_due(now)

    def close(self) -> None:
        """Tell the rest of what was begun."""
        if self._flush is not None:
            self._flush.cancel()
        while self._waiting:
            self._publish(self._waiting.popleft())

    def _stretch(self) -> int:
        return min(len(self._waiting), max(TOLD_AT_ONCE, len(self._waiting) // TOLD_SHARE))

    def _say(self, outgoing: Outgoing) -> None:
        if self._waiting or self._told >= TOLD_AT_ONCE:
            self._waiting.append(outgoing)
            self._wake()
        else:
            self._told += 1
            self._publish(outgoing)

    def _tell_heads(self, now: float) -> None:
        self._heads_due = False
        for outgoing in self._outbox.heads(self._context.state, now):
            self._say(outgoing)

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
        if not self._held:  # else it is due when the batch is settled
            # The loop's timers may fire a little early; what is due then is told all the same.
            self._flush_due(max(monotonic(), self._flush_at))

    def _flush_due(self, now: float) -> None:
        flush_at = self._outbox.flush_at
        if flush_at is None or flush_at > now:
            return
        for outgoing in self._outbox.flush(self._context.state, self._context.rng, now):
            self._say(outgoing)
        self._schedule_flush(now)
