"""Results as values: dataclasses with the keys of the API's documents.

Sizes are bytes, rates bytes a second, times RFC 3339 texts. Keys that a newer peer adds are kept in
``more`` where a result has it, and are ignored otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


def from_document(kind: type[T], document: Mapping[str, Any]) -> T:
    """Build ``kind`` from a JSON object. Raises TypeError if a key without a default is missing."""
    known = {one.name for one in fields(kind)}  # type: ignore[arg-type]
    made = {name: value for name, value in document.items() if name in known}
    if "more" in known:
        made["more"] = {name: value for name, value in document.items() if name not in known}
    return kind(**made)


@dataclass(frozen=True)
class Status:
    """State of the peer. ``user`` is None while none is logged in."""

    user: str | None
    connected: bool
    tracker: str
    listen: str
    device: str
    shares: int
    downloads: int
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """A group. ``role``: owner, member, pending or none."""

    group: str
    owner: str
    members: int
    role: str


@dataclass(frozen=True)
class User:
    """A user in a group, or one who asks to join it. ``online``: number of devices."""

    user: str
    role: str
    since: str
    online: int


@dataclass(frozen=True)
class File:
    """A share of a group: a file or a folder of ``files`` files.

    ``folder``: whether it is a folder; None: not known of a share from before the tracker kept it.
    """

    name: str
    size_bytes: int
    files: int
    pieces: int
    piece_bytes: int
    algorithm: str
    digest: str
    seeders: int
    leechers: int
    shared_by: list[str]
    version: int = 1
    folder: bool | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared(File):
    """A share that was just made. ``joined``: others shared the same content before."""

    elapsed_s: float = 0.0
    joined: bool = False
    notes: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Download:
    """A row of the list of downloads. ``state``: downloading, complete, paused or failed."""

    state: str
    group: str
    name: str
    path: str
    size_bytes: int
    verified_bytes: int
    rate_bytes_per_s: float
    eta_s: float | None
    reason: str | None
    version: int = 1
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Downloaded:
    """A finished download, verified and in place at ``path``."""

    group: str
    name: str
    path: str
    size_bytes: int
    algorithm: str
    digest: str
    elapsed_s: float
    rate_bytes_per_s: float
    fetched_bytes: int
    reused_bytes: int
    version: int = 1
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A source of a running download; ``verdict`` is its state in words."""

    user: str
    endpoint: str
    complete: bool
    rate_bytes_per_s: float
    pieces: int
    in_flight: int
    verdict: str
    device: str = ""
    id: str = ""


@dataclass(frozen=True)
class Progress:
    """Progress of an upload or download. ``done`` and ``total`` are bytes, ``rate`` bytes/s."""

    stage: str
    done: int
    total: int
    rate: float = 0.0
    eta_s: float | None = None
    sources: int = 0
    note: str | None = None
    advice: str | None = None


@dataclass(frozen=True)
class Event:
    """An event of a group. ``id`` resumes a stream after it; ``details`` depend on the event."""

    id: str
    event: str
    group: str
    time: str
    seq: int
    details: dict[str, Any]
