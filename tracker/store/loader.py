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
        yield from self._db.execute(select(table).order_by(*columns, *table.primary_key))

    def _accounts(self) -> None:
        state = self.state
        for row in self._rows(t.accounts, "at_ms"):
            if not row.deleted:
                user = UserId(row.user_id)
                state.accounts[user] = Account(user, row.password_hash, row.at_ms, row.disabled)
        mode = select(t.facts.c.value).where(t.facts.c.name == REGISTRATION)
        if (value := self._db.execute(mode).scalar_one_or_none()) is not None:
            state.registration = Registration(value.decode())
        for row in self._rows(t.devices, "at_ms"):
            user, device = UserId(row.user_id), DeviceKey(row.device)
            state.devices[device] = user
            state.devices_of.setdefault(user, {})[device] = Binding(row.at_ms, row.seen_ms)

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
        for row in self._rows(t.members, "at_ms", "seq"):
            group_id, user = GroupId(row.group_id), UserId(row.user_id)
            state.groups[group_id].members[user] = Member(row.at_ms, row.seq)
            state.groups_of.setdefault(user, {})[group_id] = None
        for row in self._rows(t.requests, "at_ms"):
            group_id, user = GroupId(row.group_id), UserId(row.user_id)
            state.groups[group_id].requests[user] = row.at_ms
            state.requests_of.setdefault(user, {})[group_id] = None
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
        loading.manifests(dict(row._mapping) for row in self._rows(t.manifests, "stored_ms"))
        names = "group_id share_id name current floor ended_ms"
        loading.names(self._columns(t.names, names, "ended_ms"))
        version = "group_id share_id version"
        loading.versions(
            self._columns(t.versions, f"{version} content user_id at_ms withdrawn", "at_ms")
        )
        loading.shares(self._columns(t.shares, f"{version} content at_ms", "at_ms"))
        loading.offers(self._columns(t.offers, f"{version} user_id device at_ms", "at_ms"))
        loading.finish()

    def _columns(self, table: sa.Table, names: str, order: str) -> Iterator[Any]:
        """Iterate over the rows of a large table as tuples of some columns."""
        columns = [table.c[name] for name in names.split()]
        query = select(*columns).order_by(table.c[order], *table.primary_key)
        for rows in self._db.execute(query).partitions(_ROWS):
            yield from rows
