"""The shapes of which the durable state consists: accounts, groups, their members and shares.

Times are milliseconds since 1970. What happens to them is ``tracker.core.state``'s.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

from common import limits
from common.ids import ContentId, DeviceKey, GroupId, UserId
from tracker.core.changes import ShareId
from tracker.core.throttle import KeyedTokenBuckets, Rate

REQUESTS = Rate(limits.REQUEST_BURST, 1 / limits.REQUEST_S)
ShareRef: TypeAlias = tuple[GroupId, ShareId]
"""Where a share stands: listings of one's own go by its group, then by its name."""


@dataclass(frozen=True, slots=True)
class Account:
    user: UserId
    password_hash: str = field(repr=False)
    at_ms: int


@dataclass(frozen=True, slots=True)
class Binding:
    """Since when a device acts for its user, and when it was last seen, in ms. The second is behind
    while it is online: ``tracker.core.presence`` knows better."""

    at_ms: int
    seen_ms: int


@dataclass(frozen=True, slots=True)
class Member:
    """``seq``: the entry that tells of their joining; the smallest is the longest-standing one."""

    at_ms: int
    seq: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tickets of earlier epochs than this count no more."""

    epoch: int
    at_ms: int


@dataclass(slots=True)
class Share:
    name: str
    content: ContentId
    at_ms: int
    offers: dict[tuple[UserId, DeviceKey], int] = field(default_factory=dict)  # -> since, in ms
    users: dict[UserId, int] = field(default_factory=dict)  # -> on how many devices


@dataclass(slots=True)
class Group:
    id: GroupId
    owner: UserId
    topic: bytes
    key: bytes = field(repr=False)
    seq: int
    epoch: int
    at_ms: int
    members: dict[UserId, Member] = field(default_factory=dict)
    requests: dict[UserId, int] = field(default_factory=dict)  # -> asked at, in ms
    revoked: dict[UserId, Revocation] = field(default_factory=dict)
    shares: dict[ShareId, Share] = field(default_factory=dict)
    share_ids: list[ShareId] = field(default_factory=list)  # of these, in order: for pages
    # The shares that name a content: one content may stand under several names.
    names_of: dict[ContentId, dict[ShareId, None]] = field(default_factory=dict)
    rekey_pending: bool = False  # whether a device that went knows the key
    entries: int = 0  # of the log, as many as are kept; a restored backup leaves a gap in ``seq``
    # Of this process alone: when the last fresh keys came for such devices, and how often each user
    # may ask to be let in.
    rekeyed_ms: deque[int] = field(
        default_factory=lambda: deque(maxlen=limits.REKEYS_MAX), compare=False
    )
    request_buckets: KeyedTokenBuckets = field(
        default_factory=lambda: KeyedTokenBuckets(REQUESTS), compare=False
    )


@dataclass(frozen=True, slots=True)
class GroupTombstone:
    """What a dissolved group leaves behind, so that a new one of that name never repeats a sequence
    number or an epoch, and honours no ticket of the old one."""

    seq: int
    epoch: int
    revoked: dict[UserId, Revocation]
    at_ms: int
