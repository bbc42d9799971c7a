"""SQL statements about accounts and the registration of new ones.

Owns: these statements; tracker.store.statements calls them. A deleted account leaves a row without
a password while the tombstone of a group refers to it.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, delete, exists, insert, update

from common.messages.operator import Registration
from tracker.core import changes as c
from tracker.store import tables as t

REGISTRATION = "registration"


def create(db: Connection, change: c.AccountCreated) -> None:
    """Write a new account, over the row that a deleted one of its name may have left."""
    values = {
        "password_hash": change.password_hash,
        "at_ms": change.at_ms,
        "disabled": False,
        "deleted": False,
    }
    former = and_(t.accounts.c.user_id == change.user, t.accounts.c.deleted)
    if db.execute(update(t.accounts).where(former).values(values)).rowcount == 0:
        db.execute(insert(t.accounts).values(user_id=change.user, **values))


def remove(db: Connection, user: str) -> None:
    """Delete an account."""
    gone = {"password_hash": "", "deleted": True}
    db.execute(update(t.accounts).where(t.accounts.c.user_id == user).values(gone))
    remove_unneeded(db)


def remove_unneeded(db: Connection) -> None:
    """Delete the rows of deleted accounts that no tombstone needs."""
    needed = exists().where(t.groups.c.owner == t.accounts.c.user_id)
    db.execute(delete(t.accounts).where(t.accounts.c.deleted, ~needed))


def set_registration(db: Connection, mode: Registration) -> None:
    """Write who may make an account."""
    db.execute(delete(t.facts).where(t.facts.c.name == REGISTRATION))
    db.execute(insert(t.facts).values(name=REGISTRATION, value=mode.value.encode()))
