"""Invitations, and accounts that are disabled or deleted."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Integer, LargeBinary, Text, false

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the columns; no account of earlier releases is disabled or deleted."""
    op.add_column("accounts", Column("disabled", Boolean, nullable=False, server_default=false()))
    op.add_column("accounts", Column("deleted", Boolean, nullable=False, server_default=false()))
    op.create_table(
        "invitations",
        Column("key", LargeBinary, primary_key=True),
        Column("group_id", Text, ForeignKey("groups.group_id", ondelete="CASCADE"), nullable=False),
        Column("user_id", Text, nullable=False),
        Column("at_ms", BigInteger, nullable=False),
        Column("expires_ms", BigInteger, nullable=False),
        Column("uses", Integer, nullable=False),
        Column("used", Integer, nullable=False),
    )
