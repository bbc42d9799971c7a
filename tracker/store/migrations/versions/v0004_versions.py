"""Versions of the names of shares."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    LargeBinary,
    Text,
    false,
    text,
)

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# By this order the oldest offer comes first, and always the same of one millisecond.
_OLDEST = """
    SELECT user_id FROM offers_before AS o
    WHERE o.group_id = s.group_id AND o.share_id = s.share_id
    ORDER BY o.at_ms, o.user_id, o.device LIMIT 1
"""


def upgrade() -> None:
    """Make every share version 1 of its name, shared first by the user of its oldest offer.

    Why by copies: SQLite cannot change the key of a table, and dropping one that others refer to
    would delete their rows.
    """
    op.execute(text("CREATE TABLE shares_before AS SELECT * FROM shares"))
    op.execute(text("CREATE TABLE offers_before AS SELECT * FROM offers"))
    op.drop_table("offers")
    op.drop_index("shares_by_content", "shares")
    op.drop_table("shares")
    _create()
    op.execute(
        text(
            "INSERT INTO names (group_id, share_id, name, current, floor)"
            " SELECT group_id, share_id, name, 1, 0 FROM shares_before"
        )
    )
    op.execute(
        text(
            "INSERT INTO versions (group_id, share_id, version, content, user_id, at_ms)"
            f" SELECT group_id, share_id, 1, content, COALESCE(({_OLDEST}), ''), at_ms"
            " FROM shares_before AS s"
        )
    )
    op.execute(
        text(
            "INSERT INTO shares (group_id, share_id, version, content, at_ms)"
            " SELECT group_id, share_id, 1, content, at_ms FROM shares_before"
        )
    )
    op.execute(
        text(
            "INSERT INTO offers (group_id, share_id, version, user_id, device, at_ms)"
            " SELECT group_id, share_id, 1, user_id, device, at_ms FROM offers_before"
        )
    )
    op.drop_table("offers_before")
    op.drop_table("shares_before")


def _create() -> None:
    op.create_table(
        "names",
        Column(
            "group_id", Text, ForeignKey("groups.group_id", ondelete="CASCADE"), primary_key=True
        ),
        Column("share_id", Text, primary_key=True),
        Column("name", Text, nullable=False),
        Column("current", BigInteger, nullable=False),
        Column("floor", BigInteger, nullable=False),
        Column("ended_ms", BigInteger),
    )
    op.create_table(
        "versions",
        *_key(),
        Column("content", LargeBinary, nullable=False),
        Column("user_id", Text, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("withdrawn", Boolean, nullable=False, server_default=false()),
        _of_name(),
    )
    op.create_table(
        "shares",
        *_key(),
        Column("content", LargeBinary, ForeignKey("manifests.content"), nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        _of_name(),
    )
    op.create_index("shares_by_content", "shares", ["content"])
    op.create_table(
        "offers",
        *_key(),
        Column("user_id", Text, ForeignKey("accounts.user_id"), primary_key=True),
        Column("device", LargeBinary, primary_key=True),
        Column("at_ms", BigInteger, nullable=False),
        ForeignKeyConstraint(
            ["group_id", "share_id", "version"],
            ["shares.group_id", "shares.share_id", "shares.version"],
            ondelete="CASCADE",
        ),
    )


def _key() -> tuple[Column[str], Column[str], Column[int]]:
    return (
        Column("group_id", Text, primary_key=True),
        Column("share_id", Text, primary_key=True),
        Column("version", BigInteger, primary_key=True, autoincrement=False),
    )


def _of_name() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["group_id", "share_id"], ["names.group_id", "names.share_id"], ondelete="CASCADE"
    )
