"""Earlier versions of a name that stand at the destination of a download.

Owns: the search for one that this device fetched or shared, and the proof that it is unchanged. Not
here: the step that takes its place (see peer.files.replacement).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from common import manifest as manifests
from common import names
from common.errors import MiniTorrentError
from common.ids import ContentId, GroupId, UserId
from common.manifest import Manifest
from common.messages import tracker
from peer.downloads.in_place import content_at
from peer.downloads.job import DownloadServices
from peer.files.errors import ContentChanged
from peer.files.fingerprint import SharedLocation
from peer.files.replacement import looks_of
from peer.files.sharing import location_of
from peer.records import DownloadRecord, EarlierVersion, ShareRecord
from peer.shares.digesting import Report


class Version(NamedTuple):
    """A content that this device has put or shared at a path; ``place`` as it was then."""

    content: ContentId
    place: SharedLocation | None = None


def earlier_versions(
    row: tracker.FileRow,
    user: UserId,
    group: GroupId,
    path: str,
    shared: Iterable[ShareRecord],
    fetched: Iterable[DownloadRecord],
) -> list[Version]:
    """The earlier versions of the name of ``row`` that may stand at ``path``, by the records.

    A name whose offers all ended begins with version 1 again: an equal number does not tell.
    """
    found: dict[ContentId, Version] = {}
    for share in shared:
        if share.place.path == path and share.version <= row.version:
            content = ContentId(share.content)
            found[content] = Version(content, share.place)
    for record in fetched:
        same_name = names.fold_name(record.name) == names.fold_name(row.name)
        ours = record.user == user and record.group == group and same_name
        if ours and record.path == os.fsencode(path) and record.version <= row.version:
            found.setdefault(ContentId(record.content), Version(ContentId(record.content)))
    found.pop(ContentId(row.content), None)
    return list(found.values())


async def unchanged_version(
    services: DownloadServices, versions: Sequence[Version], path: str, report: Report
) -> EarlierVersion | None:
    """Return the version that stands at ``path``, absolute and without links, unchanged.

    Files whose fingerprints are not the recorded ones are digested.
    """
    for version in versions:
        encoded = services.manifests.get(version.content)
        if encoded is None:
            continue
        try:
            decoded = await services.workers.run(manifests.decode, encoded, version.content)
            place = await services.workers.run(_as_recorded, decoded, path, version.place)
        except MiniTorrentError:
            continue
        if place is None:
            place = await content_at(decoded, path, report)
        if place is not None:
            return EarlierVersion(version.content, looks_of(place))
    return None


def _as_recorded(
    manifest: Manifest, path: str, recorded: SharedLocation | None
) -> SharedLocation | None:
    """The place as it is now, if its files have the recorded fingerprints. Blocks."""
    if recorded is None:
        return None
    try:
        now = location_of(manifest, path)
    except ContentChanged:
        return None
    return now if now.fingerprints == recorded.fingerprints else None
