"""Downloads as the command line shows them."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

from common import limits
from common.crypto.keys import key_text, short_id
from common.messages import control
from peer.downloads.job import DownloadJob
from peer.downloads.piece_writer import STORAGE_RETRY_S
from peer.downloads.states import Copying
from peer.downloads.transfer import Transfer
from peer.files.fingerprint import SharedLocation
from peer.records import DownloadRecord, DownloadState, ShareRecord
from peer.swarm.fetching.progress import PAUSED, THROTTLED, UNUSED, Progress, SourceProgress
from peer.swarm.fetching.sources import Phase

_STATES = {
    DownloadState.ACTIVE: control.DOWNLOADING,
    DownloadState.COMPLETE: control.COMPLETE,
    DownloadState.PAUSED: control.PAUSED,
    DownloadState.FAILED: control.FAILED,
}
_THROTTLED = "waits for the limit on downloads"


def download_row(job: DownloadJob) -> control.DownloadRow:
    """A row of ``show-downloads``."""
    record, transfer = job.record, job.transfer
    size = record.size
    verified, rate, eta, reason = job.verified_bytes, 0.0, None, record.reason
    sources: list[control.SourceEnd] = []
    if job.complete:
        eta = 0.0
    elif transfer is not None:
        progress = transfer.progress()
        size = progress.size
        # An idle connection is no source, and the last rate predicts nothing once no source
        # gives anything.
        if record.state == DownloadState.ACTIVE and progress.sources_used:
            sources, rate, eta = _used(transfer), progress.rate, progress.eta_s
        elif record.state == DownloadState.ACTIVE and progress.complete:
            eta = 0.0
        else:
            reason = reason or _why_no_source(job, progress)
    if job.position is not None and job.waits:
        reason = queued_text(job.position)
    state = record.state
    if job.complete and job.missing is not None:
        state, reason, verified, eta = DownloadState.FAILED, job.missing, 0, None
    return control.DownloadRow(
        # The record of a queued download says D; users see it paused.
        state=_STATES[DownloadState.PAUSED if job.waits else DownloadState(state)],
        group=record.group,
        name=record.name,
        path=shown_path(job.path),
        size_bytes=size,
        verified_bytes=verified,
        rate_bytes_per_s=rate,
        eta_s=eta,
        sources=sources,
        reason=reason,
        version=record.version,
        files=record.files,
    )


def _used(transfer: Transfer) -> list[control.SourceEnd]:
    """The sources with an open connection, as far as they are listed."""
    listed = [
        transfer.listed(source.source)
        for source in transfer.progress().sources
        if source.phase is Phase.OPEN
    ]
    return [control.SourceEnd(one.user, one.endpoint) for one in listed if one is not None]


def missing_text(record: DownloadRecord) -> str | None:
    """The reason why a complete download is no longer on the disk; None if it is. Blocks."""
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


def queued_text(position: int) -> str:
    """The reason of a download that waits for its turn."""
    most = limits.DOWNLOADS_AT_ONCE
    return (
        f"{control.QUEUED}, number {position:,} in line: {most} downloads run at once, "
        "and it starts when one of them ends"
    )


def _why_no_source(job: DownloadJob, progress: Progress) -> str | None:
    """The reason why no known source will give anything; None if one may."""
    if job.unshared:
        return "it is no longer shared"
    if progress.sources and all(source.phase is Phase.BANNED for source in progress.sources):
        return "every source sent wrong pieces and is banned"
    return None


def progress_of(job: DownloadJob, user: str | None) -> control.Progress:
    """The progress that a waiting command shows, while ``user`` is logged in."""
    row = download_row(job)
    stage, advice, note = "downloading", None, row.reason
    if user != job.record.user:
        stage, note = "waiting", f"{job.record.user} was logged out"
        advice = f"it continues when {job.record.user} logs in again on this device"
    elif job.waits:
        stage = control.QUEUED
    elif row.state == control.PAUSED:
        stage, advice = "waiting", _advice_for_rest(job)
    elif job.record.in_place:
        stage, note = "checking", None
    elif _copies(job):
        stage = "copying what this device has"
    elif row.size_bytes and row.verified_bytes == row.size_bytes:
        stage = "checking"
    elif not row.sources:
        note, advice = _no_source(job, note)
    elif (
        job.transfer is not None and job.transfer.progress().throttled and not row.rate_bytes_per_s
    ):
        note = "waiting for the limit on downloads"
    return control.Progress(
        stage,
        row.verified_bytes,
        row.size_bytes,
        row.rate_bytes_per_s,
        row.eta_s,
        len(row.sources),
        note,
        advice,
    )


def _copies(job: DownloadJob) -> bool:
    """Whether it takes pieces from this device now."""
    return isinstance(job.state, Copying) or (job.transfer is not None and job.transfer.copying)


def _advice_for_rest(job: DownloadJob) -> str | None:
    if job.by_user:
        return "`resume` continues it"
    if job.transfer is not None:  # a disk that takes nothing is tried again
        return f"it is tried again every {STORAGE_RETRY_S:.0f} s, and continues by itself"
    return "it continues by itself when the tracker lets it"


def _no_source(job: DownloadJob, reason: str | None) -> tuple[str, str]:
    """The reason why nothing arrives, and advice."""
    if reason is not None:
        return reason, "it continues when a member of the group shares it again"
    if job.transfer is not None and job.transfer.progress().sources:
        return (
            "no source answers yet",
            "check that the devices that have it run and can be reached from here",
        )
    return (
        "no device that has it is online",
        "it continues by itself when one of them is online again",
    )


def piece_map_of(job: DownloadJob) -> control.PieceMapIs:
    """The pieces of a running download; no cells while it has no transfer."""
    return control.PieceMapIs([] if job.transfer is None else [*job.transfer.piece_map()])


def source_rows(job: DownloadJob) -> list[control.SourceRow]:
    """The rows of ``why-slow``: the sources of a running download."""
    transfer = job.transfer
    if transfer is None:
        return []
    rows = []
    progress = transfer.progress()
    for source in progress.sources:
        listed = transfer.listed(source.source)
        rows.append(
            control.SourceRow(
                user=source.user,
                endpoint=listed.endpoint if listed else "",
                complete=source.complete,
                rate_bytes_per_s=source.rate,
                pieces=source.pieces,
                in_flight=source.in_flight,
                verdict=_verdict(source, progress),
                device=key_text(source.source),
                id=short_id(source.source),
            )
        )
    return rows


def rest_reason(jobs: Sequence[DownloadJob]) -> str | None:
    """The reason why the first of ``jobs`` rests; None if it runs."""
    row = download_row(jobs[0])
    return row.reason or "`resume` continues it" if row.state == control.PAUSED else None


def _verdict(source: SourceProgress, progress: Progress) -> str:
    """The state of a source in words: of its connection, the verdict on it, and its explanation."""
    verdict = progress.verdict_on(source)
    if verdict == PAUSED:
        return verdict
    if source.phase is Phase.OPEN:
        return f"open, {_THROTTLED if verdict == THROTTLED else verdict}"
    if verdict == UNUSED:
        return "opening" if source.phase is Phase.OPENING else verdict
    phase = "closed" if source.phase is Phase.IDLE else source.phase.value
    return f"{phase}, {verdict}: {source.note}" if source.note else f"{phase}, {verdict}"


def copy_of(job: DownloadJob) -> ShareRecord:
    """A complete download as a share, without the fingerprints of its files."""
    record = job.record
    return ShareRecord(
        user=record.user,
        group=record.group,
        name=record.name,
        content=record.content,
        place=SharedLocation(record.path, ()),
        version=record.version,
    )


def downloaded(job: DownloadJob) -> control.Downloaded:
    """The result of a finished download."""
    record = job.record
    rate = record.size / record.elapsed_s if record.elapsed_s > 0 else 0.0
    return control.Downloaded(
        group=record.group,
        name=record.name,
        path=shown_path(job.path),
        size_bytes=record.size,
        algorithm=record.algorithm,
        digest=record.digest,
        elapsed_s=record.elapsed_s,
        rate_bytes_per_s=rate,
        fetched_bytes=record.fetched_bytes,
        # The pieces of a selection hold bytes of other files too.
        reused_bytes=max(0, record.size - record.fetched_bytes),
        sources=[control.SourceUse(use.user, use.endpoint, use.pieces) for use in record.sources],
        in_place=record.in_place,
        kept=shown_path(os.fsdecode(record.kept)) or None,
        version=record.version,
        files=record.files,
    )


def shown_path(path: str) -> str:
    """Return ``path`` as text that can be sent. Why: paths on a disk need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
