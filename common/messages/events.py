"""Messages that the tracker publishes, and the entries of a group's log.

A `LogEntry` is durable before it is published and bears its place in the group's log. `PeerUpdate`
is soft: the devices that offer or fetch one share right now. All bodies are sealed with the key of
the group's epoch (``common.crypto.event_seal``); `Nudge` with the key of one device's inbox; `Beat`
is open, since it names no user, group or device.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from common import limits
from common.messages.base import (
    Count,
    Digest,
    IdText,
    Key32,
    ShareName,
    Source,
    TimeMs,
    Version,
    Wire,
)

# -- the events of a group's log ----------------------------------------------------------------


class Created(Wire, frozen=True):
    """The group began, with ``user`` as its owner."""

    user: IdText


class Requested(Wire, frozen=True):
    """Request of ``user`` to join."""

    user: IdText


class Rejected(Wire, frozen=True):
    """The owner did not let ``user`` in."""

    user: IdText


class Joined(Wire, frozen=True):
    """New member. ``by``: the member whose invitation ``user`` had; None after a request."""

    user: IdText
    by: IdText | None = None


class Left(Wire, frozen=True):
    """End of a membership by ``user``: tickets of theirs below ``epoch`` no longer count."""

    user: IdText
    epoch: Count


class Removed(Wire, frozen=True):
    """End of the membership of ``user`` by the owner: tickets of theirs below ``epoch`` no longer
    count."""

    user: IdText
    epoch: Count


class Owner(Wire, frozen=True):
    """Ownership passed to ``user``."""

    user: IdText


class Device(Wire, frozen=True):
    """Login (``bound``) or logout of ``user`` on ``device``."""

    user: IdText
    device: Key32
    bound: bool


class Shared(Wire, frozen=True):
    """A version of a name appeared: ``user`` is the first to offer it.

    It is the current one, unless a higher version appeared before: an earlier version may be
    offered again.
    """

    user: IdText
    name: ShareName
    content: Key32
    size: Count
    files: Count
    algorithm: Annotated[str, Meta(max_length=16)]
    digest: Digest
    version: Version = 1


class Seeding(Wire, frozen=True):
    """One more member offers a share that others offered before."""

    user: IdText
    name: ShareName
    content: Key32
    version: Version = 1


class Stopped(Wire, frozen=True):
    """One of several members stopped offering a share."""

    user: IdText
    name: ShareName
    content: Key32
    version: Version = 1


class Unshared(Wire, frozen=True):
    """The last one to offer a version of a name stopped: it is no longer listed."""

    user: IdText
    name: ShareName
    content: Key32
    version: Version = 1


class Withdrawn(Wire, frozen=True):
    """All offers of ``version`` of ``name`` ended, and it may not be offered again.

    ``earlier``: so did those of all versions before it. ``user``: the owner of the group or the
    sharer, or the one whose new version took the place of the oldest.
    """

    user: IdText
    name: ShareName
    version: Version
    earlier: bool


GroupEvent: TypeAlias = (
    Created
    | Requested
    | Rejected
    | Joined
    | Left
    | Removed
    | Owner
    | Device
    | Shared
    | Seeding
    | Stopped
    | Unshared
    | Withdrawn
)


# -- what is published --------------------------------------------------------------------------


class LogEntry(Wire, frozen=True):
    """An event at its place in its group's log. ``epoch``: the group's, once this has happened."""

    group: IdText
    seq: Count
    time_ms: TimeMs
    epoch: Count
    event: GroupEvent


class GroupHead(Wire, frozen=True):
    """The head of an active group's log, repeated for a while, so that a loss is noticed."""

    group: IdText
    seq: Count
    epoch: Count


class NewKey(Wire, frozen=True):
    """The group goes on in ``epoch`` with ``key``, for all holders of the key before it: no member
    left.

    It is soft. A device that missed it asks for the key, as for every epoch that it does not know.
    """

    group: IdText
    epoch: Count
    key: Key32


class PeerUpdate(Wire, frozen=True):
    """Changes of one share's peer set, gathered over ``limits.COALESCE_S``."""

    group: IdText
    content: Key32
    up: Annotated[list[Source], Meta(max_length=limits.SOURCES_MAX)] = msgspec.field(
        default_factory=list
    )
    down: Annotated[list[Key32], Meta(max_length=1000)] = msgspec.field(default_factory=list)


class Nudge(Wire, frozen=True):
    """Hint to one device: its groups changed in a way that their own topics cannot tell it."""


class Beat(Wire, frozen=True):
    """The tracker's sign of life, unsealed, on ``BEAT_TOPIC``.

    ``cut_off``: it has lost its database, which other trackers may reach.
    """

    tracker_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    time_ms: TimeMs
    cut_off: bool = False


BEAT_TOPIC = b"MT-beat"

Published: TypeAlias = LogEntry | GroupHead | NewKey | PeerUpdate | Nudge | Beat
