"""Statements of groups: their members, join requests, keys, revocations and logs."""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, insert, literal, select, update

from tracker.core.changes import groups as c
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.statements.accounts import remove_unneeded
from tracker.store.statements.base import delete_of, write_change


@write_change.register
def _(change: c.GroupCreated, rows: Gathered) -> None:
    db = rows.flushed()
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


@write_change.register
def _(change: c.GroupDissolved, rows: Gathered) -> None:
    db = rows.flushed()
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


@write_change.register
def _(change: c.TombstoneExpired, rows: Gathered) -> None:
    db = rows.flushed()
    former = and_(t.groups.c.group_id == change.group, t.groups.c.dissolved_ms.is_not(None))
    db.execute(delete(t.groups).where(former))
    remove_unneeded(db)


@write_change.register
def _(change: c.OwnerChanged, rows: Gathered) -> None:
    db = rows.flushed()
    _set(db, change.group, owner=change.user)
    db.execute(delete(t.invitations).where(t.invitations.c.group_id == change.group))


@write_change.register
def _(change: c.MemberJoined, rows: Gathered) -> None:
    row = {"group_id": change.group, "user_id": change.user}
    rows.insert(t.members, {**row, "seq": change.seq, "at_ms": change.at_ms})


@write_change.register
def _(change: c.MemberGone, rows: Gathered) -> None:
    db = rows.flushed()
    for table in (t.members, t.follows, t.revocations):
        delete_of(db, table, change.group, change.user)
    _set(db, change.group, epoch=change.epoch, event_key=change.key, stale=False)
    row = {"group_id": change.group, "user_id": change.user}
    db.execute(insert(t.revocations).values(**row, epoch=change.epoch, at_ms=change.at_ms))


@write_change.register
def _(change: c.RekeyPending, rows: Gathered) -> None:
    db = rows.flushed()
    _set(db, change.group, stale=True)


@write_change.register
def _(change: c.GroupRekeyed, rows: Gathered) -> None:
    db = rows.flushed()
    _set(db, change.group, epoch=change.epoch, event_key=change.key, stale=False)


@write_change.register
def _(change: c.GroupKeyHanded, rows: Gathered) -> None:
    db = rows.flushed()
    _set(db, change.group, epoch=change.epoch, event_key=change.key)


def _set(db: Connection, group: str, **values: object) -> None:
    db.execute(update(t.groups).where(t.groups.c.group_id == group).values(**values))


@write_change.register
def _(change: c.RevocationForgotten, rows: Gathered) -> None:
    db = rows.flushed()
    delete_of(db, t.revocations, change.group, change.user)


@write_change.register
def _(change: c.RequestMade, rows: Gathered) -> None:
    row = {"group_id": change.group, "user_id": change.user, "at_ms": change.at_ms}
    rows.insert(t.requests, row)


@write_change.register
def _(change: c.RequestDropped, rows: Gathered) -> None:
    db = rows.flushed()
    delete_of(db, t.requests, change.group, change.user)


@write_change.register
def _(change: c.Logged, rows: Gathered) -> None:
    rows.entry(change)


@write_change.register
def _(change: c.LogTrimmed, rows: Gathered) -> None:
    db = rows.flushed()
    ours = t.log.c.group_id == change.group
    oldest = select(t.log.c.seq).where(ours).order_by(t.log.c.seq).limit(change.count)
    db.execute(delete(t.log).where(ours, t.log.c.seq.in_(oldest)))
