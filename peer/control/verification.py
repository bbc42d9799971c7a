"""Command that verifies a copy on this device: a share, or a complete download.

Owns which copy is meant. Not here: the reading (see peer.files.damage).
"""

from __future__ import annotations

from collections.abc import Callable

from common import names
from common.errors import Refused
from common.hints import hint
from common.host.clock import monotonic
from common.messages import control
from common.messages.refusals import Code
from common.shared_refusals import not_logged_in
from peer.downloads.manager import Downloads
from peer.downloads.views import shown_path
from peer.files import sharing
from peer.files.damage import damaged_files, damaged_pieces
from peer.records import ShareRecord
from peer.shares.digesting import Report, with_progress
from peer.shares.manager import Shares


async def verify_copy(
    command: control.Verify, shares: Shares, downloads: Downloads, report: Report
) -> control.Verified:
    """Read the copy again, piece by piece. Raises `MiniTorrentError`; cancelling ends it."""
    record = _record(command, shares, downloads)
    manifest = await shares.manifest_of(record)
    place, began = record.place, monotonic()

    def work(on_progress: sharing.Progress, cancelled: Callable[[], bool]) -> list[int]:
        return damaged_pieces(
            manifest, place.path, place.links, on_progress=on_progress, cancelled=cancelled
        )

    damaged = await with_progress(work, manifest.size, report, "checking")
    return control.Verified(
        group=record.group,
        name=record.name,
        version=record.version,
        path=shown_path(place.path),
        size_bytes=manifest.size,
        pieces=manifest.piece_count,
        damaged=damaged,
        files=damaged_files(manifest, damaged),
        elapsed_s=monotonic() - began,
    )


def _record(command: control.Verify, shares: Shares, downloads: Downloads) -> ShareRecord:
    """The newest copy of the name, or that of the version."""
    user, group = shares.user, names.group_id(command.group)
    if user is None:
        raise not_logged_in()
    for text, version in dict.fromkeys([(command.name, 0), names.split_version(command.name)]):
        found = [
            record
            for record in (*downloads.copies(), *shares.versions_of(user, group, text))
            if (record.group, names.fold_name(record.name)) == (group, names.fold_name(text))
            and version in (0, record.version)
        ]
        if found:
            return max(found, key=lambda record: record.version)
    raise Refused(
        Code.UNKNOWN_SHARE,
        f"this device has no copy of {names.quoted(command.name)} in group {names.quoted(group)}",
        hint("see what it shares", "list-shares"),
    )
