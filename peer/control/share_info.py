"""All that is known about one version of a name: the result of `info`.

Owns: the collection of the facts, and the pages of entries. Not here: the listing of a group (see
peer.control.groups).
"""

from __future__ import annotations

from common import limits, names
from common.ids import GroupId
from common.manifest import EntryKind, Manifest
from common.messages import control, tracker
from peer.control.share_rows import state_of
from peer.control.views import time_text
from peer.downloads.manager import Downloads
from peer.downloads.views import shown_path
from peer.shares.digesting import Report
from peer.shares.manager import Shares
from peer.tracker_client.finding import find_share
from peer.tracker_client.link import TrackerLink
from peer.tracker_client.listing import listing

ENTRIES_BYTES_MAX = limits.CONTROL_BYTES_MAX // 4  # of the paths of one answer; JSON escapes some
ENTRY_BYTES = 64  # of an entry beside its path


async def share_info(
    link: TrackerLink, shares: Shares, downloads: Downloads, command: control.Info, report: Report
) -> control.ShareInfo:
    """Return the facts about NAME or NAME@K. Raises `MiniTorrentError`."""
    group = names.group_id(command.group)
    found, _ = await find_share(link, group, command.name)
    row = found.row
    _, decoded = await downloads.manifest(group, found, report)
    entries, more = _entries(decoded, row.name, command.first, command.entries)
    return control.ShareInfo(
        group=group,
        name=row.name,
        version=row.version,
        current=row.current,
        versions=[] if command.first else await _versions(link, group, row.name),
        size_bytes=decoded.size,
        files=decoded.file_count,
        pieces=decoded.piece_count,
        piece_bytes=decoded.piece_length,
        algorithm=decoded.algorithm.value,
        digest=decoded.digest.hex(),
        content=row.content.hex(),
        seeders=row.seeders,
        leechers=row.leechers,
        shared_by=row.shared_by,
        first_by=found.first_by,
        since=time_text(found.since_ms) if found.since_ms else None,
        here=_held(shares, downloads, group, row),
        entries=entries,
        more=more,
    )


async def _versions(link: TrackerLink, group: GroupId, name: str) -> list[int]:
    """Return the versions of a name that are to be had, in order."""

    async def page(last: tracker.FileRow | None) -> tracker.FileRows:
        after = name if last is None else names.versioned(last.name, last.version)
        return await link.request(tracker.ListFiles(group, after, True), tracker.FileRows)

    def key(row: tracker.FileRow) -> tuple[str, int]:
        return names.fold_name(row.name), row.version

    versions = []
    async for row in listing(page, key, "versions", limits.SHARES_PER_GROUP_MAX):
        if names.fold_name(row.name) != names.fold_name(name):
            break
        versions.append(row.version)
    return versions


def _held(
    shares: Shares, downloads: Downloads, group: GroupId, row: tracker.FileRow
) -> list[control.HeldRow]:
    folded = names.fold_name(row.name)
    held = []
    for share in shares.all():
        record = share.record
        if (record.group, names.fold_name(record.name), record.version) == (
            group,
            folded,
            row.version,
        ):
            state, _ = state_of(share)
            verified = row.size if state == "shared" else 0
            held.append(control.HeldRow(state, shown_path(record.place.path), verified))
    shared = {each.path for each in held}
    fetched = (
        control.HeldRow(download.state, download.path, download.verified_bytes)
        for download in downloads.rows()
        if (download.group, names.fold_name(download.name)) == (group, folded)
        and download.version == row.version
        and download.path not in shared
    )
    return [*held, *fetched]


def _entries(
    decoded: Manifest, name: str, first: int, count: int
) -> tuple[list[control.EntryRow], bool]:
    """Return up to ``count`` entries from ``first``, as many as one message holds."""
    rows: list[control.EntryRow] = []
    size = 0
    for entry in decoded.entries[first : first + max(count, 1)]:
        size += ENTRY_BYTES + len(entry.path.encode())
        if rows and size > ENTRIES_BYTES_MAX:
            break
        kind = EntryKind(entry.kind).name.lower()
        rows.append(control.EntryRow(entry.path or name, entry.size, kind))
    return rows, first + len(rows) < len(decoded.entries)
