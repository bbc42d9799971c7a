"""Statements of accounts, of the devices that are logged in, and of who may register.

A deleted account leaves a row without a password while the tombstone of a group refers to it.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, exists, insert, update

from tracker.core.changes import accounts as c
from tracker.store import tables as t
from tracker.store.gathered import Gathered
from tracker.store.statements.base import write_change

REGISTRATION = "registration"


@write_change.register
def _(change: c.AccountCreated, rows: Gathered) -> None:
    """Write a new account, over the row that a deleted one of its name may have left."""
    db = rows.flushed()
    values = {
        "password_hash": change.password_hash,
        "at_ms": change.at_ms,
        "disabled": False,
        "deleted": False,
    }
    former = and_(t.accounts.c.user_id == change.user, t.accounts.c.deleted)
    if db.execute(update(t.accounts).where(former).values(values)).rowcount == 0:
        db.execute(insert(t.accounts).values(user_id=change.user, **values))


@write_change.register
def _(change: c.PasswordReplaced, rows: Gathered) -> None:
    db = rows.flushed()
    theirs = t.accounts.c.user_id == change.user
    db.execute(update(t.accounts).where(theirs).values(password_hash=change.password_hash))


@write_change.register
def _(change: c.AccountDisabled, rows: Gathered) -> None:
    db = rows.flushed()
    theirs = t.accounts.c.user_id == change.user
    db.execute(update(t.accounts).where(theirs).values(disabled=change.disabled))


@write_change.register
def _(change: c.AccountDeleted, rows: Gathered) -> None:
    db = rows.flushed()
    gone = {"password_hash": "", "deleted": True}
    db.execute(update(t.accounts).where(t.accounts.c.user_id == change.user).values(gone))
    remove_unneeded(db)


def remove_unneeded(db: Connection) -> None:
    """Delete the rows of deleted accounts that no tombstone needs."""
    needed = exists().where(t.groups.c.owner == t.accounts.c.user_id)
    db.execute(delete(t.accounts).where(t.accounts.c.deleted, ~needed))


@write_change.register
def _(change: c.RegistrationSet, rows: Gathered) -> None:
    db = rows.flushed()
    db.execute(delete(t.facts).where(t.facts.c.name == REGISTRATION))
    db.execute(insert(t.facts).values(name=REGISTRATION, value=change.mode.value.encode()))


@write_change.register
def _(change: c.DeviceBound, rows: Gathered) -> None:
    row = {"device": change.device, "user_id": change.user}
    rows.insert(t.devices, {**row, "at_ms": change.at_ms, "seen_ms": change.at_ms})


@write_change.register
def _(change: c.DeviceSeen, rows: Gathered) -> None:
    rows.seen(change.device, change.at_ms)


@write_change.register
def _(change: c.DeviceUnbound, rows: Gathered) -> None:
    db = rows.flushed()
    for table in (t.follows, t.devices):
        db.execute(delete(table).where(table.c.device == change.device))
