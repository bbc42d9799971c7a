"""Names of a group's shares: the current version of each, and the earlier ones on record.

Owns: the counter of each name, and which of its versions may be offered. Not here: the offers (see
tracker.core.records) and the decisions (see tracker.core.versions).

Invariants: the counter of a name never goes back while the name is on record. A name is on record
while one of its versions has an offer, and longer if a version was withdrawn: a device that was
away must not offer that one again. Times are ms since 1970.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple, NewType

from msgspec import Struct
from msgspec.structs import replace

from common.errors import LocalProtocolError
from common.ids import ContentId, UserId
from tracker.core.sorted_lists import remove_sorted
from tracker.core.undo import UndoLog

NameId = NewType("NameId", str)
"""A name of a share, folded for comparison."""


class ShareId(NamedTuple):
    """One version of a name; sorts by name, then by version."""

    name: NameId
    version: int


class Version(Struct, frozen=True, gc=False):
    """A version of a name. ``user`` shared it first; ``withdrawn``: it may not be offered.

    ``offered``: it has an offer.
    """

    number: int
    content: ContentId
    user: UserId
    at_ms: int
    withdrawn: bool = False
    offered: bool = False


class Name(Struct, gc=False):
    """A name and its versions on record, in ascending order.

    ``current``: the highest version ever. ``floor``: all versions up to it may not be offered.
    ``ended_ms``: since when no version has an offer.
    """

    text: str
    current: int
    floor: int = 0
    versions: tuple[Version, ...] = ()  # most names have one: a dictionary takes five times as much
    ended_ms: int | None = None

    def version(self, number: int) -> Version | None:
        """Return a version on record."""
        for known in self.versions:
            if known.number == number:
                return known
        return None

    @property
    def offered(self) -> list[int]:
        """The versions with an offer, in ascending order."""
        return [known.number for known in self.versions if known.offered]

    @property
    def is_listed(self) -> bool:
        """Whether the current version has an offer."""
        known = self.version(self.current)
        return known is not None and known.offered

    def may_be_offered(self, number: int) -> bool:
        """Whether a version was not withdrawn."""
        known = self.version(number)
        return number > self.floor and (known is None or not known.withdrawn)

    def put(self, version: Version, undo: UndoLog) -> None:
        """Add a version, or replace the one of its number."""
        others = (known for known in self.versions if known.number != version.number)
        undo.field(self, "versions")
        self.versions = tuple(sorted((*others, version), key=_number))


def _number(version: Version) -> int:
    return version.number


class ShareNames:
    """Names by their id. ``listed``: sorted, those whose current version is offered. ``ended``:
    those without an offer, the longest ended first."""

    def __init__(self) -> None:
        self.by_id: dict[NameId, Name] = {}
        self.listed: list[NameId] = []
        self.ended: dict[NameId, None] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ShareNames) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def add(self, name_id: NameId, name: Name) -> None:
        """Add a name from the store; its offers follow."""
        self.by_id[name_id] = name
        if name.ended_ms is not None:
            self.ended[name_id] = None

    def add_version(self, name_id: NameId, text: str, version: Version, undo: UndoLog) -> None:
        """Add a version that has no offer yet, and its name if that is new."""
        undo.item(self.by_id, name_id)
        name = self.by_id.setdefault(name_id, Name(text, version.number))
        undo.field(name, "text", "current")
        name.text = text
        name.current = max(name.current, version.number)
        name.put(version, undo)
        self._relist([name_id], undo)

    def begin(self, share: ShareId, undo: UndoLog) -> None:
        """A version gets its first offer."""
        name = self.by_id[share.name]
        name.put(replace(self._known(share), offered=True), undo)
        undo.field(name, "ended_ms")
        name.ended_ms = None
        undo.removal(self.ended, share.name)
        self.ended.pop(share.name, None)
        self._relist([share.name], undo)

    def end(self, shares: Iterable[ShareId], at_ms: int, undo: UndoLog) -> None:
        """Versions lose their last offer; end the names that have none left."""
        touched: dict[NameId, None] = {}
        for share in shares:
            name = self.by_id[share.name]
            if (known := name.version(share.version)) is not None:
                name.put(replace(known, offered=False), undo)
            touched[share.name] = None
        for name_id in touched:
            name = self.by_id[name_id]
            if name.offered or name.ended_ms is not None:
                continue
            undo.field(name, "versions", "ended_ms")
            name.versions = tuple(known for known in name.versions if known.withdrawn)
            if name.versions or name.floor:
                name.ended_ms = at_ms
                undo.item(self.ended, name_id)
                self.ended[name_id] = None
            else:
                undo.removal(self.by_id, name_id, ordered=False)
                del self.by_id[name_id]
        self._relist(touched, undo)

    def withdrawn(self, name_id: NameId, version: int, *, earlier: bool) -> list[ShareId]:
        """Return the shares that have offers and end if ``version`` is withdrawn."""
        return [
            ShareId(name_id, offered)
            for offered in self.by_id[name_id].offered
            if offered == version or (earlier and offered < version)
        ]

    def withdraw(
        self, name_id: NameId, version: int, undo: UndoLog, *, earlier: bool, at_ms: int
    ) -> None:
        """Forbid ``version``, with ``earlier`` all before it too; their offers are gone."""
        name = self.by_id[name_id]
        if earlier:
            undo.field(name, "floor", "versions")
            name.floor = max(name.floor, version)
            name.versions = tuple(known for known in name.versions if known.number > version)
        else:
            withdrawn = replace(self._known(ShareId(name_id, version)), withdrawn=True)
            name.put(withdrawn, undo)
        self.end([ShareId(name_id, version)], at_ms, undo)

    def forget(self, name_id: NameId, undo: UndoLog) -> None:
        """Remove a name without offers."""
        undo.removal(self.by_id, name_id, ordered=False)
        del self.by_id[name_id]
        undo.removal(self.ended, name_id)
        self.ended.pop(name_id, None)

    def _known(self, share: ShareId) -> Version:
        known = self.by_id[share.name].version(share.version)
        if known is None:
            raise LocalProtocolError(f"version {share.version} of a name is not on record")
        return known

    def _relist(self, touched: Iterable[NameId], undo: UndoLog) -> None:
        """Keep `listed` up to date; in one pass for many names, for each shifts the list."""
        wrong: set[NameId] = set()
        missing: list[NameId] = []
        for name_id in touched:
            name = self.by_id.get(name_id)
            at = bisect_left(self.listed, name_id)
            is_listed = at < len(self.listed) and self.listed[at] == name_id
            should = name is not None and name.is_listed
            if is_listed and not should:
                wrong.add(name_id)
            elif should and not is_listed:
                missing.append(name_id)
        if len(wrong) == 1:
            [name_id] = wrong
            undo.subtraction(self.listed, name_id)
            remove_sorted(self.listed, name_id)
        elif wrong:
            undo.field(self, "listed")
            self.listed = [name_id for name_id in self.listed if name_id not in wrong]
        for name_id in missing:
            undo.addition(self.listed, name_id)
            insort(self.listed, name_id)
