"""Durable changes: the effects of a decision on the state, as values.

Each is applied to the mirror in memory (see tracker.core.state) and written to the database (see
tracker.store.statements). Invariant: the two agree; the store's contract suite checks it. Times are
milliseconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, NewType, TypeAlias

from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.events import LogEntry
from tracker.core.budgets import BudgetSpent
from tracker.core.follow_changes import FollowEnded, FollowSet
from tracker.core.invitation_changes import InvitationChange
from tracker.core.operator_changes import OperatorChange

NameId = NewType("NameId", str)
"""A name of a share, folded for comparison."""


class ShareId(NamedTuple):
    """One version of a name; sorts by name, then by version."""

    name: NameId
    version: int


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
    """``device``, which is bound, was last seen at ``at_ms``."""

    device: DeviceKey
    at_ms: int


@dataclass(frozen=True, slots=True)
class GroupCreated:
    """A new group without members. ``seq`` and ``epoch`` continue those of a tombstone, if any."""

    group: GroupId
    owner: UserId
    topic: bytes
    key: bytes = field(repr=False)
    seq: int
    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class GroupDissolved:
    """Members, requests, invitations, shares, offers and log of the group are deleted.

    ``user``: the last member, or one of those who were left when the operator deleted it. Tickets
    of all these below ``epoch`` are invalid if the name is used for a new group.
    """

    group: GroupId
    user: UserId
    epoch: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class TombstoneExpired:
    """The tombstone of the former group of this name is deleted."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class OwnerChanged:
    """Another member owns the group; the invitations of the owner before end."""

    group: GroupId
    user: UserId


@dataclass(frozen=True, slots=True)
class MemberJoined:
    """``seq`` is that of the log entry of this event; the member may read the log from there on."""

    group: GroupId
    user: UserId
    seq: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class MemberGone:
    """``user`` is no longer a member; the group continues in ``epoch`` with a fresh event key."""

    group: GroupId
    user: UserId
    epoch: int
    key: bytes = field(repr=False)
    at_ms: int


@dataclass(frozen=True, slots=True)
class RekeyPending:
    """A device that was unbound knows the group's event key; rate limits delay the next key."""

    group: GroupId


@dataclass(frozen=True, slots=True)
class GroupRekeyed:
    """The group continues in ``epoch`` with a fresh event key; its members are the same."""

    group: GroupId
    epoch: int
    key: bytes = field(repr=False)
    at_ms: int


@dataclass(frozen=True, slots=True)
class GroupKeyHanded:
    """The group continues in ``epoch`` with a fresh event key that all members may have.

    It is published on ``topic``, sealed with ``old_key`` of the epoch before. A pending rekey
    (`RekeyPending`) stays pending: the device that caused it could open this one.
    """

    group: GroupId
    epoch: int
    key: bytes = field(repr=False)
    topic: bytes
    old_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class RevocationForgotten:
    """All tickets that the revocation concerns have expired."""

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


@dataclass(frozen=True, slots=True)
class ManifestStored:
    """``sender``, in memory only: the user whose offer should follow."""

    summary: ManifestSummary
    body: bytes = field(repr=False)
    sender: UserId | None = None


@dataclass(frozen=True, slots=True)
class ManifestShown:
    """``user`` has sent the whole manifest, and so knows its content. In memory only."""

    user: UserId
    content: ContentId


@dataclass(frozen=True, slots=True)
class ManifestDropped:
    content: ContentId


@dataclass(frozen=True, slots=True)
class VersionAdded:
    """A version of ``name`` is on record: ``user`` shared it first. Its offer follows."""

    group: GroupId
    share: ShareId
    name: str
    content: ContentId
    user: UserId
    at_ms: int


@dataclass(frozen=True, slots=True)
class VersionsWithdrawn:
    """``version`` of a name, with ``earlier`` all before it too, may not be offered again.

    All their offers end. ``contents``: those of the versions that have offers.
    """

    group: GroupId
    name: NameId
    version: int
    earlier: bool
    contents: tuple[ContentId, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class NameForgotten:
    """A name without offers leaves the record, with its withdrawals."""

    group: GroupId
    name: NameId


@dataclass(frozen=True, slots=True)
class ShareAdded:
    """A version on record is listed: it gets its first offer."""

    group: GroupId
    share: ShareId
    content: ContentId
    at_ms: int


@dataclass(frozen=True, slots=True)
class ShareDropped:
    """The share has no offers left; they were dropped before. A name without any share ends."""

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
    """All offers of ``user`` in the group ended, on all devices or on ``device``.

    Shares without another offer end too. It follows `MemberGone` or `DeviceUnbound`, which update
    the swarms.
    """

    group: GroupId
    user: UserId
    at_ms: int
    device: DeviceKey | None = None


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of a group's log, published on ``topic``, sealed with ``key`` of ``key_epoch``.

    An entry that begins a new epoch is sealed with the key of the epoch before.
    """

    entry: LogEntry
    topic: bytes
    key: bytes = field(repr=False)
    key_epoch: int

    @property
    def group(self) -> GroupId:
        return GroupId(self.entry.group)


@dataclass(frozen=True, slots=True)
class LogTrimmed:
    """The ``count`` oldest entries of a group's log are deleted: it was too long."""

    group: GroupId
    count: int


@dataclass(frozen=True, slots=True)
class ReceiptStored:
    """Idempotency receipt: a repetition of this command of this device changes nothing.

    ``fingerprint`` tells the same command from another one under the same id.
    """

    device: DeviceKey
    request_id: bytes
    fingerprint: bytes
    at_ms: int


@dataclass(frozen=True, slots=True)
class ReceiptsExpired:
    """Receipts from before ``before_ms`` are deleted."""

    before_ms: int


Change: TypeAlias = (
    AccountCreated
    | PasswordReplaced
    | OperatorChange
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
    | InvitationChange
    | ManifestStored
    | ManifestShown
    | ManifestDropped
    | VersionAdded
    | VersionsWithdrawn
    | NameForgotten
    | ShareAdded
    | ShareDropped
    | OfferAdded
    | OfferDropped
    | OffersEnded
    | FollowSet
    | FollowEnded
    | Logged
    | LogTrimmed
    | ReceiptStored
    | ReceiptsExpired
    | BudgetSpent
)
