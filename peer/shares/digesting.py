"""Digesting what is to be shared, on all cores, while the one who asked for it looks on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from common.digests import Algorithm
from common.host.clock import monotonic
from common.manifest import Manifest
from common.messages import control
from peer.files import sharing
from peer.files.fingerprint import SharedLocation
from peer.files.scanning import Scan

PROGRESS_INTERVAL_S = 0.1
Tell = Callable[[control.Progress], None]


@dataclass(slots=True)
class _State:
    done: int = 0
    cancelled: bool = False


R = TypeVar("R")
Work: TypeAlias = Callable[[sharing.Progress, Callable[[], bool]], R]
"""Long work on files: it tells the bytes that are done, and asks whether to stop."""


async def digest(
    scanned: Scan, algorithm: Algorithm, piece_length: int | None, times: bool, tell: Tell
) -> sharing.Digested:
    """The manifest of what was scanned. Cancelling this ends the digesting.

    Raises what `peer.files.sharing.digest_scanned` does.
    """

    def work(on_progress: sharing.Progress, cancelled: Callable[[], bool]) -> sharing.Digested:
        return sharing.digest_scanned(
            scanned,
            algorithm,
            piece_length,
            times=times,
            on_progress=on_progress,
            cancelled=cancelled,
        )

    return await _shown(work, scanned.size, tell)


async def verify(manifest: Manifest, scanned: Scan, tell: Tell) -> SharedLocation:
    """How what was scanned looks, if it is the content of a ``manifest`` with the same entries.

    Raises what `peer.files.sharing.verify` does.
    """

    def work(on_progress: sharing.Progress, cancelled: Callable[[], bool]) -> SharedLocation:
        return sharing.verify(
            manifest, scanned.place, whole=True, on_progress=on_progress, cancelled=cancelled
        )

    return await _shown(work, scanned.size, tell)


async def _shown(work: Work[R], total: int, tell: Tell) -> R:
    state = _State()

    def on_progress(done: int) -> None:
        state.done = done

    began = monotonic()
    task = asyncio.create_task(asyncio.to_thread(work, on_progress, lambda: state.cancelled))
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=PROGRESS_INTERVAL_S)
            rate = state.done / max(monotonic() - began, 1e-6)
            eta = (total - state.done) / rate if rate > 0 else None
            tell(control.Progress("digesting", state.done, total, rate, eta))
        return task.result()
    finally:
        state.cancelled = True
