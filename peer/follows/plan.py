"""Plan of one follow: what to fetch, to cancel and to note, from what is known now.

Owns: the decision, as a value. Pure: no clock, no file, no request. Not here: the facts and the
deeds (see peer.follows.manager).

Invariants: a share has at most one download of a follow. A version that was settled (fetched,
deleted or cancelled by the user, or held elsewhere) is not fetched again by the follow. A name of
another member leads to no path but one directly in the folder of the follow.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from common.globs import matches
from common.names import BadName, fold_name, quoted, share_name

FETCHES_MAX = 64  # unfinished downloads of one follow: a later version supersedes what is not begun
_RESERVED = re.compile(r".*(?:\.part|\.replaced|@[0-9]+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Listed:
    """Current version of a share, as the group lists it."""

    name: str
    version: int
    content: bytes
    size: int = 0


class Settled(StrEnum):
    """Why a version needs no fetch."""

    PLACED = "placed"
    """It was fetched into the folder of the follow; what becomes of it there is up to the user."""
    ELSEWHERE = "elsewhere"
    """The user uploaded it from another place."""
    DISMISSED = "dismissed"
    """The user cancelled its download."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Durable note that a version is settled."""

    version: int
    content: bytes
    how: Settled


@dataclass(frozen=True, slots=True)
class Fetched:
    """Download in the group, also a complete one whose file is there. ``own``: a follow began it.

    ``state``: a `peer.records.DownloadState`.
    """

    key: str
    name: str
    version: int
    content: bytes
    path: str
    own: bool
    state: str
    reason: str | None = None
    verified_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """Share that this device serves in the group. ``fetched``: a download placed it,
    to another place than that of the follow."""

    version: int
    content: bytes
    path: str
    fetched: bool = False


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Reason why a version could not be begun."""

    version: int
    content: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class PlanInput:
    """All that a plan depends on. Mappings are by folded name, ``held`` also by content.

    ``busy``: contents that this device fetches now, in any group, and where to. ``away``: why the
    folder cannot be used now. ``gone``: names that left the list a while ago, longer than a restart
    of the tracker takes.
    """

    folder: str
    globs: Sequence[str]
    listed: Mapping[str, Listed]
    marks: Mapping[str, Mark]
    downloads: Sequence[Fetched]
    held: Mapping[tuple[str, bytes], Held]
    busy: Mapping[bytes, str] = field(default_factory=dict)
    hindered: Mapping[str, Hindrance] = field(default_factory=dict)
    away: str | None = None
    gone: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Fetch:
    """Begin a download to ``path``."""

    share: Listed
    path: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel a download of this follow, and delete its part."""

    key: str


@dataclass(frozen=True, slots=True)
class Settle:
    """Note that a version is settled."""

    share: Listed
    how: Settled


Deed: TypeAlias = Fetch | Cancel | Settle


class State(StrEnum):
    """State of one share with regard to a follow."""

    HELD = "held"
    ELSEWHERE = "elsewhere"
    DISMISSED = "dismissed"
    FETCHING = "fetching"
    QUEUED = "queued"
    WAITING = "waiting"
    FAILED = "failed"
    LEFT_OUT = "left-out"


@dataclass(frozen=True, slots=True)
class Standing:
    """State of one share. ``reason``: why it waits, failed or is left out."""

    share: Listed
    state: State
    path: str
    reason: str | None = None
    verified_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """Deeds to do now, and the state of each share that matches, by name."""

    deeds: tuple[Deed, ...]
    standings: tuple[Standing, ...]


COMPLETE = "C"
_STATES = {"F": State.FAILED, "P": State.WAITING}


def left_out(name: str) -> str | None:
    """Return why a follow fetches no share of that name; None if it may."""
    try:
        share_name(name)
    except BadName as error:
        return error.message
    if _RESERVED.fullmatch(fold_name(name)):
        return "a name with this end is that of a partial download or of an earlier version"
    return None


def plan(facts: PlanInput) -> Plan:
    """Decide what to do. Settled and unchanged facts need no deed."""
    planner = _Planner(facts)
    for key in sorted(facts.listed):
        share = facts.listed[key]
        if matches(facts.globs, share.name):
            planner.consider(key, share)
    planner.cancel_gone()
    return Plan(tuple(planner.deeds), tuple(planner.standings))


class _Planner:
    def __init__(self, facts: PlanInput) -> None:
        self.deeds: list[Deed] = []
        self.standings: list[Standing] = []
        self._facts = facts
        self._busy = dict(facts.busy)
        self._to: dict[str, list[Fetched]] = {}
        for download in facts.downloads:
            self._to.setdefault(download.path, []).append(download)
        self._own = [
            each
            for each in facts.downloads
            if each.own and each.state != COMPLETE and os.path.dirname(each.path) == facts.folder
        ]
        self._free = FETCHES_MAX - len(self._own)

    def consider(self, key: str, share: Listed) -> None:
        """Decide about one share that matches."""
        reason = left_out(share.name)
        if reason is not None:
            self._stand(share, State.LEFT_OUT, "", reason)
            return
        path = os.path.join(self._facts.folder, share.name)
        mark, held = self._facts.marks.get(key), self._facts.held.get((key, share.content))
        if mark is not None and (mark.version, mark.content) == (share.version, share.content):
            self._settled(share, mark.how, path, held)
        elif self._is_placed(share, path):
            self._settle(share, Settled.PLACED, path)
        elif held is not None and held.version == share.version and not held.fetched:
            placed = held.path == path
            self._settle(share, Settled.PLACED if placed else Settled.ELSEWHERE, held.path)
        else:
            self._fetch(key, share, path)

    def _is_placed(self, share: Listed, path: str) -> bool:
        return any(
            each.state == COMPLETE and _is_of(each, share) and each.version == share.version
            for each in self._to.get(path, ())
        )

    def _settle(self, share: Listed, how: Settled, path: str) -> None:
        self.deeds.append(Settle(share, how))
        self._stand(share, State.HELD if how is Settled.PLACED else State.ELSEWHERE, path)

    def _settled(self, share: Listed, how: Settled, path: str, held: Held | None) -> None:
        self._cancel_others(share, path)
        if how is Settled.PLACED:
            self._stand(share, State.HELD, path)
        elif how is Settled.ELSEWHERE:
            self._stand(share, State.ELSEWHERE, held.path if held is not None else "")
        else:
            self._stand(share, State.DISMISSED, path, "cancelled by the user")

    def _cancel_others(self, share: Listed, path: str) -> bool:
        """Cancel downloads of other versions to ``path``; return whether there is one."""
        others = [
            each
            for each in self._to.get(path, ())
            if each.state != COMPLETE and not _is_of(each, share)
        ]
        self.deeds += [Cancel(each.key) for each in others if each.own]
        return bool(others)

    def _fetch(self, key: str, share: Listed, path: str) -> None:
        occupied = self._cancel_others(share, path)
        running = [each for each in self._to.get(path, ()) if each.state != COMPLETE]
        running = [each for each in running if _is_of(each, share)]
        hindered = self._facts.hindered.get(key)
        elsewhere = self._busy.get(share.content)
        if running:
            self._running(share, running[0])
        elif self._facts.away is not None:
            self._stand(share, State.WAITING, path, self._facts.away)
        elif hindered is not None and _same(hindered, share):
            self._stand(share, State.WAITING, path, hindered.reason)
        elif occupied:
            self._stand(share, State.QUEUED, path, "another version is being fetched to its place")
        elif elsewhere is not None:
            self._stand(share, State.QUEUED, path, f"it is being fetched to {quoted(elsewhere)}")
        elif self._free <= 0:
            self._stand(share, State.QUEUED, path)
        else:
            self._free -= 1
            self._busy[share.content] = path
            self.deeds.append(Fetch(share, path))
            self._stand(share, State.QUEUED, path)

    def _running(self, share: Listed, download: Fetched) -> None:
        state = _STATES.get(download.state, State.FETCHING)
        self.standings.append(
            Standing(share, state, download.path, download.reason, download.verified_bytes)
        )

    def cancel_gone(self) -> None:
        """Cancel what is withdrawn, or no longer matches."""
        for download in self._own:
            key = fold_name(download.name)
            share = self._facts.listed.get(key)
            unwanted = share is not None and not matches(self._facts.globs, share.name)
            if unwanted or (share is None and key in self._facts.gone):
                self.deeds.append(Cancel(download.key))

    def _stand(self, share: Listed, state: State, path: str, reason: str | None = None) -> None:
        self.standings.append(Standing(share, state, path, reason))


def _is_of(download: Fetched, share: Listed) -> bool:
    return download.content == share.content and fold_name(download.name) == fold_name(share.name)


def _same(hindered: Hindrance, share: Listed) -> bool:
    return (hindered.version, hindered.content) == (share.version, share.content)
