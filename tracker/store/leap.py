"""Leap of all groups to unused numbers, after commits that peers know of were lost.

Owns: how far they leap. A restored database, or one that a standby took over, lacks what happened
last. Peers remember sequence numbers of that time, and epochs below which tickets are invalid.
"""

from __future__ import annotations

import os

import sqlalchemy as sa

from common import limits
from tracker.store import tables as t

# A group continues at the wall clock, in ms for sequence numbers and in s for epochs. That is
# beyond all numbers used since, also by an earlier leap from the same point. The least leap is for
# a clock that was set back, the last epoch for one far ahead: it has four bytes on the wire.
SEQ_LEAP, EPOCH_LEAP = 1 << 20, 1 << 10
EPOCH_LAST = 0xF000_0000


def leap(db: sa.Connection, now_ms: int) -> None:
    """Move all groups to unused numbers and epochs, with fresh keys and without invitations."""
    c = t.groups.c
    for row in db.execute(sa.select(c.group_id, c.seq, c.epoch)).all():
        values = {
            "seq": max(row.seq + SEQ_LEAP, now_ms),
            "epoch": max(row.epoch + EPOCH_LEAP, min(now_ms // 1000, EPOCH_LAST)),
            "event_key": os.urandom(limits.EVENT_KEY_BYTES),
        }
        db.execute(sa.update(t.groups).where(c.group_id == row.group_id).values(values))
    # Those that were used or revoked meanwhile must not open a group again, and nothing tells
    # which they are. A backup of an earlier release has no such table.
    if sa.inspect(db).has_table(t.invitations.name):
        db.execute(sa.delete(t.invitations))
