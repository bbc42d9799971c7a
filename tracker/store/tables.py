"""Tables as SQLAlchemy Core sees them. The migrations create them; a test compares the two.

Ids, keys and digests are stored in the form in which they are compared. Times are milliseconds
since 1970. SQLAlchemy's generic types stand for column types that differ between PostgreSQL and
SQLite.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
)

metadata = MetaData()

# On PostgreSQL compared as bytes, as everywhere else; its indexes then depend on no locale.
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# Facts about the installation: its id, ``registration`` unless it is open, and on a database of
# several trackers ``keys``, the digest of the keys that they share.
facts = Table(
    "facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# ``deleted``: the account is gone; its row stays while a tombstone of a group refers to it.
accounts = Table(
    "accounts",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("password_hash", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=sa.false()),
    Column("deleted", Boolean, nullable=False, server_default=sa.false()),
)

devices = Table(
    "devices",
    metadata,
    Column("device", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("accounts.user_id"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False, server_default="0"),
)

# A dissolved group stays for a while as a tombstone, with ``dissolved_ms``, so that its name never
# repeats a sequence number or an epoch. ``stale``: a rekey is pending.
groups = Table(
    "groups",
    metadata,
    Column("group_id", Text, primary_key=True),
    Column("owner", Text, ForeignKey("accounts.user_id"), nullable=False),
    Column("topic", LargeBinary, nullable=False),
    Column("event_key", LargeBinary, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("dissolved_ms", BigInteger),
    Column("stale", Boolean, nullable=False, server_default=sa.false()),
)


def _group_column() -> Column[str]:
    return Column(
        "group_id", Text, ForeignKey("groups.group_id", ondelete="CASCADE"), primary_key=True
    )


members = Table(
    "members",
    metadata,
    _group_column(),
    Column("user_id", Text, ForeignKey("accounts.user_id"), primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

requests = Table(
    "requests",
    metadata,
    _group_column(),
    Column("user_id", Text, ForeignKey("accounts.user_id"), primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
)

# ``key``: hash of the secret, which is stored nowhere.
invitations = Table(
    "invitations",
    metadata,
    Column("key", LargeBinary, primary_key=True),
    Column("group_id", Text, ForeignKey("groups.group_id", ondelete="CASCADE"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Column("uses", Integer, nullable=False),
    Column("used", Integer, nullable=False),
)

revocations = Table(
    "revocations",
    metadata,
    _group_column(),
    Column("user_id", Text, primary_key=True),
    Column("epoch", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)

manifests = Table(
    "manifests",
    metadata,
    Column("content", LargeBinary, primary_key=True),
    Column("manifest_bytes", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("pieces", BigInteger, nullable=False),
    Column("piece_length", BigInteger, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("stored_ms", BigInteger, nullable=False),
    Column("folder", Boolean),  # NULL: stored before schema 0008
)

# In parts, as they travel: a database reads a large value whole even for a part of it. They may be
# there before the row of their manifest.
manifest_parts = Table(
    "manifest_parts",
    metadata,
    Column("content", LargeBinary, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

# ``current``: the highest version ever. ``floor``: versions up to it may not be offered again.
# ``ended_ms``: since when no version has an offer.
names = Table(
    "names",
    metadata,
    _group_column(),
    Column("share_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("current", BigInteger, nullable=False),
    Column("floor", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
)


def _version_columns() -> tuple[Column[str], Column[str], Column[int]]:
    return (
        Column("group_id", Text, primary_key=True),
        Column("share_id", Text, primary_key=True),
        Column("version", BigInteger, primary_key=True, autoincrement=False),
    )


# Versions on record, with or without offers. ``user_id`` shared it first; the account may be gone.
versions = Table(
    "versions",
    metadata,
    *_version_columns(),
    Column("content", LargeBinary, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("withdrawn", Boolean, nullable=False, server_default=sa.false()),
    sa.ForeignKeyConstraint(
        ["group_id", "share_id"], ["names.group_id", "names.share_id"], ondelete="CASCADE"
    ),
)

# Versions that are offered.
shares = Table(
    "shares",
    metadata,
    *_version_columns(),
    Column("content", LargeBinary, ForeignKey("manifests.content"), nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    sa.ForeignKeyConstraint(
        ["group_id", "share_id"], ["names.group_id", "names.share_id"], ondelete="CASCADE"
    ),
    sa.Index("shares_by_content", "content"),
)

offers = Table(
    "offers",
    metadata,
    *_version_columns(),
    Column("user_id", Text, ForeignKey("accounts.user_id"), primary_key=True),
    Column("device", LargeBinary, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    sa.ForeignKeyConstraint(
        ["group_id", "share_id", "version"],
        ["shares.group_id", "shares.share_id", "shares.version"],
        ondelete="CASCADE",
    ),
)

# ``globs``: a list of texts in msgpack. By device: a logout ends all follows of one.
follows = Table(
    "follows",
    metadata,
    _group_column(),
    Column("device", LargeBinary, primary_key=True),
    Column("user_id", Text, ForeignKey("accounts.user_id"), nullable=False),
    Column("globs", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    sa.Index("follows_by_device", "device"),
)

log = Table(
    "log",
    metadata,
    _group_column(),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("entry", LargeBinary, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("device", LargeBinary, primary_key=True),
    Column("request_id", LargeBinary, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    sa.Index("receipts_by_time", "at_ms"),
)

# -- several trackers ---------------------------------------------------------------------------
# Only PostgreSQL has rows here.

# The journal: one row for each commit. ``serial``: its number, without a gap. ``tracker``: whose.
# ``batch``: random, tells whether a commit in doubt took place. ``body``: see
# tracker.store.journal.
changes = Table(
    "changes",
    metadata,
    Column("serial", BigInteger, primary_key=True, autoincrement=False),
    Column("tracker", LargeBinary, nullable=False),
    Column("batch", LargeBinary, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("format", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

# Signs of life. ``started``: generation of its rows of presence. ``position``: last commit applied.
trackers = Table(
    "trackers",
    metadata,
    Column("tracker", LargeBinary, primary_key=True),
    Column("started", LargeBinary, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("format", Integer, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("connections", Integer, nullable=False),
    Column("received", BigInteger, nullable=False),
    Column("sent", BigInteger, nullable=False),
    Column("keys", LargeBinary, nullable=False),
)

# Devices online at each tracker, and tombstones of those that left. ``version``: counted by the
# tracker that owns the row. ``serial``: the commit that the row refers to.
presence = Table(
    "presence",
    metadata,
    Column("tracker", LargeBinary, primary_key=True),
    Column("device", LargeBinary, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("leeching", LargeBinary, nullable=False),
    Column("gone", Boolean, nullable=False),
    sa.Index("presence_by_version", "tracker", "version"),
)

SHARED_ALONE = (changes, trackers, presence)
"""Tables that a backup or a move leaves out: they are of running trackers."""

# Lost at a crash of the database, which is no loss; and often written.
for _table, _words in (
    (presence, "SET UNLOGGED"),
    (presence, "SET (autovacuum_vacuum_scale_factor = 0.01)"),
    (changes, "SET (autovacuum_vacuum_scale_factor = 0.01)"),
    (receipts, "SET (autovacuum_vacuum_scale_factor = 0.01)"),
):
    sa.event.listen(
        _table,
        "after_create",
        sa.DDL(f"ALTER TABLE {_table.name} {_words}").execute_if(  # type: ignore[no-untyped-call]
            dialect="postgresql"
        ),
    )
