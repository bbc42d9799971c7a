"""Devices that follow a group."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, Text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; no device of an earlier release follows a group."""
    op.create_table(
        "follows",
        Column(
            "group_id", Text, ForeignKey("groups.group_id", ondelete="CASCADE"), primary_key=True
        ),
        Column("device", LargeBinary, primary_key=True),
        Column("user_id", Text, ForeignKey("accounts.user_id"), nullable=False),
        Column("globs", LargeBinary, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
    )
    op.create_index("follows_by_device", "follows", ["device"])
