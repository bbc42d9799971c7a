"""Whether a content is a folder."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; NULL for earlier contents, whose manifests are not read again."""
    op.add_column("manifests", Column("folder", Boolean))
