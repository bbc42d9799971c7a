"""Time at which each device was last seen."""

from __future__ import annotations

from alembic import op
from sqlalchemy import BigInteger, Column, text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; a bound device was last seen at its login."""
    op.add_column("devices", Column("seen_ms", BigInteger, nullable=False, server_default="0"))
    op.execute(text("UPDATE devices SET seen_ms = at_ms"))
