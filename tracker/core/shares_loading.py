"""Mirror of the shares from the rows of a database: each id kept once, each list sorted once.

Owns: the bulk form of what `SharesState` does share by share. Not here: the rows (see
tracker.store.loader). Why: with a million offers it takes a third of the time and half of the
memory. Rows come in the order of time, manifests first, then names, versions, shares and offers;
accounts and groups are known.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.ids import ContentId, DeviceKey, GroupId, UserId
from tracker.core.records import Group, ManifestSummary, Share, ShareRef
from tracker.core.share_names import Name, NameId, ShareId, Version
from tracker.core.state import State


class SharesLoading:
    """Adds shares to a ``state`` that has none; `finish` makes it whole."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._shares: dict[tuple[str, str, int], tuple[Share, ShareRef]] = {}
        self._offers: dict[tuple[str, bytes], tuple[tuple[UserId, DeviceKey], list[ShareRef]]] = {}
        self._users = {user: user for user in state.accounts}
        self._devices = {device: device for device in state.devices}
        self._texts: dict[str, str] = {}

    def manifests(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add manifests from rows by column."""
        for row in rows:
            row["algorithm"] = self._texts.setdefault(row["algorithm"], row["algorithm"])
            if row["digest"] == row["content"]:
                row["digest"] = row["content"]
            summary = ManifestSummary(**row)
            self._state.manifests[summary.content] = summary

    def names(self, rows: Iterable[tuple[str, str, str, int, int, int | None]]) -> None:
        """Add names: group, id, text, current version, floor, end."""
        groups = self._state.groups
        for group, name_id, text, current, floor, ended_ms in rows:
            name_id = self._texts.setdefault(name_id, name_id)
            kept = name_id if text == name_id else text
            name = Name(kept, current, floor, ended_ms=ended_ms)
            groups[GroupId(group)].names.add(NameId(name_id), name)

    def versions(self, rows: Iterable[tuple[str, str, int, bytes, str, int, bool]]) -> None:
        """Add versions on record: group, name id, version, content, user, time, withdrawn."""
        groups = self._state.groups
        for group, name_id, version, content, user, at_ms, withdrawn in rows:
            name = groups[GroupId(group)].names.by_id[NameId(name_id)]
            known, kept = UserId(user), self._content(content)
            known = self._users.get(known, known)  # its account may be gone
            name.versions[version] = Version(kept, known, at_ms, bool(withdrawn))

    def shares(self, rows: Iterable[tuple[str, str, int, bytes, int]]) -> None:
        """Add listed versions: group, name id, version, content, time."""
        for text, name_text, version, found, at_ms in rows:
            group, content = self._state.groups[GroupId(text)], self._content(found)
            name = group.names.by_id[NameId(name_text)]
            share_id = ShareId(NameId(self._texts[name_text]), version)
            share, ref = Share(name.text, content, at_ms), (group.id, share_id)
            name.offered.add(version)
            name.ended_ms = None
            group.names.ended.pop(share_id.name, None)
            group.shares[share_id] = share
            group.names_of.setdefault(content, {})[share_id] = None
            self._state.shared_in.setdefault(content, {})[ref] = None
            self._shares[text, name_text, version] = share, ref

    def offers(self, rows: Iterable[tuple[str, str, int, str, bytes, int]]) -> None:
        """Add offers: group, name id, version, user, device, time."""
        shares, offers = self._shares, self._offers
        for group, name_id, version, user, device, at_ms in rows:
            share, ref = shares[group, name_id, version]
            found = offers.get((user, device))
            if found is None:
                offer = self._offer(user, device)
                found = offers[offer] = (offer, [])
            offer, refs = found
            share.offers[offer] = at_ms
            share.users[offer[0]] = share.users.get(offer[0], 0) + 1
            refs.append(ref)

    def _offer(self, user: str, device: bytes) -> tuple[UserId, DeviceKey]:
        known, key = UserId(user), DeviceKey(device)
        return self._users.get(known, known), self._devices.get(key, key)

    def _content(self, content: bytes) -> ContentId:
        summary = self._state.manifests.get(ContentId(content))
        return ContentId(content) if summary is None else summary.content

    def finish(self) -> None:
        """Sort the lists, and count what follows from the offers."""
        state = self._state
        for group in state.groups.values():
            self._finish(group)
        for offer, refs in self._offers.values():
            refs.sort()
            state.offers_of[offer] = refs
            state.holdings.offers[offer[0]] += len(refs)
        for summary in state.manifests.values():
            if summary.content not in state.shared_in:
                state.unshared_manifests.add(
                    summary.content, summary.manifest_bytes, summary.stored_ms, None, state.undo
                )

    def _finish(self, group: Group) -> None:
        state, names = self._state, group.names
        group.share_ids = sorted(group.shares)
        names.listed = sorted(
            key for key, name in names.by_id.items() if name.current in name.offered
        )
        for share in group.shares.values():
            size = state.manifests[share.content].manifest_bytes
            for user in share.users:
                state.holdings.add_share(group.id, user, size, state.undo)
