"""Restoring of a manifest that the disk lost.

The tracker has it as long as the group lists the share. Otherwise the files are digested again, if
they are exactly the shared ones. Why: files that were added to a folder since must not be shared.
"""

from __future__ import annotations

from msgspec.structs import replace

from common import manifest as manifests
from common.digests import Algorithm
from common.errors import Refused
from common.ids import ContentId, GroupId
from common.messages.refusals import Code
from common.names import quoted
from peer.files.errors import ContentChanged
from peer.files.scanning import DevicePaths, scan
from peer.records import ShareRecord
from peer.shares.digesting import digest
from peer.shares.offers import TrackerOffers
from peer.workers import Workers


async def restore(
    offers: TrackerOffers, workers: Workers, record: ShareRecord
) -> tuple[ShareRecord, bytes]:
    """The record and the encoded manifest. The record names another content if times or
    permissions of the files have changed.

    Raises `ContentChanged` if the files were changed, and the errors of `TrackerLink.request`.
    """
    try:
        content = ContentId(record.content)
        return record, await offers.manifest(GroupId(record.group), content)
    except Refused as error:
        if error.code is not Code.UNKNOWN_SHARE:
            raise
    scanned = await workers.run(scan, record.place.path, DevicePaths(), record.rule)
    if scanned.place.fingerprints != record.place.fingerprints:
        raise ContentChanged(
            f"{quoted(record.place.path)} was changed, and the manifest of the share is lost",
            "share it again if it should be offered as it is",
        )
    algorithm = Algorithm.named(record.algorithm or Algorithm.BLAKE3.value)
    digested = await digest(scanned, algorithm, record.piece_length or None, True, lambda _: None)
    encoded = await workers.run(manifests.encode, digested.manifest)
    content = manifests.manifest_id(encoded)
    return replace(record, content=content, place=digested.place), encoded
