"""SQL statements that write each durable change.

Owns: the statements. Not here: transactions and commits (see tracker.store.table_store). All values
are bound parameters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import assert_never

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    insert,
    literal,
    select,
    update,
)

from common import limits
from tracker.core import changes as c
from tracker.core import follow_changes as fc
from tracker.core import invitation_changes as ic
from tracker.core import operator_changes as oc
from tracker.core.budgets import BudgetSpent
from tracker.store import accounts
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.turns import LogConflict


def write(db: Connection, changes: Iterable[c.Change]) -> None:
    """Write ``changes``. Raise `LogConflict` or an exception of SQLAlchemy."""
    gathered = Gathered(db)
    for change in changes:
        if not _gather(gathered, change):
            gathered.flush()
            _write_one(db, change)
    gathered.flush()


def _gather(gathered: Gathered, change: c.Change) -> bool:
    """Gather the rows of ``change``; return whether that is all that it writes."""
    match change:
        case c.DeviceBound(device, user, at_ms):
            row: dict[str, object] = {"device": device, "user_id": user}
            gathered.insert(t.devices, {**row, "at_ms": at_ms, "seen_ms": at_ms})
        case c.DeviceSeen(device, at_ms):
            gathered.seen(device, at_ms)
        case c.MemberJoined(group, user, seq, at_ms):
            row = {"group_id": group, "user_id": user, "seq": seq, "at_ms": at_ms}
            gathered.insert(t.members, row)
        case c.RequestMade(group, user, at_ms):
            row = {"group_id": group, "user_id": user, "at_ms": at_ms}
            gathered.insert(t.requests, row)
        case ic.InvitationMade():
            row = {name: getattr(change, name) for name in ("key", "at_ms", "expires_ms", "uses")}
            row |= {"group_id": change.group, "user_id": change.user, "used": 0}
            gathered.insert(t.invitations, row)
        case c.VersionAdded(group, share, name, content, user, at_ms):
            row = {"group_id": group, "share_id": share.name, "name": name}
            gathered.name({**row, "current": share.version, "floor": 0})
            row = {**_key(group, share), "content": content, "user_id": user, "at_ms": at_ms}
            gathered.insert(t.versions, row)
        case c.ShareAdded(group, share, content, at_ms):
            row = {**_key(group, share), "content": content, "at_ms": at_ms}
            gathered.insert(t.shares, row)
            gathered.name_begins(group, share.name)
        case c.OfferAdded(group, share, _, user, device, at_ms):
            row = {**_key(group, share), "user_id": user, "device": device, "at_ms": at_ms}
            gathered.insert(t.offers, row)
        case c.Logged():
            gathered.entry(change)
        case c.ReceiptStored(device, request_id, fingerprint, at_ms):
            row = {"device": device, "request_id": request_id}
            gathered.receipt({**row, "fingerprint": fingerprint, "at_ms": at_ms})
        case BudgetSpent() | c.ManifestShown():
            pass  # in memory only
        case _:
            return False
    return True


def _write_one(db: Connection, change: c.Change) -> None:
    match change:
        case c.AccountCreated():
            accounts.create(db, change)
        case c.PasswordReplaced(user, password_hash):
            theirs = t.accounts.c.user_id == user
            db.execute(update(t.accounts).where(theirs).values(password_hash=password_hash))
        case oc.AccountDisabled(user, disabled):
            theirs = t.accounts.c.user_id == user
            db.execute(update(t.accounts).where(theirs).values(disabled=disabled))
        case oc.AccountDeleted(user):
            accounts.remove(db, user)
        case oc.RegistrationSet(mode):
            accounts.set_registration(db, mode)
        case c.DeviceUnbound(device):
            db.execute(delete(t.follows).where(t.follows.c.device == device))
            db.execute(delete(t.devices).where(t.devices.c.device == device))
        case c.GroupCreated():
            _create_group(db, change)
        case c.GroupDissolved():
            _dissolve_group(db, change)
        case c.TombstoneExpired(group):
            former = and_(t.groups.c.group_id == group, t.groups.c.dissolved_ms.is_not(None))
            db.execute(delete(t.groups).where(former))
            accounts.remove_unneeded(db)
        case c.OwnerChanged(group, user):
            db.execute(update(t.groups).where(t.groups.c.group_id == group).values(owner=user))
            db.execute(delete(t.invitations).where(t.invitations.c.group_id == group))
        case c.MemberGone():
            _remove_member(db, change)
        case c.RekeyPending(group):
            db.execute(update(t.groups).where(t.groups.c.group_id == group).values(stale=True))
        case c.GroupRekeyed(group, epoch, key):
            _rekey(db, group, epoch, key)
        case c.GroupKeyHanded(group, epoch, key):
            ours = t.groups.c.group_id == group
            db.execute(update(t.groups).where(ours).values(epoch=epoch, event_key=key))
        case c.RevocationForgotten(group, user):
            _delete_of(db, t.revocations, group, user)
        case c.RequestDropped(group, user):
            _delete_of(db, t.requests, group, user)
        case ic.InvitationUsed(group, key):
            _use_invitation(db, group, key)
        case ic.InvitationDropped(_, key):
            db.execute(delete(t.invitations).where(t.invitations.c.key == key))
        case ic.InvitationsExpired(before_ms):
            db.execute(delete(t.invitations).where(t.invitations.c.expires_ms <= before_ms))
        case c.ManifestStored():
            _store_manifest(db, change)
        case c.ManifestDropped(content):
            db.execute(delete(t.manifests).where(t.manifests.c.content == content))
        case c.VersionsWithdrawn():
            _withdraw(db, change)
        case c.NameForgotten(group, name):
            db.execute(delete(t.versions).where(_named(t.versions, group, name)))
            db.execute(delete(t.names).where(_named(t.names, group, name)))
        case c.ShareDropped(group, share, _, at_ms):
            db.execute(delete(t.shares).where(_is(t.shares, group, share)))
            _end_names(db, at_ms, _named(t.names, group, share.name))
        case c.OfferDropped(group, share, _, user, device):
            columns = t.offers.c
            theirs = and_(columns.user_id == user, columns.device == device)
            db.execute(delete(t.offers).where(_is(t.offers, group, share), theirs))
        case c.OffersEnded():
            _end_offers(db, change)
        case fc.FollowSet():
            _set_follow(db, change)
        case fc.FollowEnded(group, device):
            _end_follow(db, group, device)
        case c.LogTrimmed():
            _trim_log(db, change)
        case c.ReceiptsExpired(before_ms):
            db.execute(delete(t.receipts).where(t.receipts.c.at_ms < before_ms))
        case (
            (c.DeviceBound() | c.DeviceSeen() | c.MemberJoined() | c.RequestMade())
            | (ic.InvitationMade() | c.VersionAdded() | c.ShareAdded() | c.OfferAdded())
            | (c.Logged() | c.ReceiptStored() | BudgetSpent() | c.ManifestShown())
        ):
            raise AssertionError("gathered before")
        case _:
            assert_never(change)


def _delete_of(db: Connection, table: Table, group: str, user: str) -> None:
    db.execute(delete(table).where(table.c.group_id == group, table.c.user_id == user))


def _create_group(db: Connection, change: c.GroupCreated) -> None:
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


def _use_invitation(db: Connection, group: str, key: bytes) -> None:
    # Checked inside the transaction: another writer may have taken the last use.
    columns = t.invitations.c
    open_one = and_(columns.key == key, columns.used < columns.uses)
    used = update(t.invitations).where(open_one).values(used=columns.used + 1)
    if db.execute(used).rowcount != 1:
        raise LogConflict(f"an invitation to {group} was used up meanwhile")


def _dissolve_group(db: Connection, change: c.GroupDissolved) -> None:
    _revoke_members(db, change)
    for table in (
        *(t.offers, t.shares, t.versions, t.names),
        *(t.follows, t.members, t.requests, t.invitations, t.log),
    ):
        db.execute(delete(table).where(table.c.group_id == change.group))
    db.execute(
        update(t.groups)
        .where(t.groups.c.group_id == change.group)
        .values(epoch=change.epoch, dissolved_ms=change.at_ms)
    )


def _remove_member(db: Connection, change: c.MemberGone) -> None:
    _delete_of(db, t.members, change.group, change.user)
    _delete_of(db, t.follows, change.group, change.user)
    _rekey(db, change.group, change.epoch, change.key)
    _revoke(db, change.group, change.user, change.epoch, change.at_ms)


def _rekey(db: Connection, group: str, epoch: int, key: bytes) -> None:
    ours = t.groups.c.group_id == group
    db.execute(update(t.groups).where(ours).values(epoch=epoch, event_key=key, stale=False))


def _revoke_members(db: Connection, change: c.GroupDissolved) -> None:
    """Revoke the tickets of all members, in two statements however many there are."""
    members, columns = t.members.c, t.revocations.c
    ours = select(members.user_id).where(members.group_id == change.group)
    db.execute(
        delete(t.revocations).where(columns.group_id == change.group, columns.user_id.in_(ours))
    )
    rows = select(
        members.group_id, members.user_id, literal(change.epoch), literal(change.at_ms)
    ).where(members.group_id == change.group)
    names = ["group_id", "user_id", "epoch", "at_ms"]
    db.execute(insert(t.revocations).from_select(names, rows))


def _revoke(db: Connection, group: str, user: str, epoch: int, at_ms: int) -> None:
    _delete_of(db, t.revocations, group, user)
    row = {"group_id": group, "user_id": user, "epoch": epoch, "at_ms": at_ms}
    db.execute(insert(t.revocations).values(row))


def _store_manifest(db: Connection, change: c.ManifestStored) -> None:
    summary, length = change.summary, limits.MANIFEST_PART_BYTES
    db.execute(insert(t.manifests).values(asdict(summary)))
    for part, start in enumerate(range(0, len(change.body), length)):
        body = change.body[start : start + length]
        db.execute(insert(t.manifest_parts).values(content=summary.content, part=part, body=body))


def _key(group: str, share: c.ShareId) -> dict[str, str | int]:
    return {"group_id": group, "share_id": share.name, "version": share.version}


def _named(table: Table, group: str, name: str) -> ColumnElement[bool]:
    return and_(table.c.group_id == group, table.c.share_id == name)


def _is(table: Table, group: str, share: c.ShareId) -> ColumnElement[bool]:
    return and_(_named(table, group, share.name), table.c.version == share.version)


def _withdraw(db: Connection, change: c.VersionsWithdrawn) -> None:
    for table in (t.offers, t.shares):
        db.execute(delete(table).where(_withdrawn(table, change)))
    if change.earlier:
        db.execute(delete(t.versions).where(_withdrawn(t.versions, change)))
        higher = and_(_named(t.names, change.group, change.name), t.names.c.floor < change.version)
        db.execute(update(t.names).where(higher).values(floor=change.version))
    else:
        db.execute(update(t.versions).where(_withdrawn(t.versions, change)).values(withdrawn=True))
    _end_names(db, change.at_ms, _named(t.names, change.group, change.name))


def _withdrawn(table: Table, change: c.VersionsWithdrawn) -> ColumnElement[bool]:
    version = table.c.version
    these = version <= change.version if change.earlier else version == change.version
    return and_(_named(table, change.group, change.name), these)


def _end_offers(db: Connection, change: c.OffersEnded) -> None:
    columns = t.offers.c
    which = [columns.group_id == change.group, columns.user_id == change.user]
    if change.device is not None:
        which.append(columns.device == change.device)
    db.execute(delete(t.offers).where(*which))
    offered = exists().where(
        t.offers.c.group_id == t.shares.c.group_id,
        t.offers.c.share_id == t.shares.c.share_id,
        t.offers.c.version == t.shares.c.version,
    )
    db.execute(delete(t.shares).where(t.shares.c.group_id == change.group, ~offered))
    _end_names(db, change.at_ms, t.names.c.group_id == change.group)


def _end_names(db: Connection, at_ms: int, which: ColumnElement[bool]) -> None:
    """End those of ``which`` names that have no share, as `ShareNames.end` does."""
    names, versions, shares = t.names.c, t.versions.c, t.shares.c
    ended = and_(
        which,
        names.ended_ms.is_(None),
        ~exists().where(shares.group_id == names.group_id, shares.share_id == names.share_id),
    )
    of_ended = exists().where(
        names.group_id == versions.group_id, names.share_id == versions.share_id, ended
    )
    db.execute(delete(t.versions).where(of_ended, ~versions.withdrawn))
    kept = exists().where(versions.group_id == names.group_id, versions.share_id == names.share_id)
    db.execute(delete(t.names).where(ended, names.floor == 0, ~kept))
    db.execute(update(t.names).where(ended).values(ended_ms=at_ms))


def _set_follow(db: Connection, change: fc.FollowSet) -> None:
    _end_follow(db, change.group, change.device)
    db.execute(
        insert(t.follows).values(
            group_id=change.group,
            device=change.device,
            user_id=change.user,
            globs=msgspec.msgpack.encode(change.globs),
            at_ms=change.at_ms,
        )
    )


def _end_follow(db: Connection, group: str, device: bytes) -> None:
    columns = t.follows.c
    db.execute(delete(t.follows).where(columns.group_id == group, columns.device == device))


def _trim_log(db: Connection, change: c.LogTrimmed) -> None:
    ours = t.log.c.group_id == change.group
    oldest = select(t.log.c.seq).where(ours).order_by(t.log.c.seq).limit(change.count)
    db.execute(delete(t.log).where(ours, t.log.c.seq.in_(oldest)))
