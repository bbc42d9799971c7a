"""Records of the durable state: accounts, groups, their members and shares.

Owns: the types. Not here: their changes (see tracker.core.changes). Times are ms since 1970. Why
``gc=False``: these have no cycles, so Python need not search millions of them.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from msgspec import Raw, Struct

from common import limits
from common.errors import LocalProtocolError
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.token_bucket import KeyedTokenBuckets, Rate
from tracker.core.share_names import ShareId, ShareNames
from tracker.core.undo import UndoLog

_LOOKED_THROUGH = 16  # offers of a share, in less than a microsecond
REQUESTS = Rate(limits.REQUEST_BURST, 1 / limits.REQUEST_S)
Holder: TypeAlias = tuple[UserId, DeviceKey]
"""Device that offers shares, as the one of a user: another user may have offers on it too."""


@dataclass(frozen=True, slots=True)
class Account:
    user: UserId
    password_hash: str = field(repr=False)
    at_ms: int
    disabled: bool = False


class Binding(Struct, frozen=True, gc=False):
    """Login of a device: when it was bound, and when it was last seen.

    While a device is online ``seen_ms`` lags behind (see tracker.core.presence).
    """

    at_ms: int
    seen_ms: int


class Member(Struct, frozen=True, gc=False):
    """Membership. ``seq``: the log entry of the joining; the smallest is the longest member's."""

    at_ms: int
    seq: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """Tickets of epochs before ``epoch`` are invalid."""

    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Invitation:
    """Invitation of ``user``, the owner. ``used``: how many of its ``uses`` are taken."""

    user: UserId
    at_ms: int
    expires_ms: int
    uses: int
    used: int = 0


@dataclass(frozen=True, slots=True)
class FollowRecord:
    """A device of ``user`` follows a group; ``globs`` as in `SetFollow`."""

    user: UserId
    globs: tuple[str, ...]
    at_ms: int


class ManifestSummary(Struct, frozen=True, gc=False):
    """Facts about a content that the tracker needs without its manifest; a row of its table."""

    content: ContentId
    manifest_bytes: int
    size: int
    files: int
    pieces: int
    piece_length: int
    algorithm: str
    digest: bytes
    stored_ms: int
    folder: bool | None = None
    """Whether it is a folder; None: stored by a release that kept no record of it."""


class ListedRow(NamedTuple):
    """The row of a share in a listing, encoded as it is sent, and what it was made from."""

    seeders: int
    leechers: int
    current: bool
    encoded: Raw


@dataclass(slots=True)
class Share:
    """A version of a name that is offered. ``name`` is its text.

    Shares sort by group, name and version, as in `MyOffers`.
    """

    group: GroupId
    id: ShareId
    name: str
    content: ContentId
    at_ms: int
    offers: dict[Holder, int] = field(default_factory=dict)  # -> since when, in ms
    # The number of devices of each user, once the offers are too many to look through.
    _users: Counter[UserId] | None = field(default=None, compare=False, repr=False)
    # In memory only: the encoded row of a listing, until an offer begins or ends.
    listed: ListedRow | None = field(default=None, compare=False, repr=False)

    def __lt__(self, other: Share) -> bool:
        return (self.group, self.id) < (other.group, other.id)

    def is_of(self, user: UserId) -> bool:
        """Whether ``user`` offers it on any device."""
        if self._users is not None:
            return user in self._users
        return any(other == user for other, _ in self.offers)

    def begin(self, offers: dict[Holder, int]) -> None:
        """Take all offers, in any order."""
        times = list(offers.values())
        if times != sorted(times):
            offers = dict(sorted(offers.items(), key=lambda item: item[1]))
        self.offers = offers
        if len(offers) > _LOOKED_THROUGH:
            self._users = Counter(user for user, _ in offers)

    def add(self, holder: Holder, at_ms: int, undo: UndoLog) -> None:
        """Add an offer."""
        undo.field(self, "listed", "_users")
        undo.item(self.offers, holder)
        self.listed = None
        self.offers[holder] = at_ms
        if self._users is not None:
            undo.item(self._users, holder[0])
            self._users[holder[0]] += 1
        elif len(self.offers) > _LOOKED_THROUGH:
            self._users = Counter(user for user, _ in self.offers)

    def drop(self, holder: Holder, undo: UndoLog) -> None:
        """Drop an offer."""
        undo.field(self, "listed", "_users")
        undo.removal(self.offers, holder)
        self.listed = None
        del self.offers[holder]
        if self._users is not None:
            undo.item(self._users, holder[0])
            self._users[holder[0]] -= 1
            if not self._users[holder[0]]:
                del self._users[holder[0]]


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
    requests: dict[UserId, int] = field(default_factory=dict)  # -> requested at, in ms
    revoked: dict[UserId, Revocation] = field(default_factory=dict)
    names: ShareNames = field(default_factory=ShareNames)
    invitations: dict[bytes, Invitation] = field(default_factory=dict)  # by the secret's hash
    shares: dict[ShareId, Share] = field(default_factory=dict)
    share_ids: list[ShareId] = field(default_factory=list)  # sorted, for pages
    # The shares of a content, in no order: one content may have several names.
    names_of: dict[ContentId, tuple[ShareId, ...]] = field(default_factory=dict)
    follows: dict[DeviceKey, FollowRecord] = field(default_factory=dict)
    size_bytes: int = 0  # of the contents of all shares
    rekey_pending: bool = False  # a device that was unbound knows the key
    entries: int = 0  # that the log keeps; less than ``seq``, which a restore makes leap
    # In memory only: the times of the last rekeys, and the budget of join requests of each user.
    rekeyed_ms: deque[int] = field(
        default_factory=lambda: deque(maxlen=limits.REKEYS_MAX), compare=False
    )
    request_buckets: KeyedTokenBuckets = field(
        default_factory=lambda: KeyedTokenBuckets(REQUESTS), compare=False
    )

    def rekey(self, epoch: int, key: bytes, undo: UndoLog) -> None:
        """Begin another epoch with its key."""
        undo.field(self, "epoch", "key", "rekey_pending")
        self.epoch, self.key, self.rekey_pending = epoch, key, False

    def count_entry(self, seq: int, undo: UndoLog) -> None:
        """Count an entry of the log. Raises `LocalProtocolError` if it is not the next one."""
        if seq != self.seq + 1:
            raise LocalProtocolError(f"entry {seq} after {self.seq} in the log of {self.id}")
        undo.field(self, "seq", "entries")
        self.seq = seq
        self.entries += 1


@dataclass(frozen=True, slots=True)
class GroupTombstone:
    """Tombstone of a dissolved group.

    Invariant: a new group of that name repeats no sequence number and no epoch, and accepts no
    ticket of the old one.
    """

    seq: int
    epoch: int
    revoked: dict[UserId, Revocation]
    at_ms: int
