"""Tasks of downloads: their cancellation, and steps that a cancellation must not cut short."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from peer.downloads.job import DownloadJob


async def uncancelled(step: Awaitable[None]) -> None:
    """Wait for ``step`` even if this task is cancelled: the next step needs it to have ended."""
    running, cancelled = asyncio.ensure_future(step), False
    while not running.done():
        try:
            await asyncio.wait({running})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    running.result()


async def cancel_task(job: DownloadJob) -> None:
    """Cancel the task that works on a job, and wait for its end."""
    task, job.task = job.task, None
    if task is not None:
        task.cancel()
        await asyncio.wait({task})
