"""Durable changes: what a decision does to the state, as values.

Each is applied to the mirror in memory (``tracker.core.state``) and written by
``tracker.store.store``; the two must agree, and the store's contract suite holds them to it. Times
are milliseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NewType, TypeAlias

from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.events import LogEntry
from tracker.core.budgets import BudgetSpent

ShareId = NewType("ShareId", str)
"""A share's name in the form in which names are compared."""


@dataclass(frozen=True, slots=True)
class AccountCreated:
    user: UserId
    password_hash: str = field(repr=False)
    at_ms: int


@dataclass(frozen=True, slots=True)
class PasswordReplaced:
    user: UserId
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeviceBound:
    """``device`` acts for ``user`` until it is unbound."""

    device: DeviceKey
    user: UserId
    at_ms: int


@dataclass(frozen=True, slots=True)
class DeviceUnbound:
    device: DeviceKey


@dataclass(frozen=True, slots=True)
class DeviceSeen:
    """``device``, which is bound, was last heard of at ``at_ms``."""

    device: DeviceKey
    at_ms: int


@dataclass(frozen=True, slots=True)
class GroupCreated:
    """A group began, without members. ``seq`` and ``epoch`` go on from a former one of the name."""

    group: GroupId
    owner: UserId
    topic: bytes
    key: bytes = field(repr=False)
    seq: int
    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class GroupDissolved:
    """The last member, ``user``, left. Tickets of theirs below ``epoch`` count no more, should a
    group of that name begin anew. Members, requests, shares, offers and log are gone."""

    group: GroupId
    user: UserId
    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class TombstoneExpired:
    """Nothing remembers any more that there was a group of this name."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    group: GroupId
    user: UserId


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """``seq`` is that of the log entry that tells of it: from there on they may read the log."""

    group: GroupId
    user: UserId
    seq: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class MemberGone:
    """``user`` is no member any more; the group goes on in ``epoch`` with a fresh event key."""

    group: GroupId
    user: UserId
    epoch: int
    key: bytes = field(repr=False)
    at_ms: int


@dataclass(frozen=True, slots=True)
class RekeyPending:
    """A device that went knows the group's event key, and the next one may not come yet."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class GroupRekeyed:
    """The group goes on in ``epoch`` with a fresh event key; nobody went."""

    group: GroupId
    epoch: int
    key: bytes = field(repr=False)
    at_ms: int


@dataclass(frozen=True, slots=True)
class GroupKeyHanded:
    """The group goes on in ``epoch`` with a fresh event key, published on ``topic`` under
    ``old_key`` of the epoch before: all who hold that one may have it. A key that is owed
    (`KeyOwed`) stays owed."""

    group: GroupId
    epoch: int
    key: bytes = field(repr=False)
    topic: bytes
    old_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevocationForgotten:
    """Every ticket that the revocation was about has expired."""

    group: GroupId
    user: UserId


@dataclass(frozen=True, slots=True)
class RequestMade:
    group: GroupId
    user: UserId
    at_ms: int


@dataclass(frozen=True, slots=True)
class RequestDropped:
    group: GroupId
    user: UserId


@dataclass(frozen=True, slots=True)
class ManifestSummary:
    """What the tracker knows of a content without reading its manifest again."""

    content: ContentId
    manifest_bytes: int
    size: int
    files: int
    pieces: int
    piece_length: int
    algorithm: str
    digest: bytes
    stored_ms: int


@dataclass(frozen=True, slots=True)
class ManifestStored:
    """``sender`` counts for this process alone: whose offer is to follow."""

    summary: ManifestSummary
    body: bytes = field(repr=False)
    sender: UserId | None = None


@dataclass(frozen=True, slots=True)
class ManifestShown:
    """``user`` has sent the whole manifest: they know what is in it. Of this process alone."""

    user: UserId
    content: ContentId


@dataclass(frozen=True, slots=True)
class ManifestDropped:
    content: ContentId


@dataclass(frozen=True, slots=True)
class ShareAdded:
    group: GroupId
    share: ShareId
    name: str
    content: ContentId
    at_ms: int


@dataclass(frozen=True, slots=True)
class ShareDropped:
    """Nobody offers it any more. All its offers were dropped before."""

    group: GroupId
    share: ShareId
    content: ContentId
    at_ms: int


@dataclass(frozen=True, slots=True)
class OfferAdded:
    group: GroupId
    share: ShareId
    content: ContentId
    user: UserId
    device: DeviceKey
    at_ms: int


@dataclass(frozen=True, slots=True)
class OfferDropped:
    group: GroupId
    share: ShareId
    content: ContentId
    user: UserId
    device: DeviceKey


@dataclass(frozen=True, slots=True)
class OffersEnded:
    """All that ``user`` offered in the group ended at once, on all devices or on ``device``, and
    with it each share that nobody else offers. Comes after `MemberGone` or `DeviceUnbound`, from
    which the swarms follow."""

    group: GroupId
    user: UserId
    at_ms: int
    device: DeviceKey | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of a group's log. It is published on ``topic``, sealed with the ``key`` of
    ``key_epoch``, which for an entry that begins a new epoch is the one before."""

    entry: LogEntry
    topic: bytes
    key: bytes = field(repr=False)
    key_epoch: int

    @property
    def group(self) -> GroupId:
        return GroupId(self.entry.group)


@dataclass(frozen=True, slots=True)
class LogTrimmed:
    """The ``count`` oldest entries of a group's log are gone: it has become too long."""

    group: GroupId
    count: int


@dataclass(frozen=True, slots=True)
class ReceiptStored:
    """The command with this id of this device was done; its repetition changes nothing.
    ``fingerprint`` tells the same command from another one under the same id."""

    device: DeviceKey
    request_id: bytes
    fingerprint: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class ReceiptsExpired:
    """Receipts from before ``before_ms`` are gone."""

    before_ms: int


Change: TypeAlias = (
    AccountCreated
    | PasswordReplaced
    | DeviceBound
    | DeviceUnbound
    | DeviceSeen
    | GroupCreated
    | GroupDissolved
    | TombstoneExpired
    | OwnerChanged
    | MemberJoined
    | MemberGone
    | RekeyPending
    | GroupRekeyed
    | GroupKeyHanded
    | RevocationForgotten
    | RequestMade
    | RequestDropped
    | ManifestStored
    | ManifestShown
    | ManifestDropped
    | ShareAdded
    | ShareDropped
    | OfferAdded
    | OfferDropped
    | OffersEnded
    | Logged
    | LogTrimmed
    | ReceiptStored
    | ReceiptsExpired
    | BudgetSpent
)
