"""Fetch of a manifest: from this device, a peer that serves the content, or the tracker.

Owns: the order of these tries. Invariant: a manifest counts only if it hashes to the content id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common import limits, manifest
from common.errors import IntegrityError, MiniTorrentError
from common.ids import ContentId, DeviceKey, GroupId
from common.link import check_source
from common.messages import control
from common.messages.base import Refusal, Source
from common.names import fold_id
from peer.downloads.job import DownloadServices
from peer.fetching.channel import ChannelHandler

FROM_PEERS_BYTES = limits.MIB  # larger ones are requested from peers first: spares the tracker
PEERS_TRIED = 3
PEER_TIMEOUT_S = 4.0  # for each part; a peer that is silent for longer is given up
Report = Callable[[control.Progress], None]


class _FromPeer(ChannelHandler):
    """One attempt to fetch a manifest from one peer."""

    def __init__(self, services: DownloadServices, group: GroupId, content: ContentId, total: int):
        self.group = group
        self.content = content
        self._services = services
        self._total = total
        self._parts = bytearray()
        self._done: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

    async def fetch(self, device: DeviceKey, endpoint: str, report: Report) -> bytes | None:
        """The manifest, or None if this peer does not give the right one."""
        self._report = report
        self._channel = self._services.pool.open(device, endpoint, self.content, self.group, self)
        try:
            had = -1
            while had < len(self._parts) and not self._done.done():
                had = len(self._parts)
                await asyncio.wait({self._done}, timeout=PEER_TIMEOUT_S)
            return self._done.result() if self._done.done() else None
        finally:
            self._channel.close()

    def _end(self, result: bytes | None) -> None:
        if not self._done.done():
            self._done.set_result(result)

    def on_opened(self, device: DeviceKey, bitfield: bytes | None) -> None:
        """Request the first part."""
        self._channel.request_manifest(0)

    def on_manifest_part(self, device: DeviceKey, total: int, offset: int, data: bytes) -> None:
        """Request the next part, or end with the last."""
        if total != self._total or offset != len(self._parts) or not data:
            self._end(None)
            return
        self._parts += data
        self._report(control.Progress("fetching the manifest", len(self._parts), total))
        if len(self._parts) < total:
            self._channel.request_manifest(len(self._parts))
        else:
            whole = bytes(self._parts)
            self._end(whole if manifest.manifest_id(whole) == self.content else None)

    def on_refused(self, device: DeviceKey, refusal: Refusal) -> None:
        """End without a result."""
        self._end(None)

    def on_lost(self, device: DeviceKey, opened: bool) -> None:
        """End without a result."""
        self._end(None)


async def fetch_manifest(
    services: DownloadServices,
    group: GroupId,
    content: ContentId,
    total: int,
    sources: list[Source],
    report: Report,
) -> bytes:
    """The encoded manifest of ``content``, ``total`` bytes, checked against its id.

    Raises `IntegrityError`, and the errors of `TrackerLink.request`.
    """
    kept = services.manifests.get(content)
    if kept is not None and manifest.manifest_id(kept) == content:
        if len(kept) != total:
            raise IntegrityError(f"a manifest of {len(kept)} bytes; the tracker says {total}")
        return kept
    if total > limits.MANIFEST_BYTES_MAX:
        raise IntegrityError(f"a manifest of {total} bytes is more than there can be")
    if total > FROM_PEERS_BYTES:
        for source in _of_each_user(sources):
            device = DeviceKey(source.device)
            try:
                endpoint = check_source(source.endpoint)
            except MiniTorrentError:
                continue
            if endpoint.startswith("ipc://") and not services.link.on_ipc:
                continue
            attempt = _FromPeer(services, group, content, total)
            found = await attempt.fetch(device, endpoint, report)
            if found is not None:
                return found
    return await _from_tracker(services, group, content, total, report)


def _of_each_user(sources: list[Source]) -> list[Source]:
    """A few complete sources, one per user: all devices of a user may be silent."""
    first = {fold_id(source.user): source for source in reversed(sources) if source.complete}
    return [source for source in sources if first.get(fold_id(source.user)) is source][:PEERS_TRIED]


async def _from_tracker(
    services: DownloadServices, group: GroupId, content: ContentId, total: int, report: Report
) -> bytes:
    parts = bytearray()
    while len(parts) < total:
        report(control.Progress("fetching the manifest", len(parts), total))
        answer = await services.link.manifest_part(group, content, len(parts))
        fits = 0 < len(answer.data) <= total - len(parts)
        if (answer.reply.total_bytes, answer.reply.offset) != (total, len(parts)) or not fits:
            raise IntegrityError("the tracker's parts of the manifest do not fit together")
        parts += answer.data
    whole = bytes(parts)
    if manifest.manifest_id(whole) != content:
        raise IntegrityError("the tracker's manifest does not hash to the content's id")
    return whole
