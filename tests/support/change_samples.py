"""A sample of each durable change, with a value in every field."""

from __future__ import annotations

from typing import Any

from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events
from common.messages.operator import Registration
from tracker.core.budgets import Budget, BudgetSpent
from tracker.core.changes.accounts import (
    AccountCreated,
    AccountDeleted,
    AccountDisabled,
    DeviceBound,
    DeviceSeen,
    DeviceUnbound,
    PasswordReplaced,
    RegistrationSet,
)
from tracker.core.changes.follows import FollowEnded, FollowSet
from tracker.core.changes.groups import (
    GroupCreated,
    GroupDissolved,
    GroupKeyHanded,
    GroupRekeyed,
    Logged,
    LogTrimmed,
    MemberGone,
    MemberJoined,
    OwnerChanged,
    RekeyPending,
    RequestDropped,
    RequestMade,
    RevocationForgotten,
    TombstoneExpired,
)
from tracker.core.changes.invitations import (
    InvitationDropped,
    InvitationMade,
    InvitationsExpired,
    InvitationUsed,
)
from tracker.core.changes.receipts import ReceiptsExpired, ReceiptStored
from tracker.core.changes.shares import (
    ManifestDropped,
    ManifestStored,
    NameForgotten,
    OfferAdded,
    OfferDropped,
    OffersEnded,
    ShareAdded,
    ShareDropped,
    VersionAdded,
    VersionsWithdrawn,
)
from tracker.core.records import ManifestSummary
from tracker.core.share_names import NameId, ShareId

MS = 1_900_000_000_123
FILMS, BOB = GroupId("films"), UserId("bob")
DEVICE, CONTENT = DeviceKey(bytes(range(32))), ContentId(bytes(range(32, 64)))
KEY, OLD_KEY, TOPIC = bytes(range(64, 96)), bytes(range(96, 128)), bytes(range(16))
SHARE = ShareId(NameId("film.mkv"), 3)
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"

SAMPLES: list[Any] = [
    AccountCreated(BOB, HASH, MS),
    PasswordReplaced(BOB, HASH),
    AccountDisabled(BOB, True),
    AccountDeleted(BOB),
    RegistrationSet(Registration.INVITE),
    DeviceBound(DEVICE, BOB, MS),
    DeviceUnbound(DEVICE),
    DeviceSeen(DEVICE, MS),
    GroupCreated(FILMS, BOB, TOPIC, KEY, 7, 2, MS),
    GroupDissolved(FILMS, BOB, 4, MS),
    TombstoneExpired(FILMS),
    OwnerChanged(FILMS, BOB),
    MemberJoined(FILMS, BOB, 8, MS),
    MemberGone(FILMS, BOB, 5, KEY, MS),
    RekeyPending(FILMS),
    GroupRekeyed(FILMS, 5, KEY, MS),
    GroupKeyHanded(FILMS, 5, KEY, TOPIC, OLD_KEY),
    RevocationForgotten(FILMS, BOB),
    RequestMade(FILMS, BOB, MS),
    RequestDropped(FILMS, BOB),
    InvitationMade(FILMS, KEY, BOB, MS, MS + 1, 20),
    InvitationUsed(FILMS, KEY),
    InvitationDropped(FILMS, KEY),
    InvitationsExpired(MS),
    ManifestStored(
        ManifestSummary(CONTENT, 300, 1_048_577, 1, 3, 524_288, "blake3", KEY, MS), b"", BOB
    ),
    ManifestDropped(CONTENT),
    VersionAdded(FILMS, SHARE, "Film.mkv", CONTENT, BOB, MS),
    VersionsWithdrawn(FILMS, SHARE.name, 3, True, (CONTENT, ContentId(KEY)), MS),
    NameForgotten(FILMS, SHARE.name),
    ShareAdded(FILMS, SHARE, CONTENT, MS),
    ShareDropped(FILMS, SHARE, CONTENT, MS),
    OfferAdded(FILMS, SHARE, CONTENT, BOB, DEVICE, MS),
    OfferDropped(FILMS, SHARE, CONTENT, BOB, DEVICE),
    OffersEnded(FILMS, BOB, MS, DEVICE),
    FollowSet(FILMS, BOB, DEVICE, ("*.mkv", "*.iso"), MS),
    FollowEnded(FILMS, DEVICE),
    Logged(events.LogEntry("films", 9, MS, 2, events.Joined("bob", "alice")), TOPIC, OLD_KEY, 1),
    LogTrimmed(FILMS, 1_000),
    ReceiptStored(DEVICE, b"12345678", KEY, MS),
    ReceiptsExpired(MS),
    BudgetSpent(Budget.OFFERS, BOB, DEVICE, 2, MS),
]
