"""Tables of several trackers on one database, and parts of manifests without their parent.

The copy of the parts takes as long as the disk needs for it; it is done once.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, Integer, LargeBinary, Text

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables, which stay empty on SQLite, and drop a foreign key."""
    op.create_table(
        "parts_without_parent",
        Column("content", LargeBinary, primary_key=True),
        Column("part", Integer, primary_key=True, autoincrement=False),
        Column("body", LargeBinary, nullable=False),
    )
    op.execute("INSERT INTO parts_without_parent SELECT content, part, body FROM manifest_parts")
    op.drop_table("manifest_parts")
    op.rename_table("parts_without_parent", "manifest_parts")
    op.create_table(
        "changes",
        Column("serial", BigInteger, primary_key=True, autoincrement=False),
        Column("tracker", LargeBinary, nullable=False),
        Column("batch", LargeBinary, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("format", Integer, nullable=False),
        Column("body", LargeBinary, nullable=False),
    )
    op.create_table(
        "trackers",
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
    op.create_table(
        "presence",
        Column("tracker", LargeBinary, primary_key=True),
        Column("device", LargeBinary, primary_key=True),
        Column("version", BigInteger, nullable=False),
        Column("serial", BigInteger, nullable=False),
        Column("user_id", Text, nullable=False),
        Column("endpoint", Text, nullable=False),
        Column("since_ms", BigInteger, nullable=False),
        Column("leeching", LargeBinary, nullable=False),
        Column("gone", Boolean, nullable=False),
    )
    op.create_index("presence_by_version", "presence", ["tracker", "version"])
