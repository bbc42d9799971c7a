"""Groups with a pending rekey."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, false, text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; earlier releases kept this in memory only, so any group may need a rekey."""
    op.add_column("groups", Column("stale", Boolean, nullable=False, server_default=false()))
    op.execute(text("UPDATE groups SET stale = true WHERE dissolved_ms IS NULL"))
