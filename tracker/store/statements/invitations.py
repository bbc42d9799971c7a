"""Statements of invitations."""

from __future__ import annotations

from sqlalchemy import and_, delete, update

from tracker.core.changes import invitations as c
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.statements.base import write_change
from tracker.store.turns import LogConflict


@write_change.register
def _(change: c.InvitationMade, rows: Gathered) -> None:
    row = {name: getattr(change, name) for name in ("key", "at_ms", "expires_ms", "uses")}
    rows.insert(t.invitations, row | {"group_id": change.group, "user_id": change.user, "used": 0})


@write_change.register
def _(change: c.InvitationUsed, rows: Gathered) -> None:
    db = rows.flushed()
    # Checked inside the transaction: another writer may have taken the last use.
    columns = t.invitations.c
    open_one = and_(columns.key == change.key, columns.used < columns.uses)
    used = update(t.invitations).where(open_one).values(used=columns.used + 1)
    if db.execute(used).rowcount != 1:
        raise LogConflict(f"an invitation to {change.group} was used up meanwhile")


@write_change.register
def _(change: c.InvitationDropped, rows: Gathered) -> None:
    db = rows.flushed()
    db.execute(delete(t.invitations).where(t.invitations.c.key == change.key))


@write_change.register
def _(change: c.InvitationsExpired, rows: Gathered) -> None:
    db = rows.flushed()
    db.execute(delete(t.invitations).where(t.invitations.c.expires_ms <= change.before_ms))
