"""Wait for the end of a download, with reports of its progress."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping

from common.errors import Refused, StorageError, TimedOut
from common.hints import hint
from common.host.clock import monotonic
from common.messages import control
from common.messages.refusals import Code
from common.names import quoted
from peer.downloads.job import DownloadJob
from peer.downloads.views import downloaded, progress_of
from peer.records import DownloadState

REPORT_INTERVAL_S = 0.2
REPORT_QUEUED_S = 5.0  # thousands of commands may wait for queued downloads


async def wait_for_end(
    jobs: Mapping[str, DownloadJob],
    key: str,
    report: Callable[[control.Progress], None],
    current_user: Callable[[], str | None],
    timeout_s: float | None,
) -> control.Downloaded:
    """Wait for the end of the download ``key``, and report its progress.

    Raises the error of a failed download, `Refused` if it was cancelled, and `TimedOut` after
    ``timeout_s``: the download goes on then.
    """
    began = monotonic()
    job = jobs.get(key)
    while job is not None:
        # The state comes first: a complete download may have left the list already.
        if job.complete:
            return downloaded(job)
        if job.record.state == DownloadState.FAILED:
            raise job.error or StorageError(job.record.reason or "the download failed")
        report(progress_of(job, current_user()))
        pause_s = REPORT_INTERVAL_S if job.position is None else REPORT_QUEUED_S
        if timeout_s is not None:
            left_s = began + timeout_s - monotonic()
            if left_s <= 0:
                raise _timed_out(job)
            pause_s = min(pause_s, left_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(job.changed.wait(), pause_s)
        if not job.complete:
            job = jobs.get(key)
    raise Refused(Code.CANCELLED, "the download was cancelled")


def _timed_out(job: DownloadJob) -> TimedOut:
    record = job.record
    return TimedOut(
        f"download {quoted(record.name)}: timed out; it goes on in the background",
        hint("to stop it", "cancel", record.group, record.name),
    )
