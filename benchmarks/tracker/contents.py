"""Database of a tracker with many accounts, shares and offers.

Owns: the changes that make it. Not here: the load on it (see benchmarks.tracker.questions).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from common.crypto.keys import KeyPair, new_pair
from common.ids import ContentId, DeviceKey, GroupId, UserId
from common.messages.events import Joined, LogEntry
from tracker.core.changes.accounts import AccountCreated, DeviceBound
from tracker.core.changes.base import Change
from tracker.core.changes.groups import GroupCreated, Logged, MemberJoined
from tracker.core.changes.shares import ManifestStored, OfferAdded, ShareAdded, VersionAdded
from tracker.core.records import ManifestSummary
from tracker.core.share_names import NameId, ShareId
from tracker.store.table_store import TableStore

_BATCH = 20_000  # changes in one transaction
_BEGAN_MS = 1_790_000_000_000  # times are as long as real ones, and differ as these do
GROUP = GroupId("lab")


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of what is in the database. Each share has ``offers`` offers of the group's users.

    ``pairs``: that many devices, the first of them, have keys.
    """

    accounts: int = 10
    groups: int = 1
    shares: int = 1_000
    offers: int = 4
    entries: int = 1_000
    pairs: int = 1


def fill(store: TableStore, plan: Plan) -> list[KeyPair]:
    """Fill the database of ``store``, and close it. Return the keys of the first devices."""
    pairs = [new_pair() for _ in range(plan.pairs)]
    batch: list[Change] = []
    for change in _changes(plan, [pair.public for pair in pairs]):
        batch.append(change)
        if len(batch) == _BATCH:
            store.commit(batch)
            batch.clear()
    store.commit(batch)
    store.close()
    return pairs


def group_of(number: int) -> GroupId:
    """Return the name of a group."""
    return GroupId(f"{GROUP}{number or ''}")


def content_of(group: GroupId, share: int) -> ContentId:
    """Return the id of the manifest of a share."""
    return ContentId(_digest(f"{group} {share}"))


def _changes(plan: Plan, first: list[DeviceKey]) -> Iterator[Change]:
    devices = [*first, *(DeviceKey(_digest(f"d{n}")) for n in range(len(first), plan.accounts))]
    for number, device in enumerate(devices):
        user = UserId(f"user{number}")
        yield AccountCreated(user, "none", _BEGAN_MS + number)
        yield DeviceBound(device, user, _BEGAN_MS + number + 1)
    for number in range(plan.groups):
        yield from _group(plan, number, devices)


def _group(plan: Plan, number: int, devices: list[DeviceKey]) -> Iterator[Change]:
    group = group_of(number)
    count = max(1, plan.accounts // plan.groups)
    members = [
        (UserId(f"user{n}"), devices[n]) for n in range(number * count, number * count + count)
    ]
    topic, key, last = _digest(f"t{number}")[:16], _digest(f"k{number}"), plan.entries
    yield GroupCreated(group, members[0][0], topic, key, 0, 1, 1)
    for seq, (user, _) in enumerate(members, 1):
        yield MemberJoined(group, user, 1, seq)
    for seq in range(1, last + 1):
        entry = LogEntry(group, seq, seq, 1, Joined(members[seq % count][0]))
        yield Logged(entry, topic, key, 1)
    for share in range(plan.shares // plan.groups):
        yield from _share(plan, group, share, members)


def _share(
    plan: Plan, group: GroupId, number: int, members: list[tuple[UserId, DeviceKey]]
) -> Iterator[Change]:
    text, at_ms = f"file-{number:06}.bin", _BEGAN_MS + 1_000 * number
    content = content_of(group, number)
    share = ShareId(NameId(text), 1)
    summary = ManifestSummary(
        content, 300, 1 << 30, 1, 512, 1 << 21, "blake3", _digest(text), at_ms
    )
    user = members[number % len(members)][0]
    yield ManifestStored(summary, b"m" * 300, user)
    yield VersionAdded(group, share, text, content, user, at_ms)
    yield ShareAdded(group, share, content, at_ms)
    for offer in range(min(plan.offers, len(members))):
        user, device = members[(number + offer) % len(members)]
        yield OfferAdded(group, share, content, user, device, at_ms + offer)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
