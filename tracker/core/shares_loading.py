"""Mirror of the shares from the rows of a database: each id kept once, each list made once.

Owns: the bulk form of what `SharesState` does share by share. Not here: the rows (see
tracker.store.loader). Why: with a million offers it takes a quarter of the time.

Invariant: accounts and groups are known, and manifests come before names, and these before offers.
Names and offers come in the order of their keys, so the rows of a share come together, and each
list is sorted as it grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

from common.ids import ContentId, DeviceKey, UserId
from tracker.core.records import Group, Holder, Share
from tracker.core.share_names import Name, NameId, ShareId, Version
from tracker.core.state import State

_group_of = itemgetter(0)
_share_of = itemgetter(1, 2)
_time = itemgetter(1)


class SharesLoading:
    """Adds shares to a ``state`` that has none; `finish` makes it whole."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._users = {user: user for user in state.accounts}
        self._devices = {device: device for device in state.devices}
        self._contents: dict[ContentId, ContentId] = {}
        self._holders: dict[tuple[str, bytes], tuple[Holder, list[Share]]] = {}
        self._shared: set[ContentId] = set()

    def manifests(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add manifests: the fields of `ManifestSummary`."""
        for row in rows:
            self._contents[row[0]] = row[0]
            self._state.manifests.load(tuple(row))

    def names(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add names and their versions on record, a version in each row.

        Its columns: group, name id, text, current version, floor, end; version, content, user,
        time, whether withdrawn, since when it is offered. The latter are None where there is none.
        """
        for group_id, found in groupby(rows, _group_of):
            group, key = self._state.groups[group_id], NameId("")
            for row in found:
                _, name_id, text, current, floor, ended_ms, number, *version = row
                if key != name_id:
                    key = name_id
                    text = key if text == key else text
                    group.names.by_id[key] = name = Name(text, current, floor, (), ended_ms)
                if number is not None:
                    self._version(group, ShareId(key, number), name, *version)

    def _version(
        self,
        group: Group,
        share_id: ShareId,
        name: Name,
        content: ContentId,
        user: UserId,
        at_ms: int,
        withdrawn: bool,
        listed_ms: int | None,
    ) -> None:
        offered = listed_ms is not None
        user = self._users.get(user, user)  # the account may be gone
        content = self._contents.get(content, content)
        version = Version(share_id.version, content, user, at_ms, bool(withdrawn), offered)
        name.versions = (*name.versions, version)
        if listed_ms is None:
            return
        name.ended_ms = None
        listed_ms = at_ms if listed_ms == at_ms else listed_ms
        group.shares[share_id] = Share(group.id, share_id, name.text, content, listed_ms)
        group.names_of[content] = (*group.names_of.get(content, ()), share_id)
        if content in self._shared:
            self._state.shared_again[content] += 1
        self._shared.add(content)

    def offers(self, rows: Iterable[tuple[Any, ...]]) -> None:
        """Add offers: group, name id, version, user, device, time."""
        state, holders = self._state, self._holders
        for group_id, of_group in groupby(rows, _group_of):
            group, shares_of = state.groups[group_id], Counter[UserId]()
            for share_id, of_share in groupby(of_group, _share_of):
                share, before = group.shares[share_id], None
                since_ms, offers = share.at_ms, dict[Holder, int]()
                summary = state.manifests[share.content]
                group.size_bytes += summary.size
                for _, _, _, text, device, at_ms in of_share:
                    holder, offered = holders.get((text, device)) or self._holder(text, device)
                    offers[holder] = since_ms if at_ms == since_ms else at_ms
                    offered.append(share)
                    user = holder[0]
                    if user != before:  # the devices of a user come together
                        before = user
                        shares_of[user] += 1
                        state.holdings.manifest_bytes[user] += summary.manifest_bytes
                share.begin(offers)
            for user, count in shares_of.items():
                state.holdings.shares[group.id, user] = count

    def _holder(self, text: str, key: bytes) -> tuple[Holder, list[Share]]:
        user, device = UserId(text), DeviceKey(key)
        holder = (self._users.get(user, user), self._devices.get(device, device))
        found = self._holders[holder] = (holder, [])
        return found

    def finish(self) -> None:
        """Put into order what has the order of time, and count what follows from the offers."""
        state = self._state
        for group in state.groups.values():
            self._finish(group)
        for holder, offered in self._holders.values():
            state.offers_of[holder] = offered.copy()  # without the space that it grew
            state.holdings.offers[holder[0]] += len(offered)
        unshared = [state.manifests[each] for each in self._contents if each not in self._shared]
        for summary in sorted(unshared, key=attrgetter("stored_ms")):
            state.unshared_manifests.add(
                summary.content, summary.manifest_bytes, summary.stored_ms, None, state.undo
            )

    def _finish(self, group: Group) -> None:
        names = group.names
        group.share_ids = list(group.shares)
        group.shares = dict(sorted(group.shares.items(), key=lambda item: item[1].at_ms))
        names.listed = [name_id for name_id, name in names.by_id.items() if name.is_listed]
        ended = [
            (key, name.ended_ms) for key, name in names.by_id.items() if name.ended_ms is not None
        ]
        names.ended = dict.fromkeys(key for key, _ in sorted(ended, key=_time))
