"""Statements of follows."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, delete, insert

from tracker.core.changes import follows as c
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.statements.base import write_change


@write_change.register
def _(change: c.FollowSet, rows: Gathered) -> None:
    db = rows.flushed()
    _end(db, change.group, change.device)
    db.execute(
        insert(t.follows).values(
            group_id=change.group,
            device=change.device,
            user_id=change.user,
            globs=msgspec.msgpack.encode(change.globs),
            at_ms=change.at_ms,
        )
    )


@write_change.register
def _(change: c.FollowEnded, rows: Gathered) -> None:
    db = rows.flushed()
    _end(db, change.group, change.device)


def _end(db: Connection, group: str, device: bytes) -> None:
    columns = t.follows.c
    db.execute(delete(t.follows).where(columns.group_id == group, columns.device == device))
