"""Contents that a follow placed in its folder: how they looked, and whether they still do.

Why: a new version takes the place of what the follow placed there, and of nothing else. All of this
blocks as long as the disk does.
"""

from __future__ import annotations

import logging

from common import manifest as manifests
from common.errors import MiniTorrentError
from common.ids import ContentId
from peer.files.fingerprint import SharedLocation
from peer.files.sharing import location_of
from peer.records import Manifests

log = logging.getLogger(__name__)


def location_at(kept: Manifests, content: bytes, path: str) -> SharedLocation | None:
    """Return the looks of a content at ``path``; None if it does not stand there."""
    encoded = kept.get(ContentId(content))
    if encoded is None:
        return None
    try:
        return location_of(manifests.decode(encoded, ContentId(content)), path)
    except MiniTorrentError as error:
        log.debug("%s: %s", path, error)
        return None


def is_untouched(kept: Manifests, content: bytes, place: SharedLocation) -> bool:
    """Whether a content stands at its place just as it was left there."""
    found = location_at(kept, content, place.path)
    return found is not None and found.fingerprints == place.fingerprints
