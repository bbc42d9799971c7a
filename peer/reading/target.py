"""Target of a reader: one file, that of a share or one in the folder of a share.

Owns: which content and which bytes of its stream ``GROUP NAME ENTRY`` means. Not here: the bytes
(see peer.reading.reader).

While the tracker cannot be reached, a copy on this device is taken, in its newest version.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate

from blake3 import blake3

from common import names
from common.errors import MiniTorrentError, Refused, TransportError
from common.ids import ContentId, GroupId
from common.manifest import EntryKind, Manifest
from common.messages.refusals import Code
from common.shared_refusals import not_logged_in
from peer.downloads.job import DownloadServices
from peer.downloads.manager import Downloads
from peer.files.selection import examples
from peer.tracker_client.finding import find_share

EXAMPLES = 10  # entries of a folder in an error


@dataclass(frozen=True, slots=True)
class Target:
    """A file. ``begin``: the offset of its first byte in the stream of the content.

    ``tag``: differs for each other file content; the digest of the share where it is one file.
    """

    group: GroupId
    name: str
    version: int
    content: ContentId
    manifest: Manifest
    entry: str
    begin: int
    size: int
    tag: str

    @property
    def file_name(self) -> str:
        """The last part of the path."""
        return self.entry.rpartition("/")[2] or self.name

    def pieces(self, offset: int, size: int) -> range:
        """The pieces with the ``size`` bytes from ``offset`` of the file on, within the file."""
        length = self.manifest.piece_length
        first, end = self.begin + offset, self.begin + min(self.size, offset + size)
        return range(first // length, -(-end // length)) if first < end else range(0)


async def find_target(
    services: DownloadServices, downloads: Downloads, group_text: str, text: str, entry: str
) -> Target:
    """Return the file ``entry`` of a share; ``""`` for a share that is one file.

    Raises `MiniTorrentError`; nothing is fetched but the manifest.
    """
    group = names.group_id(group_text)
    if services.shares.user is None:
        raise not_logged_in()
    try:
        found, _ = await find_share(services.link, group, text)
    except TransportError as error:
        here = await _copy_here(services, downloads, group, text)
        if here is None:
            raise error
        name, version, content, decoded = here
    else:
        name, version = names.share_name(found.row.name), found.row.version
        content = ContentId(found.row.content)
        _, decoded = await downloads.manifest(group, found, lambda _: None)
    begin, size = file_in(decoded, group, name, entry)
    digest = blake3(content + entry.encode()).digest() if decoded.is_folder else decoded.digest
    return Target(group, name, version, content, decoded, entry, begin, size, digest.hex())


def file_in(decoded: Manifest, group: GroupId, name: str, path: str) -> tuple[int, int]:
    """Offset in the stream and size of a file. Raises `Refused`."""
    shown = names.quoted(name)
    if not decoded.is_folder:
        if path:
            raise Refused(Code.UNKNOWN_SHARE, f"read {shown}: it is a single file, not a folder")
        return 0, decoded.size
    if not path:
        raise Refused(
            Code.USAGE,
            f"read {shown}: it is a folder; name a file in it: {examples(decoded, EXAMPLES)}",
        )
    ends = accumulate(entry.size for entry in decoded.entries)
    for entry, end in zip(decoded.entries, ends, strict=True):
        if entry.path == path:
            if entry.kind is EntryKind.FOLDER:
                raise Refused(Code.USAGE, f"read {names.quoted(path)} in {shown}: it is a folder")
            return end - entry.size, entry.size
    if any(entry.path.startswith(path.rstrip("/") + "/") for entry in decoded.entries):
        raise Refused(Code.USAGE, f"read {names.quoted(path)} in {shown}: it is a folder")
    raise Refused(
        Code.UNKNOWN_SHARE,
        f"read {names.quoted(path)}: no such file in {shown};"
        f" there are {examples(decoded, EXAMPLES)}",
    )


async def _copy_here(
    services: DownloadServices, downloads: Downloads, group: GroupId, text: str
) -> tuple[str, int, ContentId, Manifest] | None:
    """Name, version, content and manifest of the newest copy on this device."""
    name, version = names.split_version(text)
    folded = names.fold_name(name)
    found = [
        record
        for record in (*downloads.copies(), *services.shares.records_in(group))
        if (record.group, names.fold_name(record.name)) == (group, folded)
        and version in (0, record.version)
    ]
    if not found:
        return None
    newest = max(found, key=lambda record: record.version)
    try:
        decoded = await services.shares.manifest_of(newest)
    except MiniTorrentError:
        return None
    return newest.name, newest.version, ContentId(newest.content), decoded
