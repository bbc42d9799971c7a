"""Downloads as the command line shows them."""

from __future__ import annotations

import errno
import os
import stat

from common import limits
from common.messages import control
from peer.downloads.job import DownloadJob
from peer.downloads.transfer import STORAGE_RETRY_S
from peer.records import DownloadRecord
from peer.swarm.fetching.progress import Progress, SourceProgress
from peer.swarm.fetching.sources import Phase


def download_row(entry: DownloadJob) -> control.DownloadRow:
    """A row of ``show-downloads``."""
    record, running = entry.record, entry.running
    verified, rate, eta, sources, reason = 0, 0.0, None, 0, record.reason
    if record.state == "C":
        verified, eta = record.size, 0.0
    elif running is not None:
        progress = running.progress()
        verified = progress.held_bytes
        # A connection that is kept open while it rests is no source, and what came a moment ago
        # says nothing of what is to come when nobody gives any more.
        if record.state == "D" and progress.sources_used:
            sources, rate, eta = progress.sources_used, progress.rate, progress.eta_s
        elif record.state == "D" and progress.complete:
            eta = 0.0
        else:
            reason = reason or _why_nobody(entry, progress)
    else:
        verified = entry.held_bytes
    if entry.place is not None and entry.waits:
        reason = queued_text(entry.place)
    state = record.state
    if state == "C" and entry.missing is not None:
        state, reason, verified, eta = "F", entry.missing, 0, None
    return control.DownloadRow(
        # A download of the queue is one that is wanted: for people it rests.
        state="P" if entry.waits else state,
        group=record.group,
        name=record.name,
        path=shown_path(entry.path),
        size=record.size,
        verified=verified,
        rate=rate,
        eta_s=eta,
        sources=sources,
        reason=reason,
    )


def missing_text(record: DownloadRecord) -> str | None:
    """Why a complete download is not what stands on the disk; None when it seems to be. Blocks."""
    path = os.fsdecode(record.path)
    try:
        status = os.lstat(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return "what was downloaded is no longer there"
        return f"what was downloaded cannot be reached: {error.strerror}"
    if stat.S_ISREG(status.st_mode) and status.st_size != record.size:
        return "what was downloaded was changed since"
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return "something else stands where it was downloaded to"
    return None


def queued_text(place: int) -> str:
    """The reason of a download that waits for its turn."""
    most = limits.DOWNLOADS_AT_ONCE
    return (
        f"{control.QUEUED}, number {place:,} in line: {most} downloads run at once, "
        "and it starts when one of them ends"
    )


def _why_nobody(entry: DownloadJob, progress: Progress) -> str | None:
    """Why no source will give anything, unless one that is not known yet comes."""
    if entry.unshared:
        return "nobody shares it any more"
    if progress.sources and all(source.phase is Phase.BANNED for source in progress.sources):
        return "every source sent wrong pieces and is banned"
    return None


def progress_of(entry: DownloadJob, user: str | None) -> control.Progress:
    """What a waiting command is told of the download, while ``user`` is logged in."""
    row = download_row(entry)
    stage, advice, note = "downloading", None, row.reason
    if user != entry.record.user:
        stage, note = "waiting", f"{entry.record.user} was logged out"
        advice = f"it continues when {entry.record.user} logs in again on this device"
    elif entry.waits:
        stage = control.QUEUED
    elif row.state == "P":
        stage, advice = "waiting", _advice_for_rest(entry)
    elif entry.running is not None and entry.running.copying:
        stage = "copying what this device has"
    elif row.size and row.verified == row.size:
        stage = "checking"
    elif row.sources == 0:
        note, advice = _no_source(entry, note)
    elif entry.running is not None and entry.running.progress().throttled and not row.rate:
        note = "waiting for the limit on downloads"
    return control.Progress(
        stage, row.verified, row.size, row.rate, row.eta_s, row.sources, note, advice
    )


def _advice_for_rest(entry: DownloadJob) -> str | None:
    if entry.record.by_user:
        return "`resume` continues it"
    if entry.running is not None:  # a disk that takes nothing is tried again
        return f"it is tried again every {STORAGE_RETRY_S:.0f} s, and continues by itself"
    return "it continues by itself when the tracker lets it"


def _no_source(entry: DownloadJob, reason: str | None) -> tuple[str, str]:
    """Why nothing comes, and what would help."""
    if reason is not None:
        return reason, "it continues when a member of the group shares it again"
    if entry.running is not None and entry.running.progress().sources:
        return (
            "no source answers yet",
            "check that the devices that have it run and can be reached from here",
        )
    return (
        "no device that has it is online",
        "it continues by itself when one of them is online again",
    )


def source_rows(entry: DownloadJob) -> list[control.SourceRow]:
    """The rows of ``why-slow``: what each source of a running download does."""
    running = entry.running
    if running is None:
        return []
    rows = []
    progress = running.progress()
    for source in progress.sources:
        known = running.known(source.source)
        rows.append(
            control.SourceRow(
                user=source.user,
                endpoint=known.endpoint if known else "",
                complete=source.complete,
                rate=source.rate,
                pieces=source.pieces,
                in_flight=source.asked,
                verdict=_verdict(source, progress),
            )
        )
    return rows


def _verdict(source: SourceProgress, progress: Progress) -> str:
    """What is to be said of a source; first of all when it is not to blame."""
    if progress.paused:
        return "paused"
    if source.phase is Phase.OPEN and progress.throttled and not source.asked:
        return "open, waits for the limit on downloads"
    if source.phase is Phase.OPEN and source.stalled and source.asked:
        return "open, silent"
    verdict = source.verdict.value if source.verdict is not None else "good"
    note = f": {source.note}" if source.note else ""
    return f"{source.phase.name.lower()}, {verdict}{note}"


def downloaded(entry: DownloadJob) -> control.Downloaded:
    """What a finished download ends with."""
    record = entry.record
    rate = record.size / record.elapsed_s if record.elapsed_s > 0 else 0.0
    return control.Downloaded(
        name=record.name,
        path=shown_path(entry.path),
        size=record.size,
        digest=record.digest,
        elapsed_s=record.elapsed_s,
        rate=rate,
        sources=record.sources,
    )


def shown_path(path: str) -> str:
    """``path`` as text that can be sent: not every path on a disk is UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
