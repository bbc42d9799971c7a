"""The first schema."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    LargeBinary,
    Text,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "facts",
        Column("name", Text, primary_key=True),
        Column("value", LargeBinary, nullable=False),
    )
    _accounts()
    _groups()
    _shares()
    op.create_table(
        "log",
        _group(),
        Column("seq", BigInteger, primary_key=True, autoincrement=False),
        Column("entry", LargeBinary, nullable=False),
    )
    op.create_table(
        "receipts",
        Column("device", LargeBinary, primary_key=True),
        Column("request_id", LargeBinary, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_index("receipts_by_time", "receipts", ["at_ms"])


def _user(name: str = "user_id", *, key: bool = False) -> Column[str]:
    account = ForeignKey("accounts.user_id")
    return Column(name, Text, account, primary_key=key, nullable=False)


def _group() -> Column[str]:
    group = ForeignKey("groups.group_id", ondelete="CASCADE")
    return Column("group_id", Text, group, primary_key=True)


def _accounts() -> None:
    op.create_table(
        "accounts",
        Column("user_id", Text, primary_key=True),
        Column("password_hash", Text, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "devices",
        Column("device", LargeBinary, primary_key=True),
        _user(),
        Column("at_ms", BigInteger, nullable=False),
    )


def _groups() -> None:
    op.create_table(
        "groups",
        Column("group_id", Text, primary_key=True),
        _user("owner"),
        Column("topic", LargeBinary, nullable=False),
        Column("event_key", LargeBinary, nullable=False),
        Column("seq", BigInteger, nullable=False),
        Column("epoch", BigInteger, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("dissolved_ms", BigInteger),
    )
    op.create_table(
        "members",
        _group(),
        _user(key=True),
        Column("seq", BigInteger, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "requests",
        _group(),
        _user(key=True),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_table(
        "revocations",
        _group(),
        Column("user_id", Text, primary_key=True),
        Column("epoch", BigInteger, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )


def _shares() -> None:
    op.create_table(
        "manifests",
        Column("content", LargeBinary, primary_key=True),
        Column("manifest_bytes", BigInteger, nullable=False),
        Column("size", BigInteger, nullable=False),
        Column("files", BigInteger, nullable=False),
        Column("pieces", BigInteger, nullable=False),
        Column("piece_length", BigInteger, nullable=False),
        Column("algorithm", Text, nullable=False),
        Column("digest", LargeBinary, nullable=False),
        Column("stored_ms", BigInteger, nullable=False),
    )
    manifest = ForeignKey("manifests.content", ondelete="CASCADE")
    op.create_table(
        "manifest_parts",
        Column("content", LargeBinary, manifest, primary_key=True),
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("body", LargeBinary, nullable=False),
    )
    op.create_table(
        "shares",
        _group(),
        Column("share_id", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("content", LargeBinary, ForeignKey("manifests.content"), nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_index("shares_by_content", "shares", ["content"])
    op.create_table(
        "offers",
        Column("group_id", Text, primary_key=True),
        Column("share_id", Text, primary_key=True),
        _user(key=True),
        Column("device", LargeBinary, primary_key=True),
        Column("at_ms", BigInteger, nullable=False),
        ForeignKeyConstraint(
            ["group_id", "share_id"], ["shares.group_id", "shares.share_id"], ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    """Drop all tables."""
    for table in (
        "receipts",
        "log",
        "offers",
        "shares",
        "manifest_parts",
        "manifests",
        "revocations",
        "requests",
        "members",
        "groups",
        "devices",
        "accounts",
        "facts",
    ):
        op.drop_table(table)
