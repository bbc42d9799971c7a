"""Statements of manifests, of the versions of names, and of shares and their offers."""

from __future__ import annotations

from msgspec import structs
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    and_,
    delete,
    exists,
    func,
    insert,
    select,
    update,
)

from common import limits
from tracker.core.changes import shares as c
from tracker.core.share_names import ShareId
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.statements.base import named, write_change


@write_change.register
def _(change: c.ManifestStored, rows: Gathered) -> None:
    db = rows.flushed()
    content, parts = change.summary.content, parts_of(change.summary.content, change.body)
    db.execute(insert(t.manifests).values(structs.asdict(change.summary)))
    stored = select(func.count()).where(t.manifest_parts.c.content == content)
    if db.execute(stored).scalar_one() != len(parts):
        db.execute(delete(t.manifest_parts).where(t.manifest_parts.c.content == content))
        db.execute(insert(t.manifest_parts), parts)


def parts_of(content: bytes, body: bytes) -> list[dict[str, object]]:
    """Return the rows of a manifest's parts."""
    length = limits.MANIFEST_PART_BYTES
    return [
        {"content": content, "part": part, "body": body[start : start + length]}
        for part, start in enumerate(range(0, len(body), length))
    ]


@write_change.register
def _(change: c.ManifestShown, rows: Gathered) -> None:
    pass  # in memory only; the manifest is sent again after a restart


@write_change.register
def _(change: c.ManifestDropped, rows: Gathered) -> None:
    db = rows.flushed()
    for table in (t.manifests, t.manifest_parts):
        db.execute(delete(table).where(table.c.content == change.content))


@write_change.register
def _(change: c.VersionAdded, rows: Gathered) -> None:
    key = _key(change.group, change.share)
    name = {"group_id": change.group, "share_id": change.share.name, "name": change.name}
    rows.name({**name, "current": change.share.version, "floor": 0})
    row = {**key, "content": change.content, "user_id": change.user, "at_ms": change.at_ms}
    rows.insert(t.versions, row)


@write_change.register
def _(change: c.VersionsWithdrawn, rows: Gathered) -> None:
    db = rows.flushed()
    for table in (t.offers, t.shares):
        db.execute(delete(table).where(_withdrawn(table, change)))
    if change.earlier:
        db.execute(delete(t.versions).where(_withdrawn(t.versions, change)))
        higher = and_(named(t.names, change.group, change.name), t.names.c.floor < change.version)
        db.execute(update(t.names).where(higher).values(floor=change.version))
    else:
        db.execute(update(t.versions).where(_withdrawn(t.versions, change)).values(withdrawn=True))
    _end_names(db, change.at_ms, named(t.names, change.group, change.name))


def _withdrawn(table: Table, change: c.VersionsWithdrawn) -> ColumnElement[bool]:
    version = table.c.version
    these = version <= change.version if change.earlier else version == change.version
    return and_(named(table, change.group, change.name), these)


@write_change.register
def _(change: c.NameForgotten, rows: Gathered) -> None:
    db = rows.flushed()
    for table in (t.versions, t.names):
        db.execute(delete(table).where(named(table, change.group, change.name)))


@write_change.register
def _(change: c.ShareAdded, rows: Gathered) -> None:
    row = {**_key(change.group, change.share), "content": change.content, "at_ms": change.at_ms}
    rows.insert(t.shares, row)
    rows.name_begins(change.group, change.share.name)


@write_change.register
def _(change: c.ShareDropped, rows: Gathered) -> None:
    db = rows.flushed()
    db.execute(delete(t.shares).where(_is(t.shares, change.group, change.share)))
    _end_names(db, change.at_ms, named(t.names, change.group, change.share.name))


@write_change.register
def _(change: c.OfferAdded, rows: Gathered) -> None:
    row = {"user_id": change.user, "device": change.device, "at_ms": change.at_ms}
    rows.insert(t.offers, {**_key(change.group, change.share), **row})


@write_change.register
def _(change: c.OfferDropped, rows: Gathered) -> None:
    db = rows.flushed()
    columns = t.offers.c
    theirs = and_(columns.user_id == change.user, columns.device == change.device)
    db.execute(delete(t.offers).where(_is(t.offers, change.group, change.share), theirs))


@write_change.register
def _(change: c.OffersEnded, rows: Gathered) -> None:
    db = rows.flushed()
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


def _key(group: str, share: ShareId) -> dict[str, str | int]:
    return {"group_id": group, "share_id": share.name, "version": share.version}


def _is(table: Table, group: str, share: ShareId) -> ColumnElement[bool]:
    return and_(named(table, group, share.name), table.c.version == share.version)
