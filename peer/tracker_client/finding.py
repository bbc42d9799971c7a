"""Search for a share by a name or a version of it, with checks of the tracker's answer."""

from __future__ import annotations

from common.errors import Refused
from common.ids import GroupId
from common.messages import tracker
from common.messages.refusals import Code
from common.names import share_name, split_version
from peer.tracker_client.claims import check_name, check_version
from peer.tracker_client.link import TrackerLink


async def find_share(
    link: TrackerLink, group: GroupId, text: str
) -> tuple[tracker.ShareFound, str]:
    """Return the share that ``text``, NAME or NAME@K, means, and its name as it was typed.

    Raises `BadName`, `IntegrityError`, and the errors of `TrackerLink.request`.
    """
    name, version = split_version(text)
    try:
        return await _find(link, group, name, version), name
    except Refused as error:
        if not version or error.code is not Code.UNKNOWN_SHARE:
            raise
        try:  # earlier releases allowed names with such an end
            return await _find(link, group, text, 0), text
        except Refused:
            raise error from None


async def _find(link: TrackerLink, group: GroupId, name: str, version: int) -> tracker.ShareFound:
    command = tracker.FindShare(group, share_name(name), version)
    found = await link.request(command, tracker.ShareFound)
    check_name(found.row, name)
    check_version(found.row, version)
    return found
