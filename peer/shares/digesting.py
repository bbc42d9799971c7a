"""Digesting of files to share: on all cores, with progress for the waiting command."""

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
Report = Callable[[control.Progress], None]


@dataclass(slots=True)
class _State:
    done: int = 0
    cancelled: bool = False


R = TypeVar("R")
Work: TypeAlias = Callable[[sharing.Progress, Callable[[], bool]], R]
"""Long work on files: it reports the bytes that are done, and checks whether to stop."""


async def digest(
    scanned: Scan, algorithm: Algorithm, piece_length: int | None, times: bool, report: Report
) -> sharing.Digested:
    """The manifest of scanned files. Cancelling ends the digesting.

    Raises the errors of `peer.files.sharing.digest_scanned`.
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

    return await with_progress(work, scanned.size, report)


async def verify(manifest: Manifest, scanned: Scan, report: Report) -> SharedLocation:
    """The location of scanned files that are the content of ``manifest``.

    Raises the errors of `peer.files.sharing.verify`.
    """

    def work(on_progress: sharing.Progress, cancelled: Callable[[], bool]) -> SharedLocation:
        return sharing.verify(
            manifest, scanned.place, whole=True, on_progress=on_progress, cancelled=cancelled
        )

    return await with_progress(work, scanned.size, report)


async def with_progress(work: Work[R], total: int, report: Report, stage: str = "digesting") -> R:
    """The result of ``work``, which runs on a thread, with reports of its progress. Cancelling ends
    it."""
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
            report(control.Progress(stage, state.done, total, rate, eta))
        return task.result()
    finally:
        state.cancelled = True
