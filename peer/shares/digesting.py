"""Digesting what is to be shared, on all cores, while the one who asked for it looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from common.clock import monotonic
from common.digests import Algorithm
from common.messages import control
from peer.files import sharing

PROGRESS_INTERVAL_S = 0.1
Tell = Callable[[control.Progress], None]


@dataclass(slots=True)
class _State:
    done: int = 0
    cancelled: bool = False


async def digest(
    scanned: sharing.Scan, algorithm: Algorithm, piece_length: int | None, tell: Tell
) -> sharing.Digested:
    """The manifest of what was scanned. Cancelling this ends the digesting.

    Raises what `peer.files.sharing.digest_scanned` does.
    """
    state = _State()

    def on_progress(done: int) -> None:
        state.done = done

    def job() -> sharing.Digested:
        return sharing.digest_scanned(
            scanned,
            algorithm,
            piece_length,
            on_progress=on_progress,
            cancelled=lambda: state.cancelled,
        )

    began, total = monotonic(), scanned.size
    task = asyncio.create_task(asyncio.to_thread(job))
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=PROGRESS_INTERVAL_S)
            rate = state.done / max(monotonic() - began, 1e-6)
            eta = (total - state.done) / rate if rate > 0 else None
            tell(control.Progress("digesting", state.done, total, rate, eta))
        return task.result()
    finally:
        state.cancelled = True
