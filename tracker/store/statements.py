"""How each durable change is written to the tables.

Owns the statements; the transaction around them, and when it is committed, is
``tracker.store.store``'s. All values travel as bound parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import assert_never

import msgspec
from sqlalchemy import Connection, Table, and_, delete, exists, insert, select, update

from common import limits
from common.errors import StorageError
from tracker.core.budgets import BudgetSpent
from tracker.core.changes import (
    AccountCreated,
    Change,
    DeviceBound,
    DeviceSeen,
    DeviceUnbound,
    GroupCreated,
    GroupDissolved,
    GroupKeyHanded,
    GroupRekeyed,
    Logged,
    LogTrimmed,
    ManifestDropped,
    ManifestShown,
    ManifestStored,
    MemberGone,
    MemberJoined,
    OfferAdded,
    OfferDropped,
    OffersEnded,
    OwnerChanged,
    PasswordReplaced,
    ReceiptsExpired,
    ReceiptStored,
    RekeyPending,
    RequestDropped,
    RequestMade,
    RevocationForgotten,
    ShareAdded,
    ShareDropped,
    TombstoneExpired,
)
from tracker.store import tables as t


class LogConflict(StorageError):
    """Somebody else continued the log meanwhile: decide again on what the database says."""


def write(db: Connection, changes: Iterable[Change]) -> None:
    """Write ``changes``; raises `LogConflict`, and what SQLAlchemy raises.

    Entries that follow each other go in together: one member's going may be thousands.
    """
    for logged, several in groupby(changes, key=lambda change: isinstance(change, Logged)):
        if logged:
            _write_entries(db, [each for each in several if isinstance(each, Logged)])
        else:
            for change in several:
                _write_one(db, change)


def _write_one(db: Connection, change: Change) -> None:
    match change:
        case AccountCreated(user, password_hash, at_ms):
            db.execute(
                insert(t.accounts).values(user_id=user, password_hash=password_hash, at_ms=at_ms)
            )
        case PasswordReplaced(user, password_hash):
            theirs = t.accounts.c.user_id == user
            db.execute(update(t.accounts).where(theirs).values(password_hash=password_hash))
        case DeviceBound(device, user, at_ms):
            row = {"device": device, "user_id": user, "at_ms": at_ms, "seen_ms": at_ms}
            db.execute(insert(t.devices).values(row))
        case DeviceSeen(device, at_ms):
            db.execute(update(t.devices).where(t.devices.c.device == device).values(seen_ms=at_ms))
        case DeviceUnbound(device):
            db.execute(delete(t.devices).where(t.devices.c.device == device))
        case GroupCreated():
            _create_group(db, change)
        case GroupDissolved():
            _dissolve_group(db, change)
        case TombstoneExpired(group):
            former = and_(t.groups.c.group_id == group, t.groups.c.dissolved_ms.is_not(None))
            db.execute(delete(t.groups).where(former))
        case OwnerChanged(group, user):
            db.execute(update(t.groups).where(t.groups.c.group_id == group).values(owner=user))
        case MemberJoined(group, user, seq, at_ms):
            db.execute(insert(t.members).values(group_id=group, user_id=user, seq=seq, at_ms=at_ms))
        case MemberGone():
            _remove_member(db, change)
        case RekeyPending(group):
            db.execute(update(t.groups).where(t.groups.c.group_id == group).values(stale=True))
        case GroupRekeyed(group, epoch, key):
            _rekey(db, group, epoch, key)
        case GroupKeyHanded(group, epoch, key):
            ours = t.groups.c.group_id == group
            db.execute(update(t.groups).where(ours).values(epoch=epoch, event_key=key))
        case RevocationForgotten(group, user):
            _delete_of(db, t.revocations, group, user)
        case RequestMade(group, user, at_ms):
            db.execute(insert(t.requests).values(group_id=group, user_id=user, at_ms=at_ms))
        case RequestDropped(group, user):
            _delete_of(db, t.requests, group, user)
        case ManifestStored():
            _store_manifest(db, change)
        case ManifestShown():
            pass  # forgotten with the process: it is sent again then
        case ManifestDropped(content):
            db.execute(delete(t.manifests).where(t.manifests.c.content == content))
        case ShareAdded(group, share, name, content, at_ms):
            db.execute(
                insert(t.shares).values(
                    group_id=group, share_id=share, name=name, content=content, at_ms=at_ms
                )
            )
        case ShareDropped(group, share):
            named = and_(t.shares.c.group_id == group, t.shares.c.share_id == share)
            db.execute(delete(t.shares).where(named))
        case OfferAdded(group, share, _, user, device, at_ms):
            db.execute(
                insert(t.offers).values(
                    group_id=group, share_id=share, user_id=user, device=device, at_ms=at_ms
                )
            )
        case OfferDropped(group, share, _, user, device):
            c = t.offers.c
            theirs = and_(c.user_id == user, c.device == device)
            db.execute(delete(t.offers).where(c.group_id == group, c.share_id == share, theirs))
        case OffersEnded(group, user, _, device):
            _end_offers(db, group, user, device)
        case Logged():
            _write_entries(db, [change])
        case LogTrimmed():
            _trim_log(db, change)
        case ReceiptStored(device, request_id, fingerprint, at_ms):
            _keep_receipt(db, device, request_id, fingerprint, at_ms)
        case BudgetSpent():
            pass  # forgotten with the process
        case ReceiptsExpired(before_ms):
            db.execute(delete(t.receipts).where(t.receipts.c.at_ms < before_ms))
        case _:
            assert_never(change)


def _delete_of(db: Connection, table: Table, group: str, user: str) -> None:
    db.execute(delete(table).where(table.c.group_id == group, table.c.user_id == user))


def _create_group(db: Connection, change: GroupCreated) -> None:
    values = {
        "owner": change.owner,
        "topic": change.topic,
        "event_key": change.key,
        "seq": change.seq,
        "epoch": change.epoch,
        "at_ms": change.at_ms,
        "dissolved_ms": None,
        "stale": False,
    }
    former = and_(t.groups.c.group_id == change.group, t.groups.c.dissolved_ms.is_not(None))
    if db.execute(update(t.groups).where(former).values(values)).rowcount == 0:
        db.execute(insert(t.groups).values(group_id=change.group, **values))


def _dissolve_group(db: Connection, change: GroupDissolved) -> None:
    for table in (t.offers, t.shares, t.members, t.requests, t.log):
        db.execute(delete(table).where(table.c.group_id == change.group))
    db.execute(
        update(t.groups)
        .where(t.groups.c.group_id == change.group)
        .values(epoch=change.epoch, dissolved_ms=change.at_ms)
    )
    _revoke(db, change)


def _remove_member(db: Connection, change: MemberGone) -> None:
    _delete_of(db, t.members, change.group, change.user)
    _rekey(db, change.group, change.epoch, change.key)
    _revoke(db, change)


def _rekey(db: Connection, group: str, epoch: int, key: bytes) -> None:
    ours = t.groups.c.group_id == group
    db.execute(update(t.groups).where(ours).values(epoch=epoch, event_key=key, stale=False))


def _revoke(db: Connection, change: MemberGone | GroupDissolved) -> None:
    _delete_of(db, t.revocations, change.group, change.user)
    db.execute(
        insert(t.revocations).values(
            group_id=change.group, user_id=change.user, epoch=change.epoch, at_ms=change.at_ms
        )
    )


def _store_manifest(db: Connection, change: ManifestStored) -> None:
    facts, length = change.facts, limits.MANIFEST_PART_BYTES
    db.execute(
        insert(t.manifests).values(
            content=facts.content,
            manifest_bytes=facts.manifest_bytes,
            size=facts.size,
            files=facts.files,
            pieces=facts.pieces,
            piece_length=facts.piece_length,
            algorithm=facts.algorithm,
            digest=facts.digest,
            stored_ms=facts.stored_ms,
        )
    )
    for part, start in enumerate(range(0, len(change.body), length)):
        body = change.body[start : start + length]
        db.execute(insert(t.manifest_parts).values(content=facts.content, part=part, body=body))


def _end_offers(db: Connection, group: str, user: str, device: bytes | None) -> None:
    c = t.offers.c
    which = [c.group_id == group, c.user_id == user]
    if device is not None:
        which.append(c.device == device)
    db.execute(delete(t.offers).where(*which))
    offered = exists().where(
        t.offers.c.group_id == t.shares.c.group_id, t.offers.c.share_id == t.shares.c.share_id
    )
    db.execute(delete(t.shares).where(t.shares.c.group_id == group, ~offered))


def _write_entries(db: Connection, changes: Sequence[Logged]) -> None:
    # The numbers are taken here, inside the transaction: only those that follow may come next.
    stretches: dict[str, tuple[int, int]] = {}
    for entry in (change.entry for change in changes):
        first, last = stretches.get(entry.group, (entry.seq, entry.seq - 1))
        if entry.seq != last + 1:
            raise _conflict(entry.group, entry.seq)
        stretches[entry.group] = (first, entry.seq)
    for group, (first, last) in stretches.items():
        ours = and_(t.groups.c.group_id == group, t.groups.c.seq == first - 1)
        if db.execute(update(t.groups).where(ours).values(seq=last)).rowcount != 1:
            raise _conflict(group, first)
    rows = [
        {"group_id": entry.group, "seq": entry.seq, "entry": msgspec.msgpack.encode(entry)}
        for entry in (change.entry for change in changes)
    ]
    db.execute(insert(t.log), rows)


def _trim_log(db: Connection, change: LogTrimmed) -> None:
    ours = t.log.c.group_id == change.group
    oldest = select(t.log.c.seq).where(ours).order_by(t.log.c.seq).limit(change.count)
    db.execute(delete(t.log).where(ours, t.log.c.seq.in_(oldest)))


def _conflict(group: str, seq: int) -> LogConflict:
    return LogConflict(f"entry {seq} of the log of {group} is not the next one")


def _keep_receipt(
    db: Connection, device: bytes, request_id: bytes, fingerprint: bytes, at_ms: int
) -> None:
    c = t.receipts.c
    db.execute(delete(t.receipts).where(c.device == device, c.request_id == request_id))
    db.execute(
        insert(t.receipts).values(
            device=device, request_id=request_id, fingerprint=fingerprint, at_ms=at_ms
        )
    )
