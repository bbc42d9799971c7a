"""A sample of each durable change, with a value in every field."""

from __future__ import annotations

from typing import Any

from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages import events
from common.messages.operator import Registration
from tracker.core import changes as c
from tracker.core.budgets import Budget, BudgetSpent
from tracker.core.changes import NameId, ShareId
from tracker.core.follow_changes import FollowEnded, FollowSet
from tracker.core.invitation_changes import (
    InvitationDropped,
    InvitationMade,
    InvitationsExpired,
    InvitationUsed,
)
from tracker.core.operator_changes import AccountDeleted, AccountDisabled, RegistrationSet

MS = 1_900_000_000_123
FILMS, BOB = GroupId("films"), UserId("bob")
DEVICE, CONTENT = DeviceKey(bytes(range(32))), ContentId(bytes(range(32, 64)))
KEY, OLD_KEY, TOPIC = bytes(range(64, 96)), bytes(range(96, 128)), bytes(range(16))
SHARE = ShareId(NameId("film.mkv"), 3)
HASH = "$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA"

SAMPLES: list[Any] = [
    c.AccountCreated(BOB, HASH, MS),
    c.PasswordReplaced(BOB, HASH),
    AccountDisabled(BOB, True),
    AccountDeleted(BOB),
    RegistrationSet(Registration.INVITE),
    c.DeviceBound(DEVICE, BOB, MS),
    c.DeviceUnbound(DEVICE),
    c.DeviceSeen(DEVICE, MS),
    c.GroupCreated(FILMS, BOB, TOPIC, KEY, 7, 2, MS),
    c.GroupDissolved(FILMS, BOB, 4, MS),
    c.TombstoneExpired(FILMS),
    c.OwnerChanged(FILMS, BOB),
    c.MemberJoined(FILMS, BOB, 8, MS),
    c.MemberGone(FILMS, BOB, 5, KEY, MS),
    c.RekeyPending(FILMS),
    c.GroupRekeyed(FILMS, 5, KEY, MS),
    c.GroupKeyHanded(FILMS, 5, KEY, TOPIC, OLD_KEY),
    c.RevocationForgotten(FILMS, BOB),
    c.RequestMade(FILMS, BOB, MS),
    c.RequestDropped(FILMS, BOB),
    InvitationMade(FILMS, KEY, BOB, MS, MS + 1, 20),
    InvitationUsed(FILMS, KEY),
    InvitationDropped(FILMS, KEY),
    InvitationsExpired(MS),
    c.ManifestStored(
        c.ManifestSummary(CONTENT, 300, 1_048_577, 1, 3, 524_288, "blake3", KEY, MS), b"", BOB
    ),
    c.ManifestDropped(CONTENT),
    c.VersionAdded(FILMS, SHARE, "Film.mkv", CONTENT, BOB, MS),
    c.VersionsWithdrawn(FILMS, SHARE.name, 3, True, (CONTENT, ContentId(KEY)), MS),
    c.NameForgotten(FILMS, SHARE.name),
    c.ShareAdded(FILMS, SHARE, CONTENT, MS),
    c.ShareDropped(FILMS, SHARE, CONTENT, MS),
    c.OfferAdded(FILMS, SHARE, CONTENT, BOB, DEVICE, MS),
    c.OfferDropped(FILMS, SHARE, CONTENT, BOB, DEVICE),
    c.OffersEnded(FILMS, BOB, MS, DEVICE),
    FollowSet(FILMS, BOB, DEVICE, ("*.mkv", "*.iso"), MS),
    FollowEnded(FILMS, DEVICE),
    c.Logged(events.LogEntry("films", 9, MS, 2, events.Joined("bob", "alice")), TOPIC, OLD_KEY, 1),
    c.LogTrimmed(FILMS, 1_000),
    c.ReceiptStored(DEVICE, b"12345678", KEY, MS),
    c.ReceiptsExpired(MS),
    BudgetSpent(Budget.OFFERS, BOB, DEVICE, 2, MS),
]
