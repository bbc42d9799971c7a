"""Facts for the plan of a follow, from the downloads and the shares of this device."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

from common.names import fold_name
from peer.downloads.for_follows import FollowedDownloads
from peer.downloads.job import DownloadJob
from peer.follows.plan import COMPLETE, Fetched, Held, Mark
from peer.follows.records import FollowRecord
from peer.shares.manager import Shares
from peer.workers import Workers


async def downloads_in(
    follow: FollowRecord, downloads: FollowedDownloads, workers: Workers
) -> list[Fetched]:
    """Return the downloads of the follow's group; a complete one only while its file is there."""
    jobs = [job for job in downloads.all() if job.record.group == follow.group]
    here = [job for job in jobs if not job.complete]
    done = [job for job in jobs if job.complete and os.path.dirname(job.path) == follow.text]
    if done:
        found = await workers.run(lambda: [os.path.lexists(job.path) for job in done])
        here += [job for job, there in zip(done, found, strict=True) if there]
    return [_fetched(job) for job in here]


def _fetched(job: DownloadJob) -> Fetched:
    record = job.record
    return Fetched(
        job.key,
        record.name,
        record.version,
        record.content,
        job.path,
        record.follow,
        COMPLETE if job.complete else str(record.state),
        record.reason,
        job.verified_bytes,
    )


async def held_shares(
    shares: Shares,
    follow: FollowRecord,
    marks: Mapping[str, Mark],
    folders: Collection[str],
    workers: Workers,
) -> dict[tuple[str, bytes], Held]:
    """Return the shares of this device in the follow's group, by folded name and content.

    ``folders`` are those of all follows: what one of them placed counts only while it is there. Its
    share may outlive it for a minute. The highest version counts if two have one content.
    """
    found: dict[tuple[str, bytes], Held] = {}
    doubtful: list[tuple[str, bytes]] = []
    for record in shares.records_in(follow.group):
        name = fold_name(record.name)
        before, mark = found.get((name, record.content)), marks.get(name)
        if before is not None and before.version >= record.version:
            continue
        path = record.place.path
        folder = os.path.dirname(path)
        fetched = (record.fetched or folder in folders) and folder != follow.text
        found[name, record.content] = Held(record.version, record.content, path, fetched)
        settled = mark is not None and mark.content == record.content
        if folder in folders and not settled:
            doubtful.append((name, record.content))
    if doubtful:
        paths = [found[key].path for key in doubtful]
        there = await workers.run(lambda: [os.path.lexists(path) for path in paths])
        for key, is_there in zip(doubtful, there, strict=True):
            if not is_there:
                found.pop(key, None)
    return found
