"""Loader of the mirror: reads the tables into a `State`.

Owns: the order in which rows come. Not here: connections (see tracker.store.table_store).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy import Connection, select

from common.ids import DeviceKey, GroupId, UserId
from common.messages.operator import Registration
from tracker.core.records import (
    Account,
    Binding,
    FollowRecord,
    Group,
    GroupTombstone,
    Invitation,
    Member,
    Revocation,
)
from tracker.core.shares_loading import SharesLoading
from tracker.core.state import State
from tracker.store import tables as t
from tracker.store.statements.accounts import REGISTRATION

_ROWS = 5_000  # fetched at a time: one by one takes twice as long
_globs_decoder = msgspec.msgpack.Decoder(tuple[str, ...])


class Loader:
    """Builds a `State` from the tables, in order of time."""

    def __init__(self, db: Connection) -> None:
        self._db = db
        self.state = State()
        self._accounts()
        self._groups()
        self._shares()
        for row in self._rows(t.receipts, "at_ms"):
            key = (DeviceKey(row.device), row.request_id)
            self.state.receipts[key] = (row.fingerprint, row.at_ms)

    def _rows(self, table: sa.Table, *order: str) -> Iterator[Any]:
        # The primary key last: rows of one millisecond come in the same order at every start.
        columns = [table.c[name] for name in order]
        return self._read(select(table).order_by(*columns, *table.primary_key))

    def _read(self, query: sa.Select[Any]) -> Iterator[Any]:
        for rows in self._db.execute(query, execution_options={"yield_per": _ROWS}).partitions():
            yield from rows

    def _user(self, text: str) -> UserId:
        """Return the one text that all records of a user have in common."""
        known = self.state.accounts.get(UserId(text))
        return UserId(text) if known is None else known.user

    def _accounts(self) -> None:
        state = self.state
        for text, password_hash, at_ms, disabled, deleted in self._rows(t.accounts, "at_ms"):
            if not deleted:
                user = UserId(text)
                state.accounts[user] = Account(user, password_hash, at_ms, disabled)
        mode = select(t.facts.c.value).where(t.facts.c.name == REGISTRATION)
        if (value := self._db.execute(mode).scalar_one_or_none()) is not None:
            state.registration = Registration(value.decode())
        for key, text, at_ms, seen_ms in self._rows(t.devices, "at_ms"):
            user, device = self._user(text), DeviceKey(key)
            state.devices[device] = user
            state.bindings[device] = Binding(at_ms, seen_ms)
            state.devices_of[user] = (*state.devices_of.get(user, ()), device)

    def _groups(self) -> None:
        state = self.state
        c = t.log.c
        lengths = select(c.group_id, sa.func.count().label("entries")).group_by(c.group_id)
        entries = {row.group_id: row.entries for row in self._db.execute(lengths)}
        for row in self._rows(t.groups, "at_ms"):
            group_id = GroupId(row.group_id)
            if row.dissolved_ms is not None:
                state.tombstones[group_id] = GroupTombstone(
                    row.seq, row.epoch, {}, row.dissolved_ms
                )
                continue
            state.add_group(
                Group(
                    group_id,
                    UserId(row.owner),
                    row.topic,
                    row.event_key,
                    row.seq,
                    row.epoch,
                    row.at_ms,
                    rekey_pending=row.stale,
                    entries=entries.get(group_id, 0),
                )
            )
        for group_text, text, seq, at_ms in self._rows(t.members, "at_ms", "seq"):
            group, user = state.groups[GroupId(group_text)], self._user(text)
            group.members[user] = Member(at_ms, seq)
            state.groups_of[user] = (*state.groups_of.get(user, ()), group.id)
        for group_text, text, at_ms in self._rows(t.requests, "at_ms"):
            group, user = state.groups[GroupId(group_text)], self._user(text)
            group.requests[user] = at_ms
            state.add_of(state.requests_of, user, group.id)
        for row in self._rows(t.invitations, "at_ms"):
            known = Invitation(UserId(row.user_id), row.at_ms, row.expires_ms, row.uses, row.used)
            state.add_invitation(GroupId(row.group_id), row.key, known)
        for row in self._rows(t.revocations, "at_ms"):
            group_id = GroupId(row.group_id)
            holder = state.groups.get(group_id) or state.tombstones[group_id]
            holder.revoked[UserId(row.user_id)] = Revocation(row.epoch, row.at_ms)

        for row in self._rows(t.follows, "at_ms"):
            followed = self.state.groups[GroupId(row.group_id)]
            followed.follows[DeviceKey(row.device)] = FollowRecord(
                UserId(row.user_id), _globs_decoder.decode(row.globs), row.at_ms
            )

    def _shares(self) -> None:
        loading = SharesLoading(self.state)
        loading.manifests(self._read(select(t.manifests)))
        loading.names(self._read(_NAMES))
        loading.offers(self._read(select(t.offers).order_by(*t.offers.primary_key)))
        loading.finish()


def _names() -> sa.Select[Any]:
    names, versions, shares = t.names.c, t.versions.c, t.shares.c
    columns = (versions.version, versions.content, versions.user_id, versions.at_ms)
    same_name = sa.and_(versions.group_id == names.group_id, versions.share_id == names.share_id)
    same_version = [shares[key] == versions[key] for key in ("group_id", "share_id", "version")]
    return (
        select(t.names, *columns, versions.withdrawn, shares.at_ms)
        .outerjoin_from(t.names, t.versions, same_name)
        .outerjoin(t.shares, sa.and_(*same_version))
        .order_by(names.group_id, names.share_id, versions.version)
    )


_NAMES = _names()
