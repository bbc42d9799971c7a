"""Rows of the shares of this device, and of the devices that fetch them now."""

from __future__ import annotations

from common.crypto.keys import key_text, short_id
from common.host.clock import monotonic
from common.ids import ContentId, GroupId
from common.messages import control
from peer.control.views import time_text
from peer.downloads.views import shown_path
from peer.serving.meter import ServingMeter
from peer.shares.manager import Shares
from peer.shares.open_shares import Share


def fetching_rows(
    meter: ServingMeter, group: GroupId | None = None, content: ContentId | None = None
) -> list[control.FetchingRow]:
    """The devices that fetch now, of one content or of all."""
    return [
        control.FetchingRow(user, key_text(device), rate, short_id(device))
        for user, device, rate in meter.fetching(monotonic(), group, content)
    ]


async def share_rows(shares: Shares, meter: ServingMeter) -> list[control.ShareRow]:
    """The rows of ``list-shares``, by group and name."""
    rows = []
    for share in sorted(
        shares.all(), key=lambda one: (one.record.group, one.record.name, one.record.version)
    ):
        record = share.record
        group, content = GroupId(record.group), ContentId(record.content)
        state, reason = state_of(share)
        rows.append(
            control.ShareRow(
                group=group,
                name=record.name,
                version=record.version,
                path=shown_path(record.place.path),
                size_bytes=await shares.size_of(share),
                state=state,
                reason=reason,
                served_bytes=meter.served(group, content),
                fetching=fetching_rows(meter, group, content),
                expires=time_text(record.expires_ms) if record.expires_ms else None,
            )
        )
    return rows


def _order(share: Share) -> tuple[str, str, int]:
    return share.record.group, share.record.name, share.record.version


def state_of(share: Share) -> tuple[str, str | None]:
    if share.open is not None:
        return "shared", None
    if share.checking:
        return "checking", None
    if share.away is not None:
        return "away", share.away
    if share.reported is not None:
        return "failed", share.reported
    return "waiting", None
