"""Sources of one download as the tracker lists them, and the pieces that each gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from common import limits
from common.errors import MiniTorrentError
from common.ids import DeviceKey, UserId
from common.link import check_source
from common.messages.base import Source
from common.names import fold_id
from peer.swarm.fetching.events import SourceKnown

LISTED_MAX = 4 * limits.SOURCES_MAX  # beyond, sources that are not in use are forgotten


@dataclass(frozen=True, slots=True)
class ListedSource:
    """One source in the tracker's list."""

    user: UserId
    endpoint: str


class ListedSources:
    """Usable sources by device. ``own`` is the key of this device."""

    def __init__(self, own: DeviceKey, *, ipc_allowed: bool) -> None:
        self._own = own
        self._ipc_allowed = ipc_allowed
        self._listed: dict[DeviceKey, ListedSource] = {}
        self._pieces: Counter[DeviceKey] = Counter()

    def add(self, sources: Iterable[Source]) -> Iterator[SourceKnown]:
        """Add the usable ones of a list, and yield the event for each."""
        for source in sources:
            device = DeviceKey(source.device)
            if device == self._own:
                continue  # the list goes to all members, and names this device too
            try:
                endpoint = check_source(source.endpoint)
            except MiniTorrentError:
                continue
            # A path on this machine is only followed if the tracker itself is on one. Why: a member
            # must not make others connect to any local socket.
            if endpoint.startswith("ipc://") and not self._ipc_allowed:
                continue
            user = UserId(fold_id(source.user))
            self._listed[device] = ListedSource(user, endpoint)
            yield SourceKnown(device, user, source.complete)

    def get(self, device: DeviceKey) -> ListedSource | None:
        """The entry of a device, if it is listed."""
        return self._listed.get(device)

    def endpoint_of(self, device: DeviceKey) -> str:
        """The endpoint of a listed device."""
        return self._listed[device].endpoint

    def bound(self, used: Callable[[], set[DeviceKey]]) -> None:
        """Forget sources that are neither in ``used`` nor gave a piece, if there are too many.

        Why: a list without bound takes memory without bound.
        """
        if len(self._listed) > LISTED_MAX:
            kept = used() | self._pieces.keys()
            self._listed = {device: one for device, one in self._listed.items() if device in kept}

    def count_pieces(self, device: DeviceKey, count: int) -> None:
        """Count verified pieces of a source."""
        self._pieces[device] += count

    def pieces_by_source(self) -> list[tuple[ListedSource, int]]:
        """The sources of verified pieces of this session, most pieces first."""
        return [
            (self._listed[device], count)
            for device, count in self._pieces.most_common()
            if device in self._listed
        ]
